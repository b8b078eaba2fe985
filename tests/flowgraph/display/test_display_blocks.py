# SPDX-License-Identifier: GPL-3.0-or-later
"""The display blocks in flowgraphs, without a window: what reaches their models, and that they hold nothing up."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import gr, wavesfm
from gnuradio.wavesfm.display.qt import require_application
from support import tiny_grids
from support.flowgraphs import run, vector_source
from support.ofdm_graphs import Estimated
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.types import Slot

pytest.importorskip("pyqtgraph")
TILE = 2048


def shown(fake_bundle, samples, tags=(), posted=(), **options):
    """A run of a source into a classifier and a display of all its messages, and of those that are posted to it."""
    top, source = gr.top_block(), vector_source(samples, tags)
    classifier, display = wavesfm.classifier(str(fake_bundle), **options), wavesfm.signal_display()
    for port, message in posted:
        display._messages.gateway._post(pmt.intern(port), message)
    top.connect(source, classifier)
    top.connect(source, display)
    for port in ("predictions", "events", "detections", "status"):
        top.msg_connect((classifier, port), (display, port))
    run(top)
    return display


def test_all_messages_and_samples_of_a_stream_arrive_to_its_end(fake_bundle):
    rng = np.random.default_rng(1)
    n = 1 << 19
    noise = rng.normal(size=(2, n, 2)).astype(np.float32).view(np.complex64)[..., 0]
    wide = np.fft.ifft(np.fft.fft(noise[1]) * (np.abs(np.fft.fftfreq(n) + 0.25) < 0.05))
    samples = noise[0] * np.float32(0.01)
    samples[n // 4 :] += 0.1 * wide[n // 4 :]  # to the end: its end comes when the stream has ended
    tags = [(0, "rx_rate", pmt.from_double(1e6)), (0, "rx_freq", pmt.from_double(868e6))]
    display = shown(fake_bundle, samples.astype(np.complex64), tags, detect="on")
    seen = display.model.snapshot()
    assert (seen.centre_hz, seen.rate_hz) == (868e6, 1e6)
    assert display.status() == {
        "samples_in": n,
        "samples_skipped": display.model.samples_skipped,
        "messages_refused": 0,
    }
    here = [each for each in seen.emitters if each.edges_hz == pytest.approx((867.7e6, 867.8e6), abs=1e4)]
    one = min(here, key=lambda each: each.start_sample)
    assert [each.record for each in seen.emitters if each.active] == []
    signs = [event.sign for event in seen.events if event.number == one.number]
    assert (signs[0], signs[-1]) == ("-", "+")  # newest first
    assert display.model.health.accounts["kind"] == "finished" and seen.whole["label"]


def test_a_retune_in_the_stream(fake_bundle, tone):
    tags = [(0, "rx_rate", pmt.from_double(2e5)), (5000, "rx_freq", pmt.from_double(1e8))]
    display = shown(fake_bundle, tone(-0.2, 20 * TILE), tags)
    assert (display.model.snapshot().centre_hz, display.model.snapshot().rate_hz) == (1e8, 2e5)


def test_a_retune_by_message_and_messages_that_cannot_be_shown(fake_bundle, tone):
    posted = [
        ("command", pmt.to_pmt({"freq": 2e8, "gain": 3.0})),
        ("events", pmt.to_pmt({"event": "appeared"})),
        ("status", pmt.from_long(3)),
    ]
    display = shown(fake_bundle, tone(-0.2, 5 * TILE), posted=posted)
    assert display.model.snapshot().centre_hz == 2e8
    assert display.status()["messages_refused"] == 2


def test_a_fault_of_the_model_does_not_end_the_stream(tone):
    display, top = wavesfm.signal_display(), gr.top_block()
    display.model.take = lambda samples: 1 / 0
    top.connect(vector_source(tone(0.1, 10_000)), display)
    run(top)


@pytest.mark.parametrize("wrong", [{"theme": "pink"}, {"sample_rate": -1}, {"history_s": 0}, {"keep_mb": np.nan}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        wavesfm.signal_display(**wrong)


def test_an_estimator_s_messages_reach_its_display(tmp_path):
    from gnuradio.wavesfm.pdus import slot_to_pmt

    spec = tiny_grids.SMALL
    grids = tiny_grids.received(spec, tiny_grids.paths(spec, 5), 15.0)
    estimator = wavesfm.channel_estimator(str(tiny_grids.make_grid_bundle(tmp_path / "b")), method="ls")
    graph = Estimated([slot_to_pmt(Slot(grid, 1000 * i, 999), spec) for i, grid in enumerate(grids)], estimator)
    display = wavesfm.estimator_display(history=10)
    for port in ("channel", "status"):
        graph.top.msg_connect((estimator, port), (display, port))
    graph.run()
    seen = display.model.snapshot()
    assert display.status() == {"estimates": 5, "messages_refused": 0}
    assert seen.method == "ls" and np.isfinite(seen.curves["snr_db"]).all()
    for wrong in ({"history": 1}, {"theme": "x"}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            wavesfm.estimator_display(**wrong)


def test_without_an_application_the_window_is_refused(monkeypatch):
    from PyQt5 import QtWidgets

    monkeypatch.setattr(QtWidgets.QApplication, "instance", staticmethod(lambda: None))
    with pytest.raises(ConfigurationError, match="QApplication"):
        require_application("signal_display")
    with pytest.raises(ConfigurationError, match="QApplication"):
        wavesfm.signal_display().qwidget()
