#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the band is searched and parts of it zoomed in on, beside GNU Radio's own channelisers, in one run.

Ten sub-bands of 200 kHz in 20 MS/s, each at 500 kS/s. Ours: BandDetector (8192 bins) over all samples and one Zoom of
ten channels, on one thread. GNU Radio's: pfb.channelizer_ccf into 40 channels of 500 kHz (all sub-bands, on a fixed
grid, nothing detected), and ten freq_xlating_fir_filter_ccc. GNU Radio gives each block a thread of its own, so what is
compared is MS per second of processor time, of all threads together; the wall clock's rate stands beside it.

With --model also a band of ten emitters at 20 MS/s: the whole detector path (detector, ring of samples, tracker) on one
thread without looks, and the block classifier with detect=on: behind a throttle with the policy drop_oldest, where what
is not searched is counted, and unthrottled with the policy block, where the rate that it reaches is measured.

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
from gnuradio import blocks, filter, gr, wavesfm
from gnuradio.fft import window
from gnuradio.filter import firdes, pfb
from wavesfm_core._kernels import BandDetector, Zoom
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.views import smooth_size
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec

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


def ten_emitters() -> np.ndarray:
    """0.21 s of noise with ten emitters of 10 kHz to 1 MHz at 10 to 30 dB, every other one in bursts of a third."""
    n = 1 << 22
    rng = np.random.default_rng(1)
    frequency = np.fft.fftfreq(n) * RATE_HZ
    x = rng.standard_normal(2 * n, dtype=np.float32).view(np.complex64)
    for k, centre in enumerate(CENTRES_HZ):
        width = 10e3 * 100 ** (k / 9)
        part = np.fft.fft(rng.standard_normal(2 * n, dtype=np.float32).view(np.complex64))
        part = np.fft.ifft(np.where(np.abs(frequency - centre) < width / 2, part, 0)) * 10 ** ((10 + 2.2 * k) / 20)
        if k % 2:
            part[(np.arange(n) // (n // 6)) % 3 > 0] = 0
        x += part.astype(np.complex64)
    return x * np.float32(1e-2)


def detector_path(samples: np.ndarray, count: int) -> float:
    """MS per second of one thread, of detector, ring and tracker; no emitter is looked at."""
    analyser = BandAnalyser(
        SpectrogramSpec(), ("",), RATE_HZ, namer=lambda tiles: np.zeros((len(tiles), 1)), submit=_no
    )
    chunk = 65_536
    analyser.push(samples)
    start = time.thread_time()
    for k in range(count // chunk):
        at = k * chunk % samples.size
        analyser.push(samples[at : at + chunk])
    return count // chunk * chunk / (time.thread_time() - start) / 1e6


def _no(_job: object) -> bool:
    return False


def live(samples: np.ndarray, model: str, seconds: float, policy: str) -> dict[str, float]:
    """The block with detect=on for so many seconds of signal, throttled to 20 MS/s unless the policy is block."""
    top = gr.top_block()
    head = blocks.head(gr.sizeof_gr_complex, int(seconds * RATE_HZ))
    top.connect(blocks.vector_source_c(samples, True), head)
    classifier = wavesfm.classifier(model, sample_rate=RATE_HZ, policy=policy, detect="on")
    if policy == "block":
        top.connect(head, classifier)
    else:
        top.connect(head, blocks.throttle(gr.sizeof_gr_complex, RATE_HZ), classifier)
    start = time.perf_counter()
    top.run()
    wall_s = time.perf_counter() - start
    status = classifier.status()
    band = status["band"]
    names = ("samples_in", "samples_searched", "samples_missed", "looks_left", "looks_busy", "events", "failures")
    return {"ms_per_s": seconds * RATE_HZ / wall_s / 1e6} | {name: band[name] for name in names}


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
    parser.add_argument("--model", help="a bundle, for the parts with ten emitters")
    parser.add_argument("--seconds", type=float, default=20.0, help="of signal, of each live run")
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
    report: dict[str, object] = {"gnuradio": gr.version(), "rates": rates}
    if options.model:
        band = ten_emitters()
        report["detector path, MS/s of a thread"] = detector_path(band, count)
        for policy in ("drop_oldest", "block"):
            report[f"classifier, detect=on, {policy}"] = live(band, options.model, options.seconds, policy)
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    for name, rate in rates.items():
        line = f"{name:44} {rate['ms_per_processor_s']:8.1f} MS/s of processor {rate['ms_per_wall_s']:8.1f} MS/s"
        sys.stdout.write(line + "\n")
    for name, value in report.items():
        if name not in ("gnuradio", "rates"):
            sys.stdout.write(f"{name}: {value}\n")


if __name__ == "__main__":
    main()
