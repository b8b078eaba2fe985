# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine for tests: deterministic, as slow as wished, and failing where told to."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import EngineError
from ..types import Tensor
from .base import check_arrays, closed

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle


class FakeEngine:
    """Every output's element is the mean of the tile plus its index; `calls` holds the batch sizes that came.

    delay_s: of each run; failures: indices of the runs that raise EngineError instead; closed: whether it was closed.
    """

    description = "fake"
    relative_tolerance = 0.0

    def __init__(self, bundle: Bundle, delay_s: float = 0.0, failures: Collection[int] = ()) -> None:
        self._spec = bundle.spec
        self.delay_s = delay_s
        self.failures = failures
        self.calls: list[int] = []
        self.closed = False

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine fake", "input", self._spec.inputs, inputs)
        if self.closed:
            raise closed("engine fake")
        tile = inputs[next(t.name for t in self._spec.inputs if t.source == "tile")]
        self.calls.append(len(tile))
        time.sleep(self.delay_s)
        if len(self.calls) - 1 in self.failures:
            raise EngineError("engine fake", "run", f"a scripted failure of call {len(self.calls) - 1}", "outputs")
        means = tile.mean(axis=(1, 2, 3), dtype=np.float64)
        return {t.name: _ramp(means, t.shape[1:]) for t in self._spec.outputs}

    def close(self) -> None:
        """See `Engine.close`."""
        self.closed = True


def _ramp(means: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    ramp = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    return (means.reshape(-1, *[1] * len(shape)) + ramp).astype(np.float32)
