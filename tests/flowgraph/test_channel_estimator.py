# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel estimator in real flowgraphs: h as offline, GNU Radio's equaliser, faults, policies, the end."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pmt
import pytest
from gnuradio import blocks, digital, wavesfm
from gnuradio.wavesfm.pdus import batch_to_pmt, slot_to_pmt
from support.flowgraphs import finish
from support.ofdm_graphs import (
    Estimated,
    Sender,
    before_batches,
    channels,
    numerology,
    paced,
    sent,
    slots,
    write_numerology,
)
from support.waiting import until
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.combining import combine, error_vector_magnitude, spread
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import BundleError, ConfigurationError, InputError

SPEC = numerology()
S = SPEC.symbols


@pytest.fixture()
def spec_file(tmp_path):
    return write_numerology(SPEC, tmp_path / "numerology.json")


@pytest.fixture()
def covariances_file(tmp_path):
    path = tmp_path / "covariances.npz"
    Covariances.learn([channels(SPEC, 64)]).save(path)
    return str(path)


@pytest.fixture()
def slow(monkeypatch):
    """slow(delay_s): every batch of the estimators that are made from here on takes so long."""
    return lambda delay_s: before_batches(monkeypatch, lambda _: time.sleep(delay_s))


def pdus(made):
    return [slot_to_pmt(slot, SPEC) for slot in made]


def accounts_close(said):
    parts = ("estimated", "dropped", "failed", "waiting")
    return said["slots_in"] == sum(said[p] for p in parts) and said["grids_in"] == said["slots_in"] + said["refused"]


@pytest.mark.parametrize("method", ["", "ls", "ls-nearest"])
def test_h_is_that_of_the_pipeline_bit_for_bit(method, spec_file):
    made = slots(SPEC, 30)
    expected = ChannelPipeline.of(SPEC, method or "ls").predict(made)
    graph = Estimated(pdus(made), wavesfm.channel_estimator(numerology=spec_file, method=method, batch_slots=4)).run()
    found = graph.grids("channel")
    assert len(found) == 30
    for (facts, channel), estimate, slot in zip(found, expected, made):
        assert channel.tobytes() == estimate.channel.tobytes()
        assert facts["start_sample"] == slot.start_sample
        assert facts["method"] == (method or "ls")
        for name in ("snr_db", "residual", "nmse_db"):
            assert facts[name] == getattr(estimate, name)
        assert facts["shape"] == SPEC.grid_shape
    (started,), (finished,) = graph.status("started"), graph.status("finished")
    assert (started["method"], started["numerology"], started["bundle_id"]) == (method or "ls", SPEC.id, "")
    assert (finished["estimated"], finished["waiting"], finished["last_error"]) == (30, 0, "")
    assert (finished["snr_db"], finished["nmse_db"]) == (expected[-1].snr_db, expected[-1].nmse_db)
    assert accounts_close(finished)
    assert pmt.to_python(graph.messages("status")[-1])["kind"] == "finished"


def test_the_streams_have_symbols_and_channel_with_their_tags(spec_file):
    made = slots(SPEC, 7)
    estimates = ChannelPipeline.of(SPEC).predict(made)
    for antenna in (-1, 2):
        estimator = wavesfm.channel_estimator(numerology=spec_file, antenna=antenna)
        graph = Estimated(pdus(made), estimator, streams=2).run()
        pairs = [
            combine(s.grid, e.channel) if antenna < 0 else (s.grid[antenna], e.channel[antenna])
            for s, e in zip(made, estimates)
        ]
        for index in (0, 1):
            expected = spread(np.concatenate([pair[index] for pair in pairs]), SPEC)
            np.testing.assert_array_equal(graph.vectors(index), expected)
        tags = {(tag.offset, pmt.symbol_to_string(tag.key)): tag.value for tag in graph.sinks[0].tags()}
        assert {key for key in tags if key[1] == "slot_start"} == {(i * S, "slot_start") for i in range(7)}
        assert [pmt.to_python(tags[i * S, "slot_start"]) for i in range(7)] == [s.start_sample for s in made]
        taps = [pmt.c32vector_elements(tags[i, "ofdm_sync_chan_taps"]) for i in range(7 * S)]
        np.testing.assert_array_equal(np.array(taps, np.complex64), graph.vectors(1))
        assert [tag.offset for tag in graph.sinks[1].tags()] == [i * S for i in range(7)]


@pytest.mark.parametrize("frame_symbols", [1, S])
@pytest.mark.parametrize("antenna", [-1, 0])
def test_the_equaliser_of_gnu_radio_takes_the_taps(antenna, frame_symbols, spec_file):
    made = slots(SPEC, 12, noise=0.02)
    estimator = wavesfm.channel_estimator(numerology=spec_file, antenna=antenna)
    graph = Estimated(pdus(made), estimator, streams=1)
    occupied = SPEC.frequencies.tolist()
    static = digital.ofdm_equalizer_static(SPEC.fft_size, [occupied])
    equaliser = digital.ofdm_frame_equalizer_vcvc(static.base(), 0, "", False, frame_symbols)
    sink = blocks.vector_sink_c(SPEC.fft_size)
    graph.top.connect((estimator, 0), equaliser, sink)
    graph.run()
    places = SPEC.frequencies + SPEC.fft_size // 2
    equalised = np.array(sink.data(), np.complex64).reshape(12, S, SPEC.fft_size)[..., places]
    expected = np.stack([sent(SPEC, index) for index in range(12)])
    before = np.stack([slot.grid[0] for slot in made])
    assert error_vector_magnitude(equalised, expected) < (0.05 if antenna < 0 else 0.12)
    assert error_vector_magnitude(before, expected) > 0.8


def test_combining_all_antennas_is_better_than_one(spec_file):
    made = slots(SPEC, 20, noise=0.1)
    truth, expected = channels(SPEC, 20), np.stack([sent(SPEC, index) for index in range(20)])
    evm = []
    for antennas in (slice(0, 1), slice(None)):
        pairs = [combine(slot.grid[antennas], h[antennas]) for slot, h in zip(made, truth)]
        evm.append(error_vector_magnitude(np.stack([y / h for y, h in pairs]), expected))
    assert evm[1] < evm[0] / 1.5


def test_bad_grids_are_named_counted_and_the_next_are_estimated(spec_file):
    made = slots(SPEC, 9)
    made[1] = dataclasses.replace(made[1], grid=np.zeros_like(made[1].grid))
    made[3].grid[0, 1, 2] = np.nan
    messages = pdus(made)
    other = numerology(pilot_offset=1, pilot_step=2, pilot_quadrants="0" * 24)
    messages[5] = slot_to_pmt(slots(other, 1)[0], other)
    messages[6] = pmt.intern("hello")
    graph = Estimated(messages, wavesfm.channel_estimator(numerology=spec_file, batch_slots=9)).run()
    starts = [facts["start_sample"] // SPEC.slot_samples for facts, _ in graph.grids("channel")]
    assert starts == [0, 2, 4, 7, 8]
    (finished,) = graph.status("finished")
    assert (finished["refused"], finished["failed"], finished["estimated"]) == (2, 2, 5)
    assert accounts_close(finished)
    texts = [said["text"] for said in graph.status("error")]
    causes = (f"numerology: found {other.id}", "found no pair", "found all 144 zero", "NaN or infinity in 1 of 288")
    assert [sum(cause in text for text in texts) for cause in causes] == [1] * 4, texts


@pytest.mark.parametrize(("message", "said"), [(0, "another"), (1, "zero"), (2, "NaN")])
def test_each_refusal_says_what_was_found(message, said, spec_file):
    (slot,) = slots(SPEC, 1)
    wrong = [slot_to_pmt(slot, SPEC)]
    if message == 0:
        wrong = [pmt.cons(pmt.to_pmt({"numerology": "another"}), pmt.cdr(wrong[0]))]
    elif message == 1:
        wrong = pdus([dataclasses.replace(slot, grid=0 * slot.grid)])
    else:
        wrong = pdus([dataclasses.replace(slot, grid=slot.grid + np.complex64(np.nan))])
    graph = Estimated(wrong, wavesfm.channel_estimator(numerology=spec_file)).run()
    (error,) = graph.status("error")
    assert said in error["text"]
    assert graph.status("finished")[0]["last_error"] == error["text"]


def test_a_failing_estimator_is_said_and_the_rest_goes_on(spec_file, monkeypatch):
    calls = []

    def failing(n_slots):
        calls.append(n_slots)
        if len(calls) == 2:
            raise ZeroDivisionError("scripted")

    before_batches(monkeypatch, failing)
    graph = Estimated(pdus(slots(SPEC, 6)), wavesfm.channel_estimator(numerology=spec_file, batch_slots=1)).run()
    assert len(graph.grids("channel")) == 5
    assert "ZeroDivisionError: scripted" in graph.status("error")[0]["text"]
    (finished,) = graph.status("finished")
    assert (finished["failed"], finished["estimated"]) == (1, 5)
    assert accounts_close(finished)


def test_what_the_streams_cannot_take_fails_alone(spec_file, monkeypatch):
    vectors = wavesfm.channel_estimator._vectors

    def odd(self, answer):
        if answer.slot.start_sample == 2 * SPEC.slot_samples:
            raise OverflowError("scripted")
        return vectors(self, answer)

    monkeypatch.setattr(wavesfm.channel_estimator, "_vectors", odd)
    estimator = wavesfm.channel_estimator(numerology=spec_file, batch_slots=8, batch_wait_ms=60_000)
    graph = Estimated(pdus(slots(SPEC, 8)), estimator, streams=1).run()
    tags = [pmt.to_python(tag.value) for tag in graph.sinks[0].tags() if pmt.to_python(tag.key) == "slot_start"]
    assert [start // SPEC.slot_samples for start in tags] == [0, 1, 3, 4, 5, 6, 7]
    (finished,) = graph.status("finished")
    assert (finished["estimated"], finished["failed"], finished["refused"]) == (7, 1, 0)
    assert accounts_close(finished)
    (error,) = graph.status("error")
    assert error["text"] == f"slot at sample {2 * SPEC.slot_samples}: OverflowError: scripted"
    assert finished["last_error"] == error["text"]


@pytest.mark.parametrize("sent_together", [False, True])
def test_batches_of_slots_as_one_message(sent_together, spec_file):
    made = slots(SPEC, 9)
    expected = ChannelPipeline.of(SPEC).predict(made)
    estimator = wavesfm.channel_estimator(numerology=spec_file, batch_slots=3, batch_pdus=True)
    messages = [batch_to_pmt(made[:5], SPEC), batch_to_pmt(made[5:], SPEC)] if sent_together else pdus(made)
    graph = Estimated(messages, estimator).run()
    found = graph.grids("channel")
    assert len(found) < 9
    assert np.concatenate([channels for _, channels in found]).tobytes() == b"".join(
        estimate.channel.tobytes() for estimate in expected
    )
    for name in ("start_sample", "snr_db", "method"):
        values = [value for facts, _ in found for value in facts[name]]
        assert values == [getattr(estimate, name) for estimate in expected], name
    assert [value for facts, _ in found for value in facts["sequence"]] == list(range(9))
    assert all(facts["shape"] == (len(channels), *SPEC.grid_shape) for facts, channels in found)
    assert graph.status("finished")[0]["estimated"] == 9


def test_a_start_that_no_uint64_holds_is_refused_and_the_rest_goes_on(spec_file):
    messages = pdus(slots(SPEC, 8))
    messages[2] = pmt.cons(pmt.to_pmt({"start_sample": 1e20}), pmt.cdr(messages[2]))
    graph = Estimated(messages, wavesfm.channel_estimator(numerology=spec_file, batch_slots=8), streams=1).run()
    assert (len(graph.grids("channel")), len(graph.vectors(0))) == (7, 7 * S)
    (finished,) = graph.status("finished")
    assert (finished["estimated"], finished["failed"], finished["refused"]) == (7, 0, 1)
    assert "start_sample: found 1e+20, expected a count below 2^64" in finished["last_error"]


@pytest.mark.parametrize("attempt", range(8))
def test_nothing_is_lost_at_the_end_with_a_slow_estimator(attempt, spec_file, slow):
    slow(0.004)
    count = 20 + attempt
    estimator = wavesfm.channel_estimator(numerology=spec_file, policy="block", queue_slots=1 + attempt, batch_slots=2)
    graph = Estimated(pdus(slots(SPEC, count)), estimator, streams=attempt % 3).run()
    starts = [facts["start_sample"] for facts, _ in graph.grids("channel")]
    assert starts == [index * SPEC.slot_samples for index in range(count)]
    assert all(len(graph.vectors(index)) == count * S for index in range(attempt % 3))
    assert graph.status("finished")[0]["estimated"] == count


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_a_slow_estimator_drops_is_counted(policy, spec_file, slow):
    slow(0.05)
    estimator = wavesfm.channel_estimator(numerology=spec_file, policy=policy, queue_slots=4, batch_slots=2)
    graph = Estimated(pdus(slots(SPEC, 40)), estimator).run()
    (finished,) = graph.status("finished")
    assert accounts_close(finished)
    assert finished["dropped"] == 40 - len(graph.grids("channel")) > 0
    (warning,) = graph.status("warning")
    assert policy in warning["text"]


@pytest.mark.parametrize("method", ["lmmse", "lmmse-tf"])
def test_lmmse_by_covariances_of_a_file(method, spec_file, covariances_file):
    made = slots(SPEC, 5, noise=0.1)
    expected = ChannelPipeline.of(SPEC, method, Covariances.load(covariances_file)).predict(made)
    estimator = wavesfm.channel_estimator(numerology=spec_file, method=method, covariances=covariances_file)
    graph = Estimated(pdus(made), estimator).run()
    assert [facts["method"] for facts, _ in graph.grids("channel")] == [method] * 5
    for (_, channel), estimate in zip(graph.grids("channel"), expected):
        np.testing.assert_allclose(channel, estimate.channel, atol=1e-5)
    estimator.set_method("")
    estimator.set_method(method)


def test_covariances_that_do_not_fit_are_refused_at_construction(spec_file, covariances_file, tmp_path):
    other = tmp_path / "other.npz"
    learnt = Covariances.load(covariances_file)
    Covariances(np.eye(4), learnt.time, learnt.frequency).save(other)
    with pytest.raises(InputError, match=r"other\.npz: space: found 4 x 4, expected 3 x 3, as the numerology has"):
        wavesfm.channel_estimator(numerology=spec_file, covariances=str(other))
    np.savez(other, space=np.diag([1.0, 2.0, -0.5]), time=learnt.time, frequency=learnt.frequency)
    with pytest.raises(
        InputError, match=r"other\.npz: space: found an eigenvalue of -0\.6, expected positive definite"
    ):
        wavesfm.channel_estimator(numerology=spec_file, covariances=str(other))
    with pytest.raises(InputError, match=r"nowhere\.npz"):
        wavesfm.channel_estimator(numerology=spec_file, covariances="/nowhere.npz")


def test_back_off_is_said_when_it_begins_and_ends(spec_file, covariances_file):
    lmmse = {"numerology": spec_file, "method": "lmmse", "covariances": covariances_file}
    loud, quiet = slots(SPEC, 3, noise=1e-3), slots(SPEC, 3, noise=0.3)
    estimator = wavesfm.channel_estimator(**lmmse, snr_enter_db=40, snr_leave_db=30, residual_enter=0)
    graph = Estimated(pdus(quiet + loud + quiet), estimator).run()
    assert [said["active"] for said in graph.status("back-off")] == [True, False]
    facts = [(facts["backed_off"], facts["method"]) for facts, _ in graph.grids("channel")]
    assert facts == [(False, "lmmse")] * 3 + [(True, "ls")] * 3 + [(False, "lmmse")] * 3
    (finished,) = graph.status("finished")
    assert (finished["backed_off"], finished["backing_off"]) == (3, False)
    off = wavesfm.channel_estimator(**lmmse, back_off=False, snr_enter_db=40)
    assert Estimated(pdus(loud), off).run().status("back-off") == []


def test_one_estimator_runs_again(spec_file):
    estimator = wavesfm.channel_estimator(numerology=spec_file)
    for count in (5, 3):
        graph = Estimated(pdus(slots(SPEC, count)), estimator, streams=1).run()
        assert [len(graph.grids("channel")), len(graph.vectors(0))] == [count, count * S]
        graph.top.disconnect_all()
    assert estimator.status()["slots_in"] == 3


def test_a_flowgraph_that_is_stopped_ends_at_once_and_its_accounts_close(spec_file, slow):
    slow(0.05)
    estimator = wavesfm.channel_estimator(numerology=spec_file, queue_slots=1000, batch_slots=1)
    graph = Estimated(pdus(slots(SPEC, 50)), estimator, streams=1, per_s=1000)
    graph.top.start()
    until(lambda: estimator.status()["estimated"] >= 2 and estimator.status()["waiting"] >= 100)
    graph.top.stop()
    finish(graph.top)
    accounts = estimator.status()
    assert accounts_close(accounts)
    assert accounts["waiting"] == 0
    assert accounts["dropped"] > 0


def test_commands_and_setters(spec_file):
    estimator = wavesfm.channel_estimator(numerology=spec_file)
    graph = Estimated(pdus(slots(SPEC, 2)), estimator, per_s=1000)
    wrong = [pmt.to_pmt({"colour": "blue"}), pmt.to_pmt({"method": "guess"})]
    commands = Sender(
        [
            pmt.cons(pmt.intern("antenna"), pmt.from_long(1)),
            pmt.to_pmt({"policy": "drop_oldest", "method": "ls-nearest"}),
            *wrong,
        ]
    )
    graph.top.connect(*paced(4, 0), commands)
    graph.top.msg_connect((commands, "out"), (estimator, "command"))
    graph.top.start()
    until(lambda: len(graph.status("error")) >= 2)
    seen = len(graph.grids("channel"))

    def used():  # by those after the commands, whose end ended nothing; a batch in work may use the former method still
        return [facts["method"] for facts, _ in graph.grids("channel")[seen:]]

    until(lambda: len(used()) >= 9 and used()[-1] == "ls-nearest")
    graph.top.stop()
    finish(graph.top)
    assert (estimator._antenna, estimator._policy, estimator._pipeline.method) == (1, "drop_oldest", "ls-nearest")
    assert [any(word in said["text"] for word in ("colour", "guess")) for said in graph.status("error")] == [True] * 2
    estimator.set_method("")
    assert estimator._pipeline.method == "ls"
    for setter, wrong in ((estimator.set_antenna, 3), (estimator.set_policy, "x"), (estimator.set_method, "lmmse")):
        with pytest.raises(ConfigurationError):
            setter(wrong)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"method": "guess"}, "method"),
        ({"method": "model"}, "method"),
        ({"method": "lmmse"}, "method"),
        ({"fft_size": 64}, "fft_size: found 64, expected 32"),
        ({"antenna": 3}, "antenna"),
        ({"antenna": -2}, "antenna"),
        ({"policy": "sometimes"}, "policy"),
        ({"queue_slots": 0}, "queue"),
        ({"batch_slots": 0}, "batch"),
        ({"batch_wait_ms": -1}, "batch_wait"),
        ({"snr_enter_db": 10, "snr_leave_db": 11}, "leave_db"),
        ({"residual_enter": 1, "residual_leave": 2}, "residual_leave"),
        ({"numerology": ""}, "numerology"),
        ({"numerology": "/nowhere/n.json"}, "nowhere"),
    ],
)
def test_wrong_parameters_are_refused_at_construction(parameters, field, spec_file):
    with pytest.raises(ConfigurationError, match=field):
        wavesfm.channel_estimator(**{"numerology": spec_file, **parameters})


def test_numerologies_that_are_none(tmp_path, fake_bundle):
    for text, error in (("{", ConfigurationError), ("[]", BundleError), ('{"antennas": 2}', BundleError)):
        path = tmp_path / "wrong.json"
        path.write_text(text)
        with pytest.raises(error, match=r"wrong\.json"):
            wavesfm.channel_estimator(numerology=str(path))
    with pytest.raises(ConfigurationError, match="pilot grids"):
        wavesfm.channel_estimator(str(fake_bundle))
