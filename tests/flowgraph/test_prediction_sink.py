# SPDX-License-Identifier: GPL-3.0-or-later
"""The sink's file: the lines of `wavesfm classify`, whole after the flowgraph, and faults that end nothing."""

from __future__ import annotations

import json
import os

import pmt
import pytest
from gnuradio import gr, wavesfm
from support.flowgraphs import Collector, finish, run, vector_source
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.pipeline import Pipeline

TILE = 2048
PORT = pmt.intern("predictions")


def classify_to(sink, samples, bundle, **parameters):
    graph = Collector(vector_source(samples), wavesfm.classifier(str(bundle), **parameters))
    graph.top.msg_connect((graph.classifier, "predictions"), (sink, "predictions"))
    graph.top.msg_connect((graph.classifier, "status"), (sink, "status"))
    return graph.run()


def test_the_file_holds_what_classify_says(fake_bundle, tone, tmp_path):
    samples = tone(0.3, 5 * TILE + 500)
    sink = wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    classify_to(sink, samples, fake_bundle, sample_rate=1e6, center_freq=1e9)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [p.as_dict() for p in Pipeline.open(fake_bundle).classify(samples, rate_hz=1e6, centre_hz=1e9)]
    assert all(record.pop("latency_s") > 0 for record in found)
    assert [(record.pop("run"), record.pop("sequence")) for record in found] == [(1, index) for index in range(6)]
    assert [list(record) for record in found] == [[key for key in record if key != "latency_s"] for record in expected]
    for record in expected:
        del record["latency_s"]
    assert found == expected
    assert (sink.count, sink.errors) == (6, 0)


@pytest.mark.parametrize(("append", "lines"), [(False, 2), (True, 3)])
def test_an_existing_file(append, lines, fake_bundle, tone, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"label": "before"}\n')
    classify_to(wavesfm.prediction_sink(str(path), append=append), tone(0.3, 2 * TILE), fake_bundle)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == lines


@pytest.mark.parametrize("filename", ["-", ""])
def test_standard_output(filename, fake_bundle, tone, capsys):
    classify_to(wavesfm.prediction_sink(filename), tone(0.3, 2 * TILE), fake_bundle)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["label"] for line in lines] == ["right", "right"]


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        wavesfm.prediction_sink(str(tmp_path / "nowhere" / "out.jsonl"))
    error = refused.value
    assert (error.field, error.found) == ("filename", "No such file or directory")
    assert error.where == str(tmp_path / "nowhere" / "out.jsonl")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        wavesfm.prediction_sink(str(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_counted_and_ends_nothing(fake_bundle, tone):
    sink = wavesfm.prediction_sink("/dev/full")
    graph = classify_to(sink, tone(0.3, 4 * TILE), fake_bundle)
    assert (sink.count, sink.errors) == (0, 4)
    assert len(graph.predictions) == 4


def test_a_torn_line_spoils_no_other(tmp_path, monkeypatch):
    class Filling:
        """A file whose second write takes a part only and whose third takes nothing."""

        def __init__(self, file):
            self.file, self.writes = file, 0

        def write(self, data):
            self.writes += 1
            if self.writes == 3:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:5] if self.writes == 2 else data)

    sink = wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    sink._file = Filling(sink._file)
    for index in range(5):
        sink.handle_prediction(pmt.to_pmt({"label": f"number {index}"}))
    whole = []
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        try:
            whole.append(json.loads(line)["label"])
        except json.JSONDecodeError:
            assert line == '{"lab'
    assert whole == ["number 0", "number 3", "number 4"]
    assert (sink.count, sink.errors) == (3, 2)


class Sender(gr.basic_block):
    """Sends whatever it is given to the sink, from a thread that is not the flowgraph's."""

    def __init__(self):
        gr.basic_block.__init__(self, "sender", [], [])
        self.message_port_register_out(PORT)


def test_messages_that_are_no_predictions_are_counted_and_end_nothing(tmp_path):
    top, sender = gr.top_block(), Sender()
    sink = wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    top.msg_connect((sender, "predictions"), (sink, "predictions"))
    top.start()
    messages = [pmt.PMT_T, pmt.to_pmt({"colour": "blue"}), pmt.to_pmt({"label": "x", "confidence": float("nan")})]
    for message in [*messages, pmt.to_pmt({"label": "right"})]:
        sender.message_port_pub(PORT, message)
    sender._post(pmt.intern("system"), pmt.cons(pmt.intern("done"), pmt.from_long(1)))
    finish(top)
    assert (sink.count, sink.errors) == (1, 3)
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == "right"


def test_a_sink_that_nothing_reaches_leaves_an_empty_file(fake_bundle, tone, tmp_path):
    top = gr.top_block()
    classifier, sink = wavesfm.classifier(str(fake_bundle)), wavesfm.prediction_sink(str(tmp_path / "out.jsonl"))
    top.connect(vector_source(tone(0.3, 10)), classifier)
    top.msg_connect((classifier, "predictions"), (sink, "predictions"))
    run(top)
    assert (tmp_path / "out.jsonl").read_bytes() == b""
