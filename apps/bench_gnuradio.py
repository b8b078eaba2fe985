#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the rate of GNU Radio's spectrogram chain on this machine; `wavesfm bench` runs it in a separate process.

vector_source -> stream_to_vector -> fft_vcc (Hann) -> complex_to_mag_squared -> integrate_ff -> nlog10_ff -> head ->
null_sink, each block in its own thread as GNU Radio's scheduler has it. Needs GNU Radio 3.10, nothing of this project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
from gnuradio import blocks, fft, gr
from gnuradio.fft import window

VECTOR_SAMPLES = 262_144


def run_chain(fft_size: int, averaged: int, n_samples: int) -> float:
    """MS/s of one run over n_samples, from the start of the flowgraph to its end."""
    parts = np.random.default_rng(0).standard_normal((VECTOR_SAMPLES, 2), dtype=np.float32)
    samples = parts.view(np.complex64).ravel()
    n_vectors = max(n_samples // (fft_size * averaged), 1)
    top = gr.top_block()
    chain = [
        blocks.vector_source_c(samples, True),
        blocks.stream_to_vector(gr.sizeof_gr_complex, fft_size),
        fft.fft_vcc(fft_size, True, window.hann(fft_size), True, 1),
        blocks.complex_to_mag_squared(fft_size),
        blocks.integrate_ff(averaged, fft_size),
        blocks.nlog10_ff(10, fft_size, 0),
        blocks.head(gr.sizeof_float * fft_size, n_vectors),  # at the end, where it costs next to nothing
        blocks.null_sink(gr.sizeof_float * fft_size),
    ]
    top.connect(*chain)
    start = time.perf_counter()
    top.run()
    return n_vectors * fft_size * averaged / (time.perf_counter() - start) / 1e6


def measure(fft_size: int, averaged: int, seconds: float, runs: int) -> list[float]:
    """MS/s of each of `runs` runs that together take about `seconds`, after a short one that finds out how long."""
    guess = run_chain(fft_size, averaged, 40 * VECTOR_SAMPLES)
    n_samples = max(int(guess * 1e6 * seconds / runs), VECTOR_SAMPLES)
    return [run_chain(fft_size, averaged, n_samples) for _ in range(runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fft-size", type=int, default=1024)
    parser.add_argument("--averaged", type=int, default=4, help="frames per output vector")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long all runs take together")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON with the rate of every run")
    options = parser.parse_args()
    rates = measure(options.fft_size, options.averaged, options.seconds, options.runs)
    median = statistics.median(rates)
    text = f"GNU Radio {gr.version()}: {median:.1f} MS/s, median of {options.runs} runs"
    if options.json:
        text = json.dumps({"msamples_per_s": median, "msps": rates, "gnuradio": gr.version()})
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
