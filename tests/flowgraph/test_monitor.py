# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor, the back-off between attempts and the comparison with the wall clock, without a flowgraph."""

from __future__ import annotations

import pytest
from gnuradio.wavesfm.monitor import ACCOUNTS_EVERY_S, STALLED_S, Monitor
from gnuradio.wavesfm.rate_watch import WINDOW_S, RateWatch
from gnuradio.wavesfm.retry import FIRST_S, LONGEST_S, Retry
from support.waiting import until


class Run:
    """A run and its publisher."""

    def __init__(self):
        self.batch, self.silent, self.stalled = 0.0, "", ""
        self.said, self.flushed = [], 0

    def batch_s(self):
        return self.batch

    def silence(self, now_s):
        return self.silent

    def status(self):
        return {"tiles_in": 7}

    def flush(self):
        self.flushed += 1

    def report(self, kind, **values):
        self.said.append((kind, values.get("text", values)))


@pytest.fixture()
def run():
    return Run()


def test_accounts_come_once_a_second_from_the_timer(run):
    monitor = Monitor(run, run)
    start_s = monitor._accounts_s
    for tick in range(1, 32):
        monitor.tick(start_s + tick * 0.1 * ACCOUNTS_EVERY_S + 1e-9)
    assert run.said == [("accounts", {"tiles_in": 7})] * 3 and run.flushed == 31


def test_an_engine_that_hangs_is_said_once_until_it_returns(run):
    monitor = Monitor(run, run)
    for batch in (0.1, STALLED_S + 0.1, STALLED_S + 9, 0.0, STALLED_S + 1):
        run.batch, run.silent = batch, "no tile for 9 s: the queue is full"
        monitor.tick(monitor._accounts_s)
    texts = [text for _, text in run.said]
    assert [text.split(":")[0] for text in texts] == ["no tile for 9 s", "no batch for 5 s", "no batch for 6 s"]


def test_a_slow_reader_and_a_silent_stream_are_said_when_they_begin(run):
    monitor = Monitor(run, run)
    for silent, stalled in (("a", ""), ("a", "predictions"), ("", "predictions"), ("b", "")):
        run.silent, run.stalled = silent, stalled
        monitor.tick(monitor._accounts_s)
    reader = "the reader of predictions takes no messages: they are dropped"
    assert [text for _, text in run.said] == ["a", reader, "b"]


def test_the_thread_survives_an_exception_and_stops(run, caplog):
    monitor = Monitor(run, run)
    run.flush = lambda: 1 / 0
    monitor.start()
    until(lambda: "ZeroDivisionError" in caplog.text)
    monitor.stop()
    until(lambda: not monitor._thread.is_alive())


def test_attempts_are_further_and_further_apart():
    retry, delays = Retry(), []
    for _ in range(8):
        delays.append(retry.failed(100.0))
        assert not retry.due(100.0 + delays[-1] - 1e-6) and retry.due(100.0 + delays[-1])
    assert delays == [FIRST_S * 2**i for i in range(6)] + [LONGEST_S, LONGEST_S]
    retry.succeeded()
    assert retry.failed(0.0) == FIRST_S


def watch(share, held_share=0.0, rate_hz=1e6, windows=3):
    """A watch of a stream that has this share of its samples, held back for a share of the time."""
    watched, chunk_s = RateWatch(), 0.1
    for chunk in range(int(windows * WINDOW_S / chunk_s) + windows + 1):
        watched.take(round(share * rate_hz * chunk_s), rate_hz, 50 + chunk * chunk_s, held_share * chunk * chunk_s)
    return watched


def test_samples_that_do_not_come_are_counted():
    short = watch(0.979)
    assert short.share == pytest.approx(0.021, abs=1e-4)
    assert short.missing == pytest.approx(3 * WINDOW_S * 1e6 * 0.021, rel=0.05)


@pytest.mark.parametrize(
    "options", [{"share": 0.998}, {"share": 1.0}, {"share": 3.0}, {"share": 0.5, "held_share": 0.4}]
)
def test_a_full_stream_a_fast_file_and_one_that_is_held_back_are_not(options):
    assert (watch(**options).share, watch(**options).missing) == (0.0, 0)


def test_without_a_rate_nothing_is_judged():
    assert watch(0.5, rate_hz=0.0).missing == 0
