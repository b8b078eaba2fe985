#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how much of a stream the live classifier takes, beside GNU Radio's null sink and the engine alone.

    apps/bench_live.py models/rf20-nano --seconds 3 --rounds 5

One vector source feeds each sink in turn, in rounds, so that other load on the machine meets all of them:

null sink       what GNU Radio's source and scheduler give
free engine     the classifier with an engine that takes no time: the path of samples and messages
classifier      the same with the bundle's engine, every tile inferred
engine alone    the same batches in a loop without a flowgraph
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gnuradio import blocks, gr, wavesfm
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.timing import milliseconds_per_tile

WARM_UP_S = 0.5
SOURCE_SAMPLES = 1 << 22
RATE_HZ = 20e6
BATCH_TILES = 8


class FreeEngine:
    """An engine whose outputs are zero and take no time."""

    description = "free"
    relative_tolerance = 0.0

    def __init__(self, bundle: Bundle) -> None:
        self._outputs = bundle.spec.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros for each item."""
        count = len(next(iter(inputs.values())))
        return {t.name: np.zeros((count, *t.shape[1:]), np.float32) for t in self._outputs}

    def close(self) -> None:
        """Do nothing."""


def samples_per_s(sink: Any, samples_in: Callable[[], int], source: np.ndarray, seconds: float) -> float:
    """Samples that a sink takes in a second, after a warm-up."""
    top = gr.top_block()
    top.connect(blocks.vector_source_c(source, True), sink)
    top.start()
    time.sleep(WARM_UP_S)
    before, began_s = samples_in(), time.perf_counter()
    time.sleep(seconds)
    rate = (samples_in() - before) / (time.perf_counter() - began_s)
    top.stop()
    top.wait()
    return rate


def classifier(bundle: Path, free: bool, threads: int) -> Any:
    """The block without a gate."""
    block = wavesfm.classifier(str(bundle), "cpu", RATE_HZ, gate_db=-1.0, batch_tiles=BATCH_TILES, threads=threads)
    if free:
        block._pipeline.engine = FreeEngine(block._pipeline.bundle)
    return block


def measure(path: Path, seconds: float, threads: int, source: np.ndarray) -> dict[str, float]:
    """MS/s of each of the four, once."""
    bundle = Bundle.open(path)
    stride = bundle.spec.preprocess.stride_samples
    assert stride is not None
    null = blocks.null_sink(gr.sizeof_gr_complex)
    rates = {"null sink": samples_per_s(null, lambda: null.nitems_read(0), source, seconds)}
    for name, free in (("free engine", True), ("classifier", False)):
        block = classifier(path, free, threads)
        rates[name] = samples_per_s(block, lambda block=block: block.status()["samples_in"], source, seconds)
    engine = open_engine(bundle, "cpu", threads)
    rates["engine alone"] = stride * 1e3 / milliseconds_per_tile(engine, bundle, BATCH_TILES, seconds)
    engine.close()
    return {name: rate / 1e6 for name, rate in rates.items()}


def main() -> None:
    """Measure in rounds and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: the runtime's choice")
    options = parser.parse_args()
    parts = np.random.default_rng(0).standard_normal((SOURCE_SAMPLES, 2), dtype=np.float32)
    source = (parts * np.float32(1e-3)).view(np.complex64).ravel()
    rounds = [measure(options.bundle, options.seconds, options.threads, source) for _ in range(options.rounds)]
    for name in rounds[0]:
        print(f"{name:14} {statistics.median(each[name] for each in rounds):8.1f} MS/s")
    for name, limit in (("free engine", "null sink"), ("classifier", "engine alone")):
        print(f"{name} / {limit}: {statistics.median(each[name] / each[limit] for each in rounds):.2f}")


if __name__ == "__main__":
    main()
