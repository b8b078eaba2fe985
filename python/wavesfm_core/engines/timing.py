# SPDX-License-Identifier: GPL-3.0-or-later
"""Time that an engine takes for a tile."""

from __future__ import annotations

import statistics
import time

from ..bundle.bundle import Bundle
from ..preprocess.golden_inputs import golden_inputs
from .base import Engine


def milliseconds_per_tile(engine: Engine, bundle: Bundle, batch_tiles: int, seconds: float = 1.0) -> float:
    """Median time of a run divided by its tiles.

    Parameters
    ----------
    engine : Engine
        Engine of the bundle.
    bundle : Bundle
        Its golden tiles are the batch.
    batch_tiles : int
        Tiles of a run.
    seconds : float
        Time of all runs together; there are at least 3.

    Returns
    -------
    float
        Milliseconds for each tile.
    """
    golden = bundle.golden()
    inputs = golden_inputs(bundle.spec, golden, [i % len(golden.tiles) for i in range(batch_tiles)])
    engine.run(inputs)  # the first run of a batch size allocates memory
    took: list[float] = []
    while len(took) < 3 or sum(took) < seconds:
        start = time.perf_counter()
        engine.run(inputs)
        took.append(time.perf_counter() - start)
    return statistics.median(took) / batch_tiles * 1e3
