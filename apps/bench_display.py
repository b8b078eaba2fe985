#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the signal display costs: processor time for the samples of one second, and frames a second without a screen.

apps/bench_display.py --rate 20e6 --emitters 20
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from gnuradio.wavesfm.display.signal_model import DisplayOptions, SignalModel
from gnuradio.wavesfm.display.signal_window import SignalWindow
from PyQt5 import QtWidgets

CHUNK = 131_072
FRAMES = 60


def emitter(number: int, rate_hz: float, count: int) -> dict[str, object]:
    """The message of an emitter on the air."""
    low_hz = rate_hz * (0.9 * number / count - 0.45)
    return {
        "event": "appeared", "sample": 1000, "changes": None, "run": 1, "emitter": number, "kind": "signal",
        "label": f"label {number % 7}", "confidence": 0.9, "probabilities": {"a": 0.9, "b": 0.1}, "start_sample": 1000,
        "n_samples": 5000, "low_hz": low_hz, "high_hz": low_hz + 0.02 * rate_hz, "centre_hz": 868e6, "snr_db": 20.0,
        "n_bursts": 1, "time": None,
    }  # fmt: skip


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20e6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of stream")
    parser.add_argument("--emitters", type=int, default=20)
    arguments = parser.parse_args()
    model = SignalModel(DisplayOptions(), arguments.rate, 868e6)
    samples = np.random.default_rng(0).standard_normal((CHUNK, 2), dtype=np.float32).view(np.complex64).ravel()
    began_s = time.process_time()
    for _ in range(round(arguments.seconds * arguments.rate / CHUNK)):
        model.take(samples)
    stream_s = time.process_time() - began_s
    for number in range(arguments.emitters):
        model.take_event(emitter(number, arguments.rate, arguments.emitters))
    application = QtWidgets.QApplication([])
    window = SignalWindow(model)
    window.show()
    application.processEvents()
    began_s = time.process_time()
    for _ in range(FRAMES):
        window.refresh()
        window.grab()
    frame_s = (time.process_time() - began_s) / FRAMES
    report = {
        "rate_hz": arguments.rate,
        "cores_for_the_stream": round(stream_s / arguments.seconds, 3),
        "msamples_per_cpu_s": round(model.samples_in / stream_s / 1e6, 1),
        "cpu_ms_per_frame": round(1e3 * frame_s, 1),
        "frames_per_cpu_s": round(1 / frame_s, 1),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
