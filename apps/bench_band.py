#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the band is searched and parts of it zoomed in on, beside GNU Radio's own channelisers, in one run.

Ten sub-bands of 200 kHz in 20 MS/s, each at 500 kS/s. Ours: BandDetector (8192 bins) over all samples and one Zoom of
ten channels, on one thread. GNU Radio's: pfb.channelizer_ccf into 40 channels of 500 kHz (all sub-bands, on a fixed
grid, nothing detected), and ten freq_xlating_fir_filter_ccc. GNU Radio gives each block a thread of its own, so what is
compared is MS per second of processor time, of all threads together; the wall clock's rate stands beside it.

Needs GNU Radio 3.10 and wavesfm_core. Exit code 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from gnuradio import blocks, filter, gr
from gnuradio.fft import window
from gnuradio.filter import firdes, pfb
from wavesfm_core._kernels import BandDetector, Zoom
from wavesfm_core.band.views import smooth_size

RATE_HZ = 20e6
CHANNELS = 40
PART_HZ = RATE_HZ / CHANNELS
PASS_HZ, STOP_HZ = 100e3, 250e3
REJECTION_DB = 70
CENTRES_HZ = tuple(-9e6 + 2e6 * k for k in range(10))
CHUNK = 262_144
TRANSFORM = 16_384


def samples() -> np.ndarray:
    parts = np.random.default_rng(0).standard_normal((CHUNK, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel()


def detect(count: int) -> None:
    detector, x = BandDetector(8192), samples()
    for _ in range(count // CHUNK):
        detector.push(x)


def zoom(count: int) -> None:
    bins = smooth_size(round(TRANSFORM * PART_HZ / RATE_HZ))
    channels = [(round(centre / RATE_HZ * TRANSFORM), bins) for centre in CENTRES_HZ]
    kernel, x = Zoom(TRANSFORM, channels), samples()
    for _ in range(count // CHUNK):
        kernel.push(x)


def detect_and_zoom(count: int) -> None:
    detect(count)
    zoom(count)


def taps() -> list[float]:
    cutoff, transition = (PASS_HZ + STOP_HZ) / 2, STOP_HZ - PASS_HZ
    return list(firdes.low_pass_2(1.0, RATE_HZ, cutoff, transition, REJECTION_DB, window.WIN_KAISER))


def source(top: gr.top_block, count: int) -> gr.basic_block:
    head = blocks.head(gr.sizeof_gr_complex, count)
    top.connect(blocks.vector_source_c(samples(), True), head)
    return head


def polyphase(count: int) -> None:
    top = gr.top_block()
    channeliser = pfb.channelizer_ccf(CHANNELS, taps(), 1.0, REJECTION_DB)
    top.connect(source(top, count), channeliser)
    for k in range(CHANNELS):
        top.connect((channeliser, k), blocks.null_sink(gr.sizeof_gr_complex))
    top.run()


def translating(count: int) -> None:
    top = gr.top_block()
    head = source(top, count)
    for centre in CENTRES_HZ:
        part = filter.freq_xlating_fir_filter_ccc(CHANNELS, taps(), centre, RATE_HZ)
        top.connect(head, part, blocks.null_sink(gr.sizeof_gr_complex))
    top.run()


def measure(work: Callable[[int], None], count: int, runs: int) -> dict[str, float]:
    """Medians over runs of MS per second of processor time, and per second on the wall."""
    work(CHUNK)  # plans and pages are there before the clocks start
    of_processor, of_wall = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        work(count)
        of_processor.append(count / (time.process_time() - processor) / 1e6)
        of_wall.append(count / (time.perf_counter() - wall) / 1e6)
    return {"ms_per_processor_s": statistics.median(of_processor), "ms_per_wall_s": statistics.median(of_wall)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=float, default=20e6, help="of each run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    count = max(1, round(options.samples / CHUNK)) * CHUNK
    works = {
        "detector": detect,
        "zoom": zoom,
        "detector and zoom": detect_and_zoom,
        "GNU Radio pfb.channelizer_ccf": polyphase,
        "GNU Radio freq_xlating_fir_filter_ccc x 10": translating,
    }
    rates = {name: measure(work, count, options.runs) for name, work in works.items()}
    if options.json:
        sys.stdout.write(json.dumps({"gnuradio": gr.version(), "rates": rates}) + "\n")
        return
    for name, rate in rates.items():
        line = f"{name:44} {rate['ms_per_processor_s']:8.1f} MS/s of processor {rate['ms_per_wall_s']:8.1f} MS/s"
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
