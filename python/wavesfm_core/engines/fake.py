# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine for tests: deterministic, of any duration, failing in chosen runs."""

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
    """Each element of an output is the mean of the tile plus the element's index.

    Parameters
    ----------
    bundle : Bundle
        Names and shapes of the tensors.
    delay_s : float
        Duration of each run.
    failures : collection of int
        Indices of the runs that raise EngineError.
    """

    calls: list[int]
    """Batch sizes of the runs so far."""
    closed: bool
    """Whether `close` was called."""

    description = "fake"
    relative_tolerance = 0.0

    def __init__(self, bundle: Bundle, delay_s: float = 0.0, failures: Collection[int] = ()) -> None:
        self._spec = bundle.spec
        self.delay_s = delay_s
        self.failures = failures
        self.calls = []
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
