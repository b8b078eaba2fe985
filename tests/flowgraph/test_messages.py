# SPDX-License-Identifier: GPL-3.0-or-later
"""Predictions survive the way through PMT, and what is no prediction, tag or command is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pmt
import pytest
from gnuradio.wavesfm import publisher
from gnuradio.wavesfm.commands import Setting, apply_all, command_from_pmt
from gnuradio.wavesfm.messages import (
    overflows_from_pmt,
    prediction_to_pmt,
    record_from_pmt,
    time_from_pmt,
    time_to_pmt,
)
from hypothesis import given
from hypothesis import strategies as st
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.types import Prediction, StreamTime

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
names = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=12)
times = st.builds(StreamTime, st.integers(0, 2**40), st.floats(0, 1, exclude_max=True))
predictions = st.builds(
    Prediction,
    label=names,
    confidence=st.none() | st.floats(0, 1),
    probabilities=st.dictionaries(names, st.floats(0, 1), max_size=5),
    start_sample=counts,
    n_samples=counts,
    rate_hz=finite,
    centre_hz=st.none() | finite,
    time=st.none() | times,
    partial=st.booleans(),
    latency_s=st.none() | finite,
    bundle_id=names,
    n_nonfinite=counts,
)


@given(predictions)
def test_a_prediction_returns_as_its_json_record(prediction):
    record = record_from_pmt(prediction_to_pmt(prediction, 3, 77))
    expected = {**prediction.as_dict(), "run": 3, "sequence": 77}
    assert record == expected
    assert list(record) == list(expected)


@given(times)
def test_a_time_returns(time):
    back = time_from_pmt(time_to_pmt(time))
    assert (back.full_s, back.frac_s) == time


@pytest.mark.parametrize(
    "value",
    [
        pmt.PMT_NIL,
        pmt.from_double(3.0),
        pmt.make_tuple(pmt.from_uint64(3)),
        pmt.make_tuple(pmt.from_uint64(3), pmt.intern("x")),
        pmt.make_tuple(pmt.from_uint64(3), pmt.from_double(float("nan"))),
        pmt.make_tuple(pmt.from_uint64(0), pmt.from_double(-0.5)),
        pmt.make_tuple(pmt.from_uint64(3), pmt.from_double(1e30)),
        pmt.make_tuple(pmt.from_uint64(2**63), pmt.from_double(0.0)),
        pmt.make_tuple(pmt.from_double(-1.0), pmt.from_double(0.5)),
    ],
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValueError, match="not a"):
        time_from_pmt(value)


@pytest.mark.parametrize("message", [pmt.PMT_NIL, pmt.PMT_T, pmt.from_long(3), pmt.to_pmt({"colour": "blue"})])
def test_what_is_no_prediction_is_refused(message):
    with pytest.raises(ValueError, match="label"):
        record_from_pmt(message)


def test_json_holds_the_time_as_integers_and_text():
    prediction = Prediction("a", 0.5, {}, 0, 1, 0.0, None, StreamTime(1_700_000_000, 0.123456789), False, None, "b")
    record = record_from_pmt(prediction_to_pmt(prediction))
    time = {"full_s": 1_700_000_000, "frac_s": 0.123456789, "utc": "2023-11-14T22:13:20.123456789Z"}
    assert record["time"] == time


def test_commands():
    assert command_from_pmt(pmt.cons(pmt.intern("policy"), pmt.intern("block"))) == {"policy": "block"}
    assert command_from_pmt(pmt.to_pmt({"threshold": 0.5, "gate_db": None})) == {"threshold": 0.5, "gate_db": None}
    for message in (pmt.PMT_NIL, pmt.PMT_F, pmt.intern("policy")):
        with pytest.raises(ValueError, match="expected"):
            command_from_pmt(message)


class Target:
    """Two settings, each a positive number."""

    def __init__(self):
        self.values = {"rate": 1.0, "freq": 2.0}

    def set(self, name, value):
        if value <= 0:
            raise ConfigurationError("target", name, value, "more than 0")
        self.values[name] = value

    def settings(self):
        return {
            name: Setting(lambda name=name: self.values[name], lambda value, name=name: self.set(name, value))
            for name in self.values
        }


@pytest.mark.parametrize("wrong", [{"rate": 5.0, "freq": -1.0}, {"freq": 5.0, "colour": "blue"}])
def test_commands_are_applied_whole_or_not_at_all(wrong):
    target = Target()
    with pytest.raises((ConfigurationError, ValueError), match=r"freq|colour"):
        apply_all(wrong, target.settings())
    assert target.values == {"rate": 1.0, "freq": 2.0}


def test_what_only_the_radio_takes_is_ignored():
    target = Target()
    apply_all({"freq": 9.0, "gain": 30.0, "lo_offset": 1e3}, target.settings())
    assert target.values == {"rate": 1.0, "freq": 9.0}


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (pmt.cons(pmt.intern("overflows"), pmt.from_long(3)), 3),
        (pmt.to_pmt({"overflow": 2}), 2),
        (pmt.to_pmt({"reason": "late"}), 1),
        (pmt.PMT_T, 1),
        (pmt.cons(pmt.intern("uhd_async_msg"), pmt.to_pmt({"event_code": 1})), 0),
    ],
)
def test_overflows_of_a_receiver(message, count):
    assert overflows_from_pmt(message) == count


def test_failures_are_said_once_a_second_for_each_cause_and_few_causes_are_kept(monkeypatch):
    now_s, said = [1000.0], []
    monkeypatch.setattr(publisher, "clock", SimpleNamespace(monotonic=lambda: now_s[0]))
    speaker = publisher.StatusPublisher("speaker", ())
    monkeypatch.setattr(speaker, "report", lambda kind, text: said.append(text))
    for second in range(3):
        now_s[0] = 1000.0 + second
        for cause in ("grid", "pilots", "grid", "pilots", "grid"):
            speaker.report_failure(cause, text=cause)
        assert said == ["grid", "pilots"] * (second + 1)
    said.clear()
    for cause in range(1000):
        speaker.report_failure(str(cause), text=str(cause))
    assert len(said) == publisher.MOST_CAUSES - 2 + 1  # two were there already, and one for all others
    assert len(speaker._cause_reported_s) == publisher.MOST_CAUSES + 1
