# SPDX-License-Identifier: GPL-3.0-or-later
"""A session of a stream without a flowgraph: tags that jitter, gaps, hops, settings, faults and its warnings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from gnuradio.wavesfm import session as session_module
from gnuradio.wavesfm.session import SILENT_S, Session, SessionOptions
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.sample_clock import SampleClock
from wavesfm_core.types import StreamTime

TILE, SHORTEST = 2048, 256
START = StreamTime(1_700_000_000, 0.0)


class Heard:
    """A session with a fake engine and what it has said."""

    def __init__(self, bundle, rate_hz=0.0, centre_hz=None, policy="block", **options):
        self.predictions, self.errors, self.warnings = [], [], []
        pipeline = Pipeline.open(bundle, gate_db=None)
        self.session = Session(
            pipeline,
            SessionOptions(rate_hz, centre_hz, **options),
            policy,
            0,
            self.predictions.extend,
            lambda error, n_tiles: self.errors.append((str(error), n_tiles)),
            self.warnings.append,
        )

    def finish(self):
        self.session.finish()
        self.session.close()
        status = self.session.status()
        covered = sum(p.n_samples for p in self.predictions)
        parts = ("samples_skipped", "samples_silent_cut", "samples_pending")
        assert status["samples_in"] == covered + sum(status[part] for part in parts)
        return status

    @property
    def full(self):
        return sum(not p.partial for p in self.predictions)


@pytest.fixture()
def heard(fake_bundle, fake_engine):
    fake_engine()
    sessions = []

    def open_session(*arguments, **options):
        sessions.append(Heard(fake_bundle, *arguments, **options))
        return sessions[-1]

    yield open_session
    for each in sessions:
        each.session.close()


def packets(count, size, tone):
    samples = tone(-0.2, size)
    return [samples] * count


@pytest.mark.parametrize(("jitter_s", "drift"), [(2e-6, 0.0), (0.0, 5e-6), (2e-6, 5e-6), (0.0, 20e-6)])
@pytest.mark.parametrize("seed", range(4))
def test_tags_that_jitter_and_drift_cut_nothing(jitter_s, drift, seed, heard, tone):
    rng, rate_hz, size = np.random.default_rng(seed), 2e6, 512
    h = heard()
    h.session.retune(rate_hz, 100e6, START)
    for k, samples in enumerate(packets(400, size, tone)):
        time = START.advanced(k * size / rate_hz * (1 + drift) + rng.normal() * jitter_s)
        h.session.retune(time=time)
        h.session.push(samples)
    status = h.finish()
    assert (h.full, status["partial"], status["gaps"], status["samples_lost"]) == (100, 0, 0, 0)
    assert h.warnings == []


def test_a_gap_of_one_packet_is_a_gap_after_minutes_too():
    rate_hz, size = 20e6, 364
    clock = SampleClock(rate_hz, START)
    jump_s = clock.jump_s(START.advanced(600 + size / rate_hz), int(600 * rate_hz))  # ten minutes
    assert round(jump_s * rate_hz) == size


def test_gaps_are_counted_with_what_they_lost_and_said_once(heard, tone):
    h = heard()
    h.session.retune(1e6, None, START)
    for k in range(5):
        h.session.retune(time=START.advanced(k * 0.01))
        h.session.push(tone(-0.2, TILE + 500))
    status = h.finish()
    assert (status["gaps"], status["samples_lost"], h.full) == (4, 4 * (10_000 - TILE - 500), 5)
    assert status["samples_skipped_by"]["gap"] > 0
    assert len(h.warnings) == 1 and "samples are missing" in h.warnings[0]


def test_hops_shorter_than_the_shortest_tile_say_why_there_is_none(heard, tone, monkeypatch):
    h = heard(1e6)
    for k in range(20):
        h.session.retune(centre_hz=100e6 + k * 1e6)
        h.session.push(tone(-0.2, SHORTEST - 28))
    now_s = h.session._last_tile_s
    assert h.session.silence(now_s + SILENT_S - 0.1) == ""
    assert h.session.silence(now_s + SILENT_S) == (
        f"no tile for 2 s: 19 retunes left stretches that are shorter than the shortest tile, {SHORTEST} samples"
    )
    status = h.finish()
    assert (status["retunes"], status["samples_skipped_by"]["retune"]) == (19, 19 * (SHORTEST - 28))
    assert [text.split(":")[0] for text in h.warnings] == ["no tile was cut"]


@pytest.mark.parametrize(("samples", "reason"), [(0, "no samples come"), (1000, "only 1000 samples came")])
def test_a_stream_without_a_tile_says_why(samples, reason, heard, tone):
    h = heard()
    h.session.push(tone(-0.2, samples))
    assert reason in h.session.silence(h.session._last_tile_s + 3)
    h.session.push(tone(-0.2, TILE))
    assert h.session.silence(h.session._last_tile_s + 1) == ""


def test_a_tile_that_lasts_longer_is_no_silence(heard, tone):
    h = heard(TILE / 10)  # a tile lasts 10 s
    h.session.push(tone(-0.2, 1500))
    assert h.session.silence(h.session._last_tile_s + 14.9) == ""
    assert "only 1500 samples came" in h.session.silence(h.session._last_tile_s + 15.1)


def test_nearly_equal_rates_and_frequencies_are_the_same(heard, tone):
    h = heard(2e6, 100e6)
    for k in range(10):
        h.session.retune(rate_hz=2e6 + (k % 2) * 1e-4, centre_hz=100e6 + (k % 2) * 1e-3)
        h.session.push(tone(-0.2, TILE // 2))
    assert (h.finish()["retunes"], h.full, len(h.predictions)) == (0, 5, 5)


def test_settings_take_effect_at_the_next_samples(heard, tone):
    h = heard(1e6, 100e6)
    h.session.push(tone(-0.2, TILE + 1000))
    h.session.set_centre(101e6)
    h.session.set_rate(2e6)
    assert h.session.tuning == (2e6, 101e6)
    h.session.push(tone(-0.2, TILE))
    h.session.set_centre(101e6)
    h.session.push(tone(-0.2, TILE))
    h.session.set_centre(None)
    h.session.push(tone(-0.2, TILE))
    h.finish()
    assert [(p.rate_hz, p.centre_hz, p.partial) for p in h.predictions] == [
        (1e6, 100e6, False),
        (1e6, 100e6, True),
        (2e6, 101e6, False),
        (2e6, 101e6, False),
        (2e6, None, False),
    ]


def test_an_overflow_without_time_tags_ends_the_tile(heard, tone):
    h = heard(1e6)
    h.session.push(tone(-0.2, TILE // 2))
    h.session.overflow(3)
    h.session.push(tone(-0.2, TILE))
    status = h.finish()
    assert [p.n_samples for p in h.predictions] == [TILE // 2, TILE]
    assert (status["overflows"], status["gaps"]) == (3, 1)
    assert ["overflows" in text for text in h.warnings] == [True]


def test_an_overflow_with_time_tags_is_counted_and_the_tag_says_where(heard, tone):
    h = heard()
    h.session.retune(1e6, None, START)
    h.session.push(tone(-0.2, TILE // 2))
    h.session.overflow()
    h.session.push(tone(-0.2, TILE // 2))
    assert (h.finish()["overflows"], h.full) == (1, 1)


def test_a_fault_is_tried_again_after_a_while(heard, tone, monkeypatch):
    h = heard(1e6)
    now_s = [500.0]
    monkeypatch.setattr(session_module, "clock", SimpleNamespace(monotonic=lambda: now_s[0]))
    h.session.push(tone(-0.2, TILE + 700), now_s[0])
    assert h.session.fail(ZeroDivisionError("scripted"), TILE + 700 + 300) == 0.5
    h.session.push(tone(-0.2, TILE), now_s[0])
    assert h.session.status()["fault"] == "ZeroDivisionError: scripted"
    assert "interrupted (ZeroDivisionError" in h.session.silence(now_s[0] + 9)
    h.session.retune(rate_hz=2e6)
    now_s[0] += 0.5
    h.session.push(tone(-0.2, TILE), now_s[0])
    monkeypatch.undo()
    status = h.finish()
    assert (status["fault"], status["samples_skipped_by"]["fault"]) == ("", 700 + 300 + TILE)
    assert [(p.start_sample, p.rate_hz) for p in h.predictions] == [(0, 1e6), (2 * TILE + 1000, 2e6)]
    assert h.warnings == [f"classification is tried again from sample {2 * TILE + 1000} on"]


def test_samples_that_do_not_come_are_said(heard, tone):
    h = heard(1000.0)
    for k in range(120):
        h.session.push(tone(-0.2, 97), 100 + k * 0.1)
    assert h.finish()["samples_short"] == pytest.approx(300, abs=20)
    assert any("fewer samples than the sample rate" in text for text in h.warnings)
