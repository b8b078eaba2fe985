# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines whose outputs a test knows beforehand, so that a stand-in for a GPU's engine passes the golden tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.fake import FakeEngine


class KnownEngine(FakeEngine):
    """Gives the bundle's golden outputs plus `offset` whatever comes; `batches` has the first value of each batch."""

    def __init__(self, bundle: Bundle, description: str, offset: float = 0.0, **options: Any) -> None:
        super().__init__(bundle, **options)
        self.description = description
        self.offset = offset
        self._golden = bundle.golden().outputs
        self.batches: list[float] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        super().run(inputs)
        tiles = inputs["tile"]
        self.batches.append(float(tiles.flat[0]))
        return {
            name: np.resize(values, (len(tiles), *values.shape[1:])) + np.float32(self.offset)
            for name, values in self._golden.items()
        }
