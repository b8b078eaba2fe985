# SPDX-License-Identifier: GPL-3.0-or-later
"""Slow readers, hanging engines, restarts, two senders, retuning by message, and blocks in local variables."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pmt
import pytest
from gnuradio import blocks, gr, wavesfm
from gnuradio.wavesfm import _runtime
from support.flowgraphs import Collector, accounts_close, finish, run, vector_source
from support.waiting import LONG_S, until
from wavesfm_core.engines.fake import FakeEngine

TILE = 2048


class Reader(gr.basic_block):
    """A reader of predictions, held until `go` is set, then as slow as `delay_s`."""

    def __init__(self, delay_s=0.0, go=None):
        gr.basic_block.__init__(self, "reader", [], [])
        self.delay_s, self.go, self.sequences = delay_s, go, []
        self.message_port_register_in(pmt.intern("in"))
        self.set_msg_handler(pmt.intern("in"), self.handle)

    def handle(self, message):
        self.sequences.append(pmt.to_python(message)["sequence"])
        assert self.go is None or self.go.wait(LONG_S)
        time.sleep(self.delay_s)


def endless(classifier, tone, *readers, rate_hz=None):
    """A running flowgraph of an endless stream into a classifier and readers of its predictions."""
    top = gr.top_block()
    chain = [blocks.vector_source_c(tone(-0.2, TILE).tolist(), True)]
    if rate_hz:
        chain.append(blocks.throttle(gr.sizeof_gr_complex, rate_hz))
    top.connect(*chain, classifier)
    for reader in readers:
        top.msg_connect((classifier, "predictions"), (reader, "in"))
    top.start()
    return top


def test_a_slow_reader_costs_messages_and_no_memory(fake_bundle, fake_engine, tone):
    fake_engine()
    go = threading.Event()
    classifier, reader = wavesfm.classifier(str(fake_bundle), policy="drop_oldest", gate_db=-1), Reader(0.001, go)
    top = endless(classifier, tone, reader)
    until(lambda: classifier.status()["messages_dropped"] > 1000)
    assert reader.nmsgs(pmt.intern("in")) <= 16
    go.set()
    until(lambda: reader.sequences[-1] > 1000)
    top.stop()
    finish(top)
    taken = reader.sequences
    assert taken == sorted(taken) and taken[-1] > 1000  # the newest came, the oldest were dropped
    status = classifier.status()
    assert accounts_close(status)
    assert len(taken) + status["messages_dropped"] <= status["inferred"] <= len(taken) + status["messages_dropped"] + 16


def test_with_block_a_slow_reader_gets_every_message(fake_bundle, fake_engine, tone):
    fake_engine()
    classifier, reader = wavesfm.classifier(str(fake_bundle), queue_tiles=2), Reader(delay_s=0.002)
    top = gr.top_block()
    top.connect(vector_source(tone(-0.2, 400 * TILE)), classifier)
    top.msg_connect((classifier, "predictions"), (reader, "in"))
    run(top)
    assert reader.sequences == list(range(400))
    assert classifier.status()["messages_dropped"] == 0


def test_the_fullest_queue_of_the_readers_is_seen_and_none_of_an_ended_one(fake_bundle):
    classifier, reader = wavesfm.classifier(str(fake_bundle)), Reader()
    for _ in range(5):
        reader.gateway._post(pmt.intern("in"), pmt.PMT_T)
    publisher = classifier._output
    assert _runtime.queued(publisher.symbol_name(), "predictions") == 0
    publisher.message_port_sub(pmt.intern("predictions"), pmt.cons(reader.alias_pmt(), pmt.intern("in")))
    assert _runtime.queued(publisher.symbol_name(), "predictions") == 5
    publisher.message_port_sub(pmt.intern("predictions"), pmt.cons(pmt.intern("nobody"), pmt.intern("in")))
    assert _runtime.queued(publisher.symbol_name(), "predictions") == 5
    assert _runtime.queued("nobody", "predictions") == 0
    assert not _runtime.stop_requested()


class HangingEngine(FakeEngine):
    """Does not return from its runs after the second one until `go` is set."""

    go = threading.Event()

    def run(self, inputs):
        if len(self.calls) >= 2:
            self.go.wait(2 * LONG_S)
        return super().run(inputs)


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_an_engine_that_hangs_is_said_and_the_stop_returns(policy, fake_bundle, tone, monkeypatch):
    monkeypatch.setattr("wavesfm_core.pipeline.open_engine", lambda bundle, *_: HangingEngine(bundle))
    monkeypatch.setattr("wavesfm_core.pipeline.verify_engine", lambda bundle, engine: engine)
    monkeypatch.setattr("gnuradio.wavesfm.monitor.STALLED_S", 0.3)
    HangingEngine.go.clear()
    throttle = blocks.throttle(gr.sizeof_gr_complex, 200e3)
    options = {"policy": policy, "queue_tiles": 4, "batch_tiles": 1, "gate_db": -1}
    graph = Collector(throttle, wavesfm.classifier(str(fake_bundle), **options))
    graph.top.connect(blocks.vector_source_c(tone(-0.2, TILE).tolist(), True), throttle)
    graph.top.start()
    try:
        until(lambda: any("no batch for" in said["text"] for said in graph.status("warning")))
        before = len(graph.status("accounts"))
        until(lambda: len(graph.status("accounts")) > before)  # accounts go on
        graph.top.stop()
        finish(graph.top)  # without the limit of 2 s it would wait for the engine
        status = graph.classifier.status()
        assert accounts_close(status) and status["waiting"] == 0 and status["failed"] == 1
        assert "has not returned" in status["last_error"]
        HangingEngine.go.set()
        monkeypatch.setattr("wavesfm_core.pipeline.open_engine", lambda bundle, *_: FakeEngine(bundle))
        graph.top.start()  # with another engine
        until(lambda: graph.classifier.status()["inferred"] > 3)
    finally:
        HangingEngine.go.set()
        graph.top.stop()
        finish(graph.top)


def tuned(graph):
    return [(p["run"], p["rate_hz"], p["centre_hz"]) for p in graph.predictions]


def test_rate_and_frequency_stay_known_over_a_restart_and_a_lock(fake_bundle, fake_engine, tone):
    fake_engine()
    tags = [(0, "rx_rate", pmt.from_double(2e6)), (0, "rx_freq", pmt.from_double(100e6))]
    classifier = wavesfm.classifier(str(fake_bundle), gate_db=-1)
    graph = Collector(vector_source(tone(-0.2, TILE), tags), classifier).run()
    graph.top.disconnect(graph.source, classifier)
    untagged = blocks.vector_source_c(tone(-0.2, TILE).tolist(), True)
    throttle = blocks.throttle(gr.sizeof_gr_complex, 200e3)
    graph.top.connect(untagged, throttle, classifier)
    graph.top.start()
    until(lambda: (2, 2e6, 100e6) in tuned(graph))
    classifier.set_center_freq(101e6)
    until(lambda: (2, 2e6, 101e6) in tuned(graph))
    graph.top.lock()
    null = blocks.null_sink(gr.sizeof_gr_complex)
    graph.top.connect(throttle, null)
    graph.top.unlock()
    until(lambda: (3, 2e6, 101e6) in tuned(graph))
    graph.top.stop()
    finish(graph.top)
    assert {rate for _, rate, _ in tuned(graph)} == {2e6}
    sequences = [p["sequence"] for p in graph.predictions]
    assert sequences == list(range(len(sequences)))


def test_a_source_tags_its_next_sample_at_each_start(tmp_path, tone):
    tone(0.1, 200_000).tofile(tmp_path / "g001_433.92M_250k.cf32")
    source = wavesfm.recording_source(str(tmp_path / "g001_433.92M_250k.cf32"))
    for _ in range(2):
        top, sink = gr.top_block(), blocks.vector_sink_c()
        throttle = blocks.throttle(gr.sizeof_gr_complex, 100e3, False)
        top.connect(source, throttle, sink)
        top.start()
        until(lambda sink=sink: len(sink.data()) > 1000)
        top.stop()
        finish(top)
        assert {(tag.offset, pmt.symbol_to_string(tag.key)) for tag in sink.tags()} == {(0, "rx_freq"), (0, "rx_rate")}
        top.disconnect_all()
    assert source._next_sample < 200_000


@pytest.mark.parametrize(
    "message",
    [
        {"freq": 50e6, "rate": 3e6, "gain": 20.0},  # as for a UHD source
        {"center_freq": 50e6, "sample_rate": 3e6},
    ],
)
def test_a_message_that_retunes_the_radio_retunes_the_classifier(message, fake_bundle, fake_engine, tone):
    fake_engine()
    classifier = wavesfm.classifier(str(fake_bundle), sample_rate=1e6, center_freq=40e6, gate_db=-1)
    throttle = blocks.throttle(gr.sizeof_gr_complex, 200e3)
    graph = Collector(throttle, classifier)
    graph.top.connect(blocks.vector_source_c(tone(-0.2, TILE).tolist(), True), throttle)
    graph.top.start()
    until(lambda: (1, 1e6, 40e6) in tuned(graph))
    post = classifier._output.gateway._post
    post(pmt.intern("command"), pmt.to_pmt({"freq": 60e6, "policy": "sometimes"}))
    until(lambda: graph.status("error"))
    post(pmt.intern("command"), pmt.to_pmt(message))
    until(lambda: (1, 3e6, 50e6) in tuned(graph))
    graph.top.stop()
    finish(graph.top)
    assert {centre for _, _, centre in tuned(graph)} == {40e6, 50e6}  # the wrong command changed nothing
    assert graph.status("accounts") == [] or graph.status("accounts")[-1]["retunes"] <= 1


def test_overflow_messages_are_counted(fake_bundle, fake_engine, tone):
    fake_engine()
    graph = Collector(vector_source(tone(-0.2, TILE)), wavesfm.classifier(str(fake_bundle)))
    overflows = pmt.intern("overflows")
    graph.classifier._output.gateway._post(overflows, pmt.cons(overflows, pmt.from_long(3)))
    graph.classifier._output.gateway._post(overflows, pmt.PMT_T)
    graph.run()
    assert graph.classifier.status()["overflows"] in (0, 4)  # 0 where the stream ended before the messages came


def test_two_classifiers_into_one_sink_lose_nothing(fake_bundle, fake_engine, tone, tmp_path):
    fake_engine()
    top, sink = gr.top_block(), wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    for count, rate_hz in ((2, 0), (40, 100e3)):
        classifier = wavesfm.classifier(str(fake_bundle), gate_db=-1)
        chain = [vector_source(tone(-0.2, count * TILE))]
        chain += [blocks.throttle(gr.sizeof_gr_complex, rate_hz)] if rate_hz else []
        top.connect(*chain, classifier)
        top.msg_connect((classifier, "predictions"), (sink, "predictions"))
        top.msg_connect((classifier, "status"), (sink, "status"))
    run(top)
    assert (sink.count, sink.errors) == (42, 0)


LOCAL = """
import gc, sys
import numpy as np
from gnuradio import blocks, gr, wavesfm

class Top(gr.top_block):
    def __init__(self, bundle, recording, out):
        gr.top_block.__init__(self)
        source = wavesfm.recording_source(recording)
        classifier = wavesfm.classifier(bundle, gate_db=-1)
        sink = wavesfm.prediction_sink(out)
        self.connect(source, classifier)
        self.msg_connect(classifier, "predictions", sink, "predictions")

top = Top(*sys.argv[1:])
gc.collect()
top.run()
gc.collect()
del top
from gnuradio.wavesfm import keep_alive
import time
end_s = time.monotonic() + 300
while keep_alive._kept and time.monotonic() < end_s:
    time.sleep(0.1)
    gc.collect()
print("kept", len(keep_alive._kept))
"""


def test_blocks_in_local_variables_live_as_long_as_their_flowgraph(fake_bundle, tone, tmp_path):
    tone(-0.2, 5 * TILE).tofile(tmp_path / "r.cf32")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [str(fake_bundle), str(tmp_path / "r.cf32"), str(tmp_path / "out.jsonl")]
    command = [sys.executable, "-c", LOCAL, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * LONG_S)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5
    assert "kept 0" in done.stdout


def test_the_estimator_holds_the_pilot_grid_back_or_drops(tmp_path, monkeypatch):
    from support.ofdm_graphs import before_batches
    from support.tiny_grids import SMALL, make_grid_bundle, paths
    from wavesfm_core.channel.uplink import save_channels

    bundle = str(make_grid_bundle(tmp_path / "bundle", SMALL))
    save_channels(tmp_path / "walk.npz", paths(SMALL, 4), SMALL)
    before_batches(monkeypatch, lambda _: time.sleep(0.003))
    for policy in ("block", "drop_oldest"):
        source = wavesfm.uplink_simulator(str(tmp_path / "walk.npz"), bundle, slots=400)
        grid = wavesfm.ofdm_pilot_grid(bundle)
        estimator = wavesfm.channel_estimator(bundle, "", "ls", policy=policy, queue_slots=4, batch_slots=1)
        top = gr.top_block()
        for antenna in range(SMALL.antennas):
            top.connect((source, antenna), (grid, antenna))
        top.msg_connect((grid, "grids"), (estimator, "grids"))
        most = [0]
        top.start()
        waiter = threading.Thread(target=top.wait, daemon=True)
        waiter.start()
        while waiter.is_alive():
            most[0] = max(most[0], estimator._messages.nmsgs(pmt.intern("grids")))
            waiter.join(0.005)
        status = estimator.status()
        assert most[0] <= 17
        assert status["slots_in"] == status["estimated"] + status["dropped"] == 400 - grid.status()["messages_dropped"]
        assert (status["dropped"] == 0) == (policy == "block")


def test_the_samples_of_a_classifier_start_at_zero_again_with_a_new_run(fake_bundle, fake_engine, tone):
    fake_engine()
    graph = Collector(vector_source(tone(-0.2, 2 * TILE)), wavesfm.classifier(str(fake_bundle), gate_db=-1))
    for _ in range(2):
        graph.source.rewind()
        graph.run()
    keys = [(p["run"], p["start_sample"], p["sequence"]) for p in graph.predictions]
    assert keys == [(1, 0, 0), (1, TILE, 1), (2, 0, 2), (2, TILE, 3)]
    assert np.diff([started["run"] for started in graph.status("started")]).tolist() == [1]
