# SPDX-License-Identifier: GPL-3.0-or-later
"""How long an engine takes for a tile."""

from __future__ import annotations

import statistics
import time

import numpy as np

from ..bundle.bundle import Bundle, bundle_inputs
from .base import Engine


def milliseconds_per_tile(engine: Engine, bundle: Bundle, batch_tiles: int, seconds: float = 1.0) -> float:
    """Median ms for each tile over runs with a batch of golden tiles, as many as take `seconds` in all, at least 3."""
    golden = bundle.golden()
    chosen = np.arange(batch_tiles) % len(golden.tiles)
    snr_db = golden.snr_db(bundle.spec)
    snr_db = None if snr_db is None else snr_db[chosen]
    inputs = bundle_inputs(bundle.spec, np.stack(golden.tiles)[chosen], golden.rate_hz[chosen], snr_db)
    engine.run(inputs)  # the first run of a batch size allocates
    took: list[float] = []
    while len(took) < 3 or sum(took) < seconds:
        start = time.perf_counter()
        engine.run(inputs)
        took.append(time.perf_counter() - start)
    return statistics.median(took) / batch_tiles * 1e3
