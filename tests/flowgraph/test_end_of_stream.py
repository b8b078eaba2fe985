# SPDX-License-Identifier: GPL-3.0-or-later
"""At the end of a stream every tile, the last partial one too, arrives at the user's own message blocks."""

from __future__ import annotations

import json

import numpy as np
import pmt
import pytest
from gnuradio import blocks, gr, wavesfm
from support.flowgraphs import Collector, accounts_close, finish, run, vector_source
from support.waiting import until

TILE, PARTIAL = 2048, 300


def expected_starts(n_tiles):
    return [index * TILE for index in range(n_tiles)]


@pytest.mark.parametrize("attempt", range(12))
def test_nothing_is_lost_with_a_slow_engine(attempt, fake_bundle, fake_engine, tone, tmp_path):
    fake_engine(delay_s=0.004)
    full = 9 + attempt
    samples = tone(-0.2, full * TILE + PARTIAL, seed=attempt)
    samples.tofile(tmp_path / "recording.cf32")
    source = blocks.file_source(gr.sizeof_gr_complex, str(tmp_path / "recording.cf32"), False)
    graph = Collector(source, wavesfm.classifier(str(fake_bundle), batch_tiles=2, queue_tiles=1 + attempt))
    sink = wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    graph.top.msg_connect((graph.classifier, "predictions"), (sink, "predictions"))
    graph.run()
    assert [p["start_sample"] for p in graph.predictions] == expected_starts(full + 1)
    assert [p["partial"] for p in graph.predictions] == [False] * full + [True]
    assert graph.predictions[-1]["n_samples"] == PARTIAL // 64 * 64
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["start_sample"] for line in lines] == expected_starts(full + 1)
    assert sink.count == full + 1
    (finished,) = graph.status("finished")
    assert accounts_close(finished)
    assert finished["waiting"] == finished["dropped"] == finished["failed"] == 0
    assert finished["samples_in"] == len(samples)
    assert pmt.to_python(graph.messages("status")[-1])["kind"] == "finished"


def test_a_stream_of_one_partial_tile(fake_bundle, tone):
    graph = Collector(vector_source(tone(0.3, 700)), wavesfm.classifier(str(fake_bundle))).run()
    assert [(p["label"], p["partial"], p["n_samples"]) for p in graph.predictions] == [("right", True, 640)]


def test_a_stream_too_short_for_any_tile(fake_bundle, tone):
    graph = Collector(vector_source(tone(0.3, 100)), wavesfm.classifier(str(fake_bundle))).run()
    assert graph.predictions == []
    (finished,) = graph.status("finished")
    assert (finished["tiles_in"], finished["samples_in"], finished["samples_skipped"]) == (0, 100, 100)


def test_an_empty_stream(fake_bundle):
    graph = Collector(vector_source(np.zeros(0, np.complex64)), wavesfm.classifier(str(fake_bundle))).run()
    assert [said["tiles_in"] for said in graph.status("finished")] == [0]


class Commander(gr.sync_block):
    """Sends one command with its first samples and ends when its own, shorter stream does."""

    def __init__(self):
        gr.sync_block.__init__(self, "commander", [np.complex64], [])
        self.message_port_register_out(pmt.intern("out"))

    def work(self, input_items, output_items):
        self.message_port_pub(pmt.intern("out"), pmt.cons(pmt.intern("threshold"), pmt.from_double(0.5)))
        return len(input_items[0])


def test_a_command_sender_that_ends_first_ends_nothing(fake_bundle, fake_engine, tone):
    fake_engine(delay_s=0.002)
    graph = Collector(vector_source(tone(-0.2, 100 * TILE)), wavesfm.classifier(str(fake_bundle)))
    commander = Commander()
    graph.top.connect(vector_source(tone(0, 10)), commander)
    graph.top.msg_connect((commander, "out"), (graph.classifier, "command"))
    graph.run()
    assert len(graph.predictions) == 100


def test_one_classifier_runs_again(fake_bundle, tone):
    classifier = wavesfm.classifier(str(fake_bundle))
    first = Collector(vector_source(tone(-0.2, 3 * TILE)), classifier).run()
    assert [p["label"] for p in first.predictions] == ["left"] * 3
    first.top.disconnect_all()
    second = Collector(vector_source(tone(0.3, 2 * TILE)), classifier).run()
    assert [p["label"] for p in second.predictions] == ["right"] * 2
    assert classifier.status()["tiles_in"] == 2


def test_a_flowgraph_that_is_stopped_ends_at_once_and_its_accounts_close(fake_bundle, fake_engine, tone):
    fake_engine(delay_s=0.05)
    source = blocks.vector_source_c(tone(-0.2, TILE).tolist(), True)
    graph = Collector(source, wavesfm.classifier(str(fake_bundle), queue_tiles=1000, batch_tiles=1))
    graph.top.start()
    until(lambda: graph.classifier.status()["inferred"] >= 2 and graph.classifier.status()["waiting"] >= 100)
    graph.top.stop()
    finish(graph.top)
    accounts = graph.classifier.status()
    assert accounts_close(accounts)
    assert accounts["waiting"] == 0
    assert accounts["dropped"] > 0


def test_a_plain_run_of_two_classifiers(fake_bundle, tone, tmp_path):
    top = gr.top_block()
    source = vector_source(tone(-0.2, 5 * TILE))
    classifiers = [wavesfm.classifier(str(fake_bundle)) for _ in range(2)]
    sinks = [wavesfm.prediction_sink(str(tmp_path / f"{index}.jsonl")) for index in range(2)]
    for classifier, sink in zip(classifiers, sinks):
        top.connect(source, classifier)
        top.msg_connect((classifier, "predictions"), (sink, "predictions"))
    run(top)
    assert [sink.count for sink in sinks] == [5, 5]
