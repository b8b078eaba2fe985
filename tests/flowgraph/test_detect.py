# SPDX-License-Identifier: GPL-3.0-or-later
"""The classifier's search of the band: events and detections of a live stream, and the accounts of its samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pmt
import pytest
from gnuradio import gr, wavesfm
from support.flowgraphs import run, vector_source
from wavesfm_core.errors import ConfigurationError

RATE_HZ = 1e6


class Listener(gr.basic_block):
    """Collects the messages of two ports."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, "listener", [], [])
        self.events: list = []
        self.detections: list = []
        for name, handler in (("events", self.take_event), ("detections", self.take_detections)):
            self.message_port_register_in(pmt.intern(name))
            self.set_msg_handler(pmt.intern(name), handler)

    def take_event(self, message: object) -> None:
        self.events.append(pmt.to_python(message))

    def take_detections(self, message: object) -> None:
        self.detections.append(pmt.to_python(message))


def two_signals(n: int) -> np.ndarray:
    """Noise, and from a quarter to three quarters of it two bands of noise 20 dB stronger."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(3, n, 2)).astype(np.float32).view(np.complex64)[..., 0]
    f = np.fft.fftfreq(n)
    wide = np.fft.ifft(np.fft.fft(noise[1]) * (np.abs(f + 0.25) < 0.05))
    narrow = np.fft.ifft(np.fft.fft(noise[2]) * (np.abs(f - 0.2) < 0.01))
    x = noise[0] * np.float32(0.01)
    x[n // 4 : 3 * n // 4] += ((wide + narrow) * 0.1)[n // 4 : 3 * n // 4]
    return x.astype(np.complex64)


def play(bundle: Path, samples: np.ndarray, **options: object) -> tuple[Listener, dict]:
    classifier = wavesfm.classifier(str(bundle), detect="on", center_freq=100e6, **options)
    top, listener, source = gr.top_block(), Listener(), vector_source(samples)
    top.connect(source, classifier)
    for port in ("events", "detections"):
        top.msg_connect((classifier, port), (listener, port))
    run(top)
    return listener, classifier.status()


def test_emitters_appear_and_end_with_their_edges(fake_bundle: Path) -> None:
    samples = two_signals(1 << 20)
    listener, status = play(fake_bundle, samples, sample_rate=RATE_HZ)
    ended = [event for event in listener.events if event["event"] == "ended" and event["kind"] == "signal"]
    edges = sorted((each["low_hz"], each["high_hz"]) for each in ended)
    assert len(edges) == 2 and np.allclose(edges, [(-300e3, -200e3), (190e3, 210e3)], atol=6e3)
    for each in ended:
        assert abs(each["start_sample"] - len(samples) // 4) < 2e-3 * RATE_HZ
        assert abs(each["n_samples"] - len(samples) // 2) < 4e-3 * RATE_HZ
        assert each["label"] in ("noise", "left", "right") and each["n_looks"] > 0 and each["run"] == 1
    assert [event["sequence"] for event in listener.events] == list(range(len(listener.events)))
    assert max(len(each["emitters"] or []) for each in listener.detections) >= 2
    band = status["band"]
    assert band["samples_in"] == band["samples_searched"] == len(samples) and band["failures"] == 0


def test_an_unknown_rate_is_counted_as_missed(fake_bundle: Path) -> None:
    samples = two_signals(1 << 17)
    listener, status = play(fake_bundle, samples)
    assert listener.events == [] and status["band"]["samples_missed"] == len(samples)


def test_another_word_is_refused(fake_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="detect: found 'maybe'"):
        wavesfm.classifier(str(fake_bundle), detect="maybe")
