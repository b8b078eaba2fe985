# SPDX-License-Identifier: GPL-3.0-or-later
"""The classifier in real flowgraphs: messages, faults, policies, setters, the same answers as without a flowgraph."""

from __future__ import annotations

import json
import threading

import numpy as np
import pmt
import pytest
from gnuradio import blocks, gr, gr_unittest, wavesfm
from support.flowgraphs import ChunkSource, Collector, accounts_close, finish, rx_time, vector_source
from support.waiting import until
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.tile_stream import TileStream

TILE = 2048


class Messages(gr_unittest.TestCase):
    @pytest.fixture(autouse=True)
    def arrange(self, fake_bundle, tone):
        self.bundle, self.tone = str(fake_bundle), tone

    def test_every_key_and_its_type(self):
        source = vector_source(self.tone(-0.2, TILE), [(0, "rx_time", rx_time(9, 0.5))])
        graph = Collector(source, wavesfm.classifier(self.bundle, sample_rate=1e6, center_freq=2.4e9)).run()
        (message,) = graph.messages("predictions")
        types = {
            "label": pmt.is_symbol, "confidence": pmt.is_real, "probabilities": pmt.is_dict, "start_sample":
            pmt.is_uint64, "n_samples": pmt.is_uint64, "rate_hz": pmt.is_real, "centre_hz": pmt.is_real, "time":
            pmt.is_tuple, "partial": pmt.is_bool, "latency_s": pmt.is_real, "n_nonfinite": pmt.is_uint64, "bundle_id":
            pmt.is_symbol, "run": pmt.is_uint64, "sequence": pmt.is_uint64,
            "inferred": pmt.is_bool, "rate_note": pmt.is_symbol, "floor_db": pmt.is_real, "peak_db":
            pmt.is_real, "margin_db": pmt.is_real, "n_gap_samples": pmt.is_uint64,
        }  # fmt: skip
        self.assertEqual(set(pmt.to_python(message)), set(types))
        for key, is_right in types.items():
            self.assertTrue(is_right(pmt.dict_ref(message, pmt.intern(key), pmt.PMT_F)), key)
        (prediction,) = graph.predictions
        self.assertEqual(prediction["label"], "left")
        self.assertAlmostEqual(sum(prediction["probabilities"].values()), 1.0, 6)
        self.assertEqual(set(prediction["probabilities"]), {"noise", "left", "right"})
        self.assertEqual(prediction["confidence"], prediction["probabilities"]["left"])
        self.assertTrue(prediction["latency_s"] > 0)
        self.assertEqual(prediction["bundle_id"], graph.classifier.bundle_id)

    def test_known_noise_is_held_back(self):
        noise = vector_source(self.tone(0, 20 * TILE, snr_db=-200))
        graph = Collector(noise, wavesfm.classifier(self.bundle, gate_db=20)).run()
        self.assertEqual({prediction["label"] for prediction in graph.predictions}, {"noise"})
        held = [prediction for prediction in graph.predictions if not prediction["inferred"]]
        self.assertEqual({(p["confidence"], p["probabilities"]) for p in held}, {(None, None)})
        self.assertGreater(len(held), 10)
        self.assertEqual(graph.status("finished")[0]["gated"], len(held))

    def test_a_negative_gate_is_no_gate(self):
        graph = Collector(
            vector_source(self.tone(0, TILE, snr_db=-200)), wavesfm.classifier(self.bundle, gate_db=-1)
        ).run()
        self.assertEqual(graph.predictions[0]["label"], "noise")

    def test_label_says_each_change_once(self):
        samples = np.concatenate([self.tone(-0.2, 3 * TILE), self.tone(0.3, 2 * TILE)])
        graph = Collector(vector_source(samples), wavesfm.classifier(self.bundle)).run()
        said = [pmt.to_python(message) for message in graph.messages("label")]
        self.assertEqual([pair[0] for pair in said], ["label"] * len(said))
        self.assertEqual([pair[1] for pair in said], ["left", "right"])

    def test_started_says_which_engine_and_bundle(self):
        graph = Collector(
            vector_source(self.tone(0.3, TILE)), wavesfm.classifier(self.bundle, device="onnxruntime")
        ).run()
        (started,) = graph.status("started")
        self.assertIn("onnxruntime", started["engine"])
        self.assertEqual(started["bundle_id"], graph.classifier.bundle_id)

    def test_accounts_come_while_running_and_close(self):
        source = blocks.vector_source_c(self.tone(-0.2, TILE).tolist(), True)
        throttle = blocks.throttle(gr.sizeof_gr_complex, 100e3)
        graph = Collector(throttle, wavesfm.classifier(self.bundle))
        graph.top.connect(source, throttle)
        graph.top.start()
        until(lambda: len(graph.status("accounts")) >= 2)
        graph.top.stop()
        finish(graph.top)
        accounts = graph.status("accounts")
        self.assertGreaterEqual(len(accounts), 2)
        self.assertTrue(all(map(accounts_close, accounts)))
        self.assertGreater(accounts[-1]["samples_in"], accounts[0]["samples_in"])


@pytest.mark.parametrize(("most", "seed"), [(1, 1), (63, 2), (300, 3), (5000, 4), (8000, 5)])
def test_random_chunks_give_what_the_pipeline_gives(most, seed, fake_bundle, tone):
    full = 2 if most == 1 else 12
    samples = np.concatenate([tone(-0.2, full * TILE // 2), tone(0.3, full * TILE // 2), tone(0.1, 300)])
    expected = [p.as_dict() for p in Pipeline.open(fake_bundle).classify(samples, rate_hz=1e6)]
    graph = Collector(
        ChunkSource(samples, most, seed), wavesfm.classifier(str(fake_bundle), sample_rate=1e6, batch_tiles=3)
    )
    found = graph.run().predictions
    assert len(found) == full + 1
    assert [prediction.pop("sequence") for prediction in found] == list(range(full + 1))
    assert {prediction.pop("run") for prediction in found} == {1}
    for prediction in (*found, *expected):
        del prediction["latency_s"]
    assert found == expected


def test_nonfinite_samples_are_taken_as_zero_and_said_once(fake_bundle, tone):
    samples = tone(-0.2, 3 * TILE)
    samples[[5, 6, TILE + 9]] = np.nan, np.inf + 0j, complex(0, -np.inf)
    graph = Collector(vector_source(samples), wavesfm.classifier(str(fake_bundle))).run()
    assert [p["n_nonfinite"] for p in graph.predictions] == [2, 1, 0]
    (warning,) = graph.status("warning")
    assert "NaN or infinite" in warning["text"]
    assert graph.status("finished")[0]["nonfinite_samples"] == 3


def test_a_failing_engine_is_said_and_the_rest_goes_on(fake_bundle, fake_engine, tone):
    fake_engine(failures={1, 3})
    graph = Collector(vector_source(tone(-0.2, 6 * TILE)), wavesfm.classifier(str(fake_bundle), batch_tiles=1)).run()
    assert [p["start_sample"] // TILE for p in graph.predictions] == [0, 2, 4, 5]
    errors = graph.status("error")
    assert "a scripted failure of call 1" in errors[0]["text"]
    assert errors[0]["tiles"] == 1
    (finished,) = graph.status("finished")
    assert (finished["tiles_in"], finished["inferred"], finished["failed"]) == (6, 4, 2)
    assert "a scripted failure of call 3" in finished["last_error"]


def test_an_engine_that_always_fails_ends_cleanly_and_is_not_said_for_each_tile(fake_bundle, fake_engine, tone):
    fake_engine(failures=range(1000))
    graph = Collector(vector_source(tone(-0.2, 200 * TILE)), wavesfm.classifier(str(fake_bundle), batch_tiles=1)).run()
    assert graph.predictions == []
    assert graph.status("finished")[0]["failed"] == 200
    assert 1 <= len(graph.status("error")) < 100


def test_a_fault_in_work_skips_what_follows_and_ends_cleanly(fake_bundle, tone, monkeypatch):
    push = TileStream.push

    def failing(self, samples, arrived_s=None):
        if self.samples_in >= 4 * TILE:
            raise ZeroDivisionError("scripted")
        return push(self, samples, arrived_s)

    monkeypatch.setattr(TileStream, "push", failing)
    samples = tone(-0.2, 40 * TILE)
    graph = Collector(vector_source(samples), wavesfm.classifier(str(fake_bundle)))
    graph.run()
    (error,) = graph.status("error")
    assert "classification stopped: ZeroDivisionError: scripted" in error["text"]
    (finished,) = graph.status("finished")
    assert finished["samples_in"] == len(samples)
    covered = len(graph.predictions) * TILE
    assert len(samples) == covered + finished["samples_skipped"] + finished["samples_pending"]
    assert finished["fault"] == "ZeroDivisionError: scripted"
    assert 4 <= len(graph.predictions) < 40
    assert accounts_close(finished)


def test_a_session_that_cannot_start_ends_cleanly(fake_bundle, tone, monkeypatch):
    classifier = wavesfm.classifier(str(fake_bundle))

    def refuse(*_):
        raise MemoryError("scripted")

    monkeypatch.setattr(classifier, "_make_session", refuse)
    graph = Collector(vector_source(tone(-0.2, 3 * TILE)), classifier).run()
    assert "MemoryError: scripted" in graph.status("error")[0]["text"]
    assert graph.status("finished")[0]["samples_skipped"] == 3 * TILE


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_policies_with_a_slow_engine(policy, fake_bundle, fake_engine, tone):
    go = threading.Event()
    fake_engine(go=go)
    classifier = wavesfm.classifier(str(fake_bundle), policy=policy, queue_tiles=4, batch_tiles=2)
    graph = Collector(vector_source(tone(-0.2, 40 * TILE)), classifier)
    graph.top.start()
    until(lambda: classifier.status()["tiles_in"] >= (5 if policy == "block" else 40))
    go.set()
    finish(graph.top)
    (finished,) = graph.status("finished")
    assert accounts_close(finished)
    assert finished["tiles_in"] == 40
    assert finished["inferred"] == len(graph.predictions)
    starts = [p["start_sample"] // TILE for p in graph.predictions]
    assert starts == sorted(set(starts))
    dropped = [said for said in graph.status("warning") if "dropped" in said["text"]]
    if policy == "block":
        assert (finished["dropped"], dropped, starts) == (0, [], list(range(40)))
        return
    assert finished["dropped"] == 40 - len(starts) > 0
    assert len(dropped) == 1
    assert policy in dropped[0]["text"]
    assert (39 in starts) == (policy == "drop_oldest")


def test_setters_while_running(fake_bundle, fake_engine, tone):
    fake_engine(delay_s=0.001)
    source = blocks.vector_source_c(tone(-0.2, TILE).tolist(), True)
    throttle = blocks.throttle(gr.sizeof_gr_complex, 400e3)
    classifier = wavesfm.classifier(str(fake_bundle), threshold=0.0)
    graph = Collector(throttle, classifier)
    graph.top.connect(source, throttle)

    def await_label(label):
        seen = len(graph.predictions)
        until(lambda: label in [p["label"] for p in graph.predictions[seen:]])

    graph.top.start()
    try:
        await_label("right")
        classifier.set_threshold(1.0)
        await_label("unknown")
        classifier.set_threshold(-1)
        await_label("right")
        classifier.set_gate_db(200.0)  # a signal that the model names is never held back
        await_label("right")
        assert all(p["inferred"] for p in graph.predictions)
        classifier.set_gate_db(-1)
        await_label("right")
        classifier.set_policy("drop_oldest")
        for setter, wrong in (
            (classifier.set_threshold, 1.5),
            (classifier.set_policy, "sometimes"),
            (classifier.set_gate_db, np.nan),
        ):
            with pytest.raises(ConfigurationError):
                setter(wrong)
        await_label("right")
    finally:
        graph.top.stop()
        finish(graph.top)


def test_set_policy_frees_a_stream_that_is_held_back(fake_bundle, fake_engine, tone):
    go = threading.Event()
    engines = fake_engine(go=go)
    classifier = wavesfm.classifier(str(fake_bundle), queue_tiles=1, batch_tiles=1)
    graph = Collector(vector_source(tone(-0.2, 30 * TILE)), classifier)
    graph.top.start()
    until(lambda: engines[0].calls)
    classifier.set_policy("drop_newest")
    until(lambda: classifier.status()["tiles_in"] == 30)
    go.set()
    finish(graph.top)
    assert graph.status("finished")[0]["dropped"] > 20


def test_commands_by_message(fake_bundle, tone):
    classifier = wavesfm.classifier(str(fake_bundle))
    graph = Collector(vector_source(tone(-0.2, TILE)), classifier)
    port = pmt.intern("command")
    post = classifier._output.gateway._post
    post(port, pmt.cons(pmt.intern("threshold"), pmt.from_double(0.25)))
    post(port, pmt.to_pmt({"policy": "drop_oldest", "gate_db": 3}))
    post(port, pmt.to_pmt({"colour": "blue"}))
    post(port, pmt.cons(pmt.intern("policy"), pmt.intern("sometimes")))
    post(port, pmt.from_long(4))
    graph.run()
    assert classifier._pipeline.head.threshold == 0.25
    assert classifier._pipeline.gate.gate_db == 3
    assert classifier._policy == "drop_oldest"
    texts = [said["text"] for said in graph.status("error")]
    assert [any(word in text for text in texts) for word in ("colour", "sometimes", "found 4")] == [True] * 3


def test_a_bundle_that_does_not_open(tmp_path, make_bundle):
    with pytest.raises(BundleError, match="nowhere"):
        wavesfm.classifier(str(tmp_path / "nowhere"))
    bundle = make_bundle(tmp_path / "altered")
    description = json.loads((bundle / "bundle.json").read_text())
    del description["head"]
    (bundle / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="head"):
        wavesfm.classifier(str(bundle))


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"device": "abacus"}, ConfigurationError),
        ({"policy": "sometimes"}, ConfigurationError),
        ({"queue_tiles": 0}, ConfigurationError),
        ({"batch_tiles": 0}, ConfigurationError),
        ({"batch_wait_ms": -1}, ConfigurationError),
        ({"threshold": 2}, ConfigurationError),
        ({"sample_rate": -1}, ConfigurationError),
        ({"sample_rate": "fast"}, ConfigurationError),
        ({"center_freq": float("nan")}, ConfigurationError),
        ({"max_age_s": -1}, ConfigurationError),
        ({"time_tolerance_s": -1}, ConfigurationError),
        ({"threads": -1}, ConfigurationError),
    ],
)
def test_wrong_parameters_are_refused_at_construction(parameters, error, fake_bundle):
    with pytest.raises(error) as refused:
        wavesfm.classifier(str(fake_bundle), **parameters)
    assert next(iter(parameters)).split("_")[0] in str(refused.value) or "rate_hz" in str(refused.value)


@pytest.mark.parametrize("wrong", [{"queue_tiles": 0}, {"policy": "sometimes"}, {"sample_rate": "fast"}])
def test_a_block_that_is_refused_leaves_no_engine_open(wrong, fake_bundle, fake_engine):
    opened = fake_engine()
    with pytest.raises(ConfigurationError):
        wavesfm.classifier(str(fake_bundle), **wrong)
    assert all(engine.closed for engine in opened)


def test_an_engine_that_does_not_open_is_refused_at_construction(fake_bundle, monkeypatch):
    def refuse(*_):
        raise EngineError("engine", "device auto", "no inference runtime", "one")

    monkeypatch.setattr("wavesfm_core.pipeline.open_engine", refuse)
    with pytest.raises(EngineError, match="no inference runtime"):
        wavesfm.classifier(str(fake_bundle))
