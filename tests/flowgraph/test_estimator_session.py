# SPDX-License-Identifier: GPL-3.0-or-later
"""A session of slots without a flowgraph: accounts close whatever becomes of a slot."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from gnuradio.wavesfm.estimator_session import EstimatorEvents, EstimatorSession
from support.ofdm_graphs import numerology, slots
from support.waiting import LONG_S
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.worker import WorkerOptions

SPEC = numerology()


class Heard:
    """A session and what it has said; `odd`: start samples whose publication fails."""

    def __init__(self, policy="block", odd=(), **options):
        self.starts, self.status, self.failures, self.odd = [], [], [], odd
        events = EstimatorEvents(
            self.on_answer,
            lambda kind, **values: self.status.append((kind, values)),
            lambda cause, text, n_slots: self.failures.append((cause, text, n_slots)),
        )
        self.pipeline = ChannelPipeline.of(SPEC)
        self.session = EstimatorSession(self.pipeline, WorkerOptions(batch_wait_s=0.0, **options), policy, events)

    def on_answer(self, answer):
        if answer.slot.start_sample in self.odd:
            raise OverflowError("no uint64")
        self.starts.append(answer.slot.start_sample // SPEC.slot_samples)


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
    heard.session.refuse(ValueError("shape: found 3, expected 4"))
    heard.session.discard()
    assert heard.session.finish(lambda: False)
    status = heard.session.status()
    assert heard.starts == [0, 2, 4, 5] and closes(status)
    keys = ("grids_in", "refused", "slots_in", "estimated", "failed", "dropped")
    assert [status[key] for key in keys] == [8, 1, 7, 4, 2, 1]
    causes = [cause for cause, _, _ in heard.failures]
    assert sorted(causes) == ["grid", "publishing OverflowError", "refused shape"]
    assert heard.session.close()


def test_dropping_is_said_once_and_closes():
    heard, go, inside = Heard("drop_oldest", queue_tiles=2, batch_tiles=1), threading.Event(), threading.Event()
    predict = heard.pipeline.predict

    def held(batch):
        inside.set()
        assert go.wait(LONG_S)
        return predict(batch)

    heard.pipeline.predict = held
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


def test_an_estimator_that_hangs_is_given_up():
    heard, go, inside = Heard(batch_tiles=1), threading.Event(), threading.Event()
    heard.pipeline.predict = lambda batch: inside.set() or go.wait(LONG_S) or []
    for slot in slots(SPEC, 3):
        heard.session.take(slot)
    assert inside.wait(LONG_S)
    assert not heard.session.finish(lambda: True)
    assert not heard.session.close(0.01)
    status = heard.session.status()
    assert closes(status) and (status["failed"], status["dropped"], status["waiting"]) == (1, 2, 0)
    go.set()


def test_a_wrong_policy_is_refused():
    with pytest.raises(ConfigurationError, match="policy"):
        Heard("sometimes")
