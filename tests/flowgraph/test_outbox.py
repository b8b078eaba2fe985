# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages wait in a bounded outbox, in order, and each is sent, waits or is counted as dropped."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from gnuradio.wavesfm import outbox as outbox_module
from gnuradio.wavesfm.outbox import DROP_AGE_S, STALLED_S, Outbox


class Reader:
    """A reader whose queue holds what it has not yet taken."""

    def __init__(self):
        self.queue, self.taken = [], []

    def take(self, count=1):
        for _ in range(count):
            self.taken.append(self.queue.pop(0))


@pytest.fixture()
def now(monkeypatch):
    """now[0]: the monotonic time; a sleep passes it and does what now[1] says."""
    state = [1000.0, lambda: None]

    def sleep(seconds):
        state[0] += seconds
        state[1]()

    monkeypatch.setattr(outbox_module, "clock", SimpleNamespace(monotonic=lambda: state[0], sleep=sleep))
    return state


def make(policy="drop_oldest", cancelled=lambda: False, **limits):
    reader = Reader()
    box = Outbox(reader.queue.append, lambda: len(reader.queue), lambda: policy, cancelled, **limits)
    return reader, box


def test_a_fast_reader_gets_everything_at_once(now):
    reader, box = make(in_flight=2, limit=3)
    for message in range(50):
        box.put(message)
        reader.take()
    assert reader.taken == list(range(50)) and box.dropped == 0


def test_a_slow_reader_gets_the_newest_in_order_and_the_rest_is_counted(now):
    reader, box = make(in_flight=2, limit=3)
    for message in range(50):
        box.put(message)
    assert (reader.queue, len(box._waiting), box.dropped) == ([0, 1], 3, 45)
    reader.take(2)
    assert not box.flush()
    assert reader.queue == [47, 48]
    reader.take(2)
    assert box.flush()
    reader.take()
    assert reader.taken == [0, 1, 47, 48, 49]


def test_what_has_waited_too_long_is_dropped(now):
    reader, box = make(in_flight=1, limit=100)
    for message in range(4):
        box.put(message)
    now[0] += DROP_AGE_S + 0.1
    box.put(4)
    assert (reader.queue, box.dropped) == ([0], 3)
    reader.take()
    box.flush()
    assert reader.queue == [4]


def test_block_waits_for_the_reader_and_loses_nothing(now):
    reader, box = make("block", in_flight=2, limit=3)
    now[1] = reader.take
    for message in range(50):
        box.put(message)
        assert len(reader.queue) <= 2 and len(box._waiting) <= 3
    box.drain()
    now[1] = None
    reader.take(len(reader.queue))
    assert reader.taken == list(range(50)) and box.dropped == 0


def test_a_reader_that_takes_nothing_is_not_waited_for(now):
    reader, box = make("block", in_flight=2, limit=3)
    for message in range(6):
        box.put(message)
    assert box.stalled and box.dropped == 1 and now[0] > 1000 + STALLED_S
    began_s = now[0]
    box.drain()
    assert (box.dropped, now[0]) == (4, began_s)
    reader.take(2)
    box.put(9)
    assert not box.stalled and reader.queue == [9]


def test_a_burst_after_a_rest_finds_no_stalled_reader(now):
    reader, box = make(in_flight=2, limit=3)
    box.put(0)
    reader.take()
    now[0] += 100 * STALLED_S
    for message in range(5):
        box.put(message)
    assert not box.stalled


def test_a_stop_ends_the_wait(now):
    stop = threading.Event()
    reader, box = make("block", stop.is_set, in_flight=1, limit=1)
    now[1] = stop.set
    for message in range(4):
        box.put(message)
    assert now[0] < 1000 + 1
    box.drain()
    assert reader.queue == [0] and box.dropped == 3
