# SPDX-License-Identifier: GPL-3.0-or-later
"""A session of slots without a flowgraph: accounts close whatever becomes of a slot."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from gnuradio.wavesfm.estimator_session import EstimatorEvents, EstimatorSession
from support.ofdm_graphs import before_batches, numerology, slots
from support.waiting import LONG_S
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.worker import WorkerOptions

SPEC = numerology()


class Heard:
    """A session and what it has said; `odd`: start samples whose answers cannot be used."""

    def __init__(self, policy="block", odd=(), **options):
        self.starts, self.status, self.failures, self.odd = [], [], [], odd
        events = EstimatorEvents(
            self.on_answers,
            lambda kind, **values: self.status.append((kind, values)),
            lambda cause, text, n_slots: self.failures.append((cause, text, n_slots)),
        )
        self.pipeline = ChannelPipeline.of(SPEC)
        self.session = EstimatorSession(self.pipeline, WorkerOptions(batch_wait_s=0.0, **options), policy, events)

    def on_answers(self, answers):
        starts = [answer.slot.start_sample for answer in answers]
        self.starts += [start // SPEC.slot_samples for start in starts if start not in self.odd]
        return ["OverflowError: no uint64" if start in self.odd else "" for start in starts]


@pytest.fixture()
def held(monkeypatch):
    """(inside, go): the first batch sets `inside`, and each waits for `go`."""
    inside, go = threading.Event(), threading.Event()

    def wait(_):
        inside.set()
        assert go.wait(LONG_S)

    before_batches(monkeypatch, wait)
    return inside, go


def closes(status):
    parts = ("estimated", "dropped", "failed", "waiting")
    return status["slots_in"] == sum(status[p] for p in parts) and status["grids_in"] == (
        status["slots_in"] + status["refused"]
    )


def test_what_cannot_be_estimated_published_or_read_is_counted_apart():
    made = slots(SPEC, 6)
    made[1].grid[0, 1, 2] = np.nan
    heard = Heard(odd={3 * SPEC.slot_samples})
    for slot in made:
        heard.session.take(slot)
    heard.session.refuse("shape: found 3, expected 4")
    heard.session.discard()
    assert heard.session.finish(lambda: False)
    status = heard.session.status()
    assert heard.starts == [0, 2, 4, 5] and closes(status)
    keys = ("grids_in", "refused", "slots_in", "estimated", "failed", "dropped")
    assert [status[key] for key in keys] == [8, 1, 7, 4, 2, 1]
    causes = [cause for cause, _, _ in heard.failures]
    assert sorted(causes) == ["grid", "publishing OverflowError", "refused shape"]
    assert heard.session.close()


def test_dropping_is_said_once_and_closes(held):
    (inside, go), heard = held, Heard("drop_oldest", queue_tiles=2, batch_tiles=1)
    made = slots(SPEC, 8)
    heard.session.take(made[0])
    assert inside.wait(LONG_S)
    for slot in made[1:]:
        heard.session.take(slot)
    assert [kind for kind, _ in heard.status] == ["warning"]
    assert closes(heard.session.status()) and heard.session.status()["dropped"] == 5
    go.set()
    assert heard.session.finish(lambda: False)
    assert heard.starts == [0, 6, 7] and closes(heard.session.status())
    heard.session.close()


def test_an_estimator_that_hangs_is_given_up(held):
    (inside, go), heard = held, Heard(batch_tiles=1)
    for slot in slots(SPEC, 3):
        heard.session.take(slot)
    assert inside.wait(LONG_S)
    assert not heard.session.finish(lambda: True)
    assert not heard.session.close(0.01)
    status = heard.session.status()
    assert closes(status) and (status["failed"], status["dropped"], status["waiting"]) == (1, 2, 0)
    go.set()


def test_waiting_for_room_ends_when_cancelled(held):
    (inside, go), heard = held, Heard(queue_tiles=1, batch_tiles=1)
    made = slots(SPEC, 3)
    heard.session.take(made[0])
    assert inside.wait(LONG_S)
    heard.session.take(made[1])
    heard.session.take(made[2], lambda: True)
    assert closes(heard.session.status()) and heard.session.status()["dropped"] == 1
    go.set()
    assert heard.session.finish(lambda: False)
    assert heard.starts == [0, 1]
    heard.session.close()


def test_slots_that_are_too_old_are_dropped(held):
    (inside, go), heard = held, Heard(batch_tiles=1, max_age_s=3600.0)
    made = slots(SPEC, 3)
    heard.session.take(made[0])
    assert inside.wait(LONG_S)
    heard.session.take(dataclasses.replace(made[1], arrived_s=time.monotonic() - 7200))
    heard.session.take(made[2])
    go.set()
    assert heard.session.finish(lambda: False)
    status = heard.session.status()
    assert heard.starts == [0, 2] and closes(status) and (status["dropped"], status["too_old"]) == (1, 1)
    heard.session.close()


def test_a_wrong_policy_is_refused():
    with pytest.raises(ConfigurationError, match="policy"):
        Heard("sometimes")
