# SPDX-License-Identifier: GPL-3.0-or-later
"""A session from blocks to events: accounts, retunes, gaps, reloads, engines that fail or hang."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from support.live_parts import RATE, FakePipeline, ListSource, blocks_of, eventually, noise, scene
from wavesfm_core.live.block import SampleBlock
from wavesfm_core.live.bus import Record
from wavesfm_core.live.session import LiveSession
from wavesfm_core.types import StreamTime


@pytest.fixture(scope="module")
def samples() -> object:
    return scene(0.6)


def events_of(session: LiveSession) -> list[Record]:
    records: list[Record] = []
    session.bus.add(records.append)
    return records


def test_signals_are_named_and_every_sample_is_accounted_for(samples) -> None:
    source = ListSource(blocks_of(samples))
    session = LiveSession(source, FakePipeline, ring_s=0.2)
    records = events_of(session)
    session.run()
    ended = [r.values for r in records if r.kind == "event" and r.values["event"] == "ended"]
    labels = {(each["label"], round(each["low_hz"], -4)) for each in ended if each["kind"] == "signal"}
    assert labels == {("wide", -3e5), ("narrow", 2e5)}
    assert [r.sequence for r in records] == list(range(len(records)))
    accounts = session.accounts
    assert accounts.closes()
    assert accounts.samples_searched == accounts.samples_in == samples.size
    assert session.ring.span == (samples.size - 200_000, samples.size)
    assert source.closed and session.pipeline.closed


def test_a_retune_and_a_gap_are_followed_and_counted(samples) -> None:
    blocks = blocks_of(samples, centre_hz=100e6) + blocks_of(samples, centre_hz=200e6)
    blocks[0] = replace(blocks[0], time=StreamTime(1_700_000_000, 0.0))
    blocks[5] = replace(blocks[5], lost=1234)
    session = LiveSession(ListSource(blocks), FakePipeline)
    records = events_of(session)
    session.run()
    accounts = session.accounts
    assert accounts.closes()
    assert (accounts.retunes, accounts.gaps, accounts.samples_lost, accounts.samples_missed) == (1, 1, 1234, 1234)
    events = [r.values for r in records if r.kind == "event"]
    assert {event["centre_hz"] for event in events} == {100e6, 200e6}
    # times go on through the gap and the retune
    late = next(event for event in events if event["centre_hz"] == 200e6)
    expected_s = late["sample"] / RATE
    assert late["time"]["full_s"] + late["time"]["frac_s"] == pytest.approx(1_700_000_000 + expected_s, abs=1e-4)


def test_a_jump_in_time_is_a_gap() -> None:
    blocks = blocks_of(noise(200_000))
    start = StreamTime(1_700_000_000, 0.0)
    timed = [replace(block, time=start.advanced(0.02 * i + (0.5 if i >= 5 else 0))) for i, block in enumerate(blocks)]
    session = LiveSession(ListSource(timed), FakePipeline)
    session.run()
    accounts = session.accounts
    assert (accounts.gaps, accounts.samples_lost) == (1, 500_000)
    assert accounts.closes()


def test_a_model_is_exchanged_without_a_lost_sample(samples) -> None:
    gate = threading.Event()
    source = ListSource(blocks_of(samples), gates={15: gate})
    first, second = FakePipeline("fake-1"), FakePipeline("fake-2")
    session = LiveSession(source, lambda: first)
    records = events_of(session)
    thread = threading.Thread(target=session.run)
    thread.start()
    session.reload(lambda: second)
    gate.set()
    thread.join()
    accounts = session.accounts
    assert accounts.reloads == 1
    assert accounts.samples_searched == samples.size
    assert first.closed and session.pipeline is second
    numbers = [r.values["emitter"] for r in records if r.values["event"] == "appeared"]
    assert len(set(numbers)) == len(numbers)


def test_a_model_that_cannot_be_opened_leaves_the_old_one() -> None:
    session = LiveSession(ListSource(blocks_of(noise(100_000))), FakePipeline)

    def refuse() -> FakePipeline:
        raise OSError("no such bundle")

    with pytest.raises(OSError):
        session.reload(refuse)
    session.run()
    assert session.accounts.samples_searched == 100_000


def test_an_engine_that_fails_costs_its_block_and_is_counted(samples) -> None:
    session = LiveSession(ListSource(blocks_of(samples)), lambda: FakePipeline(failures=1))
    records = events_of(session)
    session.run()
    accounts = session.accounts
    assert accounts.failures == 1
    assert accounts.closes() and accounts.samples_missed > 0
    assert any(r.kind == "warning" for r in records)
    assert any(r.kind == "event" and r.values["label"] == "wide" for r in records)


def test_an_engine_that_hangs_is_given_up_and_replaced(samples) -> None:
    pipelines = [FakePipeline("hangs"), FakePipeline("works")]
    pipelines[0].hangs.set()
    opened = iter(pipelines)
    blocks = blocks_of(samples) + blocks_of(samples)
    gate = threading.Event()
    session = LiveSession(ListSource(blocks, gates={31: gate}), lambda: next(opened), hang_s=0.2)
    records = events_of(session)
    thread = threading.Thread(target=session.run)
    thread.start()
    eventually(lambda: (session.watch(), session.accounts.hangs)[1], "the hang")
    eventually(lambda: session._next_worker_pipeline is not None or session.pipeline is pipelines[1])
    gate.set()
    thread.join()
    pipelines[0].hangs.clear()
    accounts = session.accounts
    assert accounts.hangs == 1 and accounts.closes()
    assert pipelines[0].abandoned and not pipelines[0].closed
    assert accounts.samples_in == 2 * samples.size
    assert accounts.samples_searched > 0
    assert any(r.kind == "event" and r.values["label"] == "wide" for r in records)


def test_a_stop_ends_a_source_that_waits() -> None:
    source = ListSource(blocks_of(noise(40_000)), gates={1: threading.Event()})
    session = LiveSession(source, FakePipeline)
    thread = threading.Thread(target=session.run)
    thread.start()
    session.stop()
    thread.join()
    assert source.closed and session.accounts.closes()


def test_blocks_of_integers_are_converted_once() -> None:
    raw = np.array([0, 16384, -32768, 32767], np.int16).view(np.uint8)
    block = SampleBlock(raw, "cs16", 1e6)
    assert block.n_samples == 2
    assert np.allclose(block.complex64(), [0.5j, -1 + 1j], atol=1e-4)
    assert np.allclose(block.complex64(1, 2), [-1 + 1j], atol=1e-4)
