# SPDX-License-Identifier: GPL-3.0-or-later
"""A source that steps another one through a plan, and the bookkeeping of its visits."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

from ...band.types import Emitter, Event
from ...types import StreamTime
from ..block import SampleBlock, TunableSource
from ..session import LiveSession
from ..spectra import SpectrumRow
from .memory import ScanMemory
from .occupancy import Occupancy
from .plan import ScanPlan, Tuning
from .schedule import Schedule

ROWS_A_VISIT = 3  # of the waterfall, at least: a retune begins a new row


@dataclasses.dataclass
class Visit:
    """One stay at a tuning."""

    index: int
    """Of the tuning in the plan."""
    start_sample: int
    """In the stream; -1 until the first block has come."""
    time: StreamTime
    """Of its first sample."""
    n_samples: int = 0
    """Samples so far."""
    emitters: dict[int, Emitter] = dataclasses.field(default_factory=dict)
    """Emitters that have ended in it, by number."""


class Scanner:
    """Steps a source through a plan; itself the source of a session, which is given to `follow`.

    Parameters
    ----------
    source : TunableSource
        Tuned from the thread that reads it.
    plan : ScanPlan
        Its tunings.
    """

    def __init__(self, source: TunableSource, plan: ScanPlan) -> None:
        self.plan = plan
        self.memory = ScanMemory(plan.tunings)
        low_hz, high_hz = min(t.low_hz for t in plan.tunings), max(t.high_hz for t in plan.tunings)
        self.occupancy = Occupancy(low_hz, high_hz, plan.bin_hz, plan.slot_s)
        self._source = source
        self._schedule = Schedule(plan.tunings, self.memory.is_active)
        self._session: LiveSession | None = None
        self._lock = threading.Lock()  # guards the visits, which the threads of source and search share
        self._visits: list[Visit] = []  # the present one last; earlier ones until the search has left them
        self.is_live = source.is_live
        self.description = f"scan of {len(plan.tunings)} tunings by {source.description}"

    @property
    def visits(self) -> int:
        """Visits that have ended."""
        return sum(state.visits for state in self.memory.states)

    def follow(self, session: LiveSession) -> None:
        """Take the rows and the events of the session that this is the source of."""
        self._session = session
        shortest_s = min(tuning.dwell_s for tuning in self.plan.tunings)
        session.spectra.rows_per_s = max(session.spectra.rows_per_s, ROWS_A_VISIT / shortest_s)
        session.on_rows.append(self._take_row)
        session.on_events.append(self._take_events)

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`."""
        elapsed_s = 0.0
        visit, tuning = self._begin(elapsed_s)
        for block in self._source.blocks():
            elapsed_s += block.n_samples / block.rate_hz
            if block.centre_hz is None or abs(block.centre_hz - tuning.centre_hz) > 1.0:
                continue  # received before the source was tuned
            if visit.start_sample < 0:
                self._place(visit, block)
            visit.n_samples += block.n_samples
            yield block
            if visit.n_samples >= tuning.dwell_s * block.rate_hz:
                self._end_searched()
                visit, tuning = self._begin(elapsed_s)

    def stop(self) -> None:
        """See `Source.stop`."""
        self._source.stop()

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()

    def status(self) -> dict[str, Any]:
        """Plain types for JSON: visits, and what was found."""
        places = self.memory.places
        return {"visits": self.visits, "tunings": len(self.plan.tunings), "places": [p.as_dict() for p in places]}

    def _begin(self, elapsed_s: float) -> tuple[Visit, Tuning]:
        index = self._schedule.next(elapsed_s)
        tuning = self.plan.tunings[index]
        visit = Visit(index, -1, StreamTime(0, 0.0))
        with self._lock:
            self._visits.append(visit)
        self._source.tune(tuning.centre_hz, tuning.rate_hz)
        return visit, tuning

    def _place(self, visit: Visit, block: SampleBlock) -> None:
        now_s = time.time()
        visit.time = block.time or StreamTime(int(now_s), now_s % 1.0)
        visit.start_sample = 0 if self._session is None else self._session.position + block.lost

    def _take_row(self, row: SpectrumRow) -> None:
        with self._lock:
            index = self._visits[-1].index if self._visits else None
        if index is not None and row.centre_hz == self.plan.tunings[index].centre_hz:
            self.memory.take_row(index, row)

    def _take_events(self, events: list[Event]) -> None:
        """On the thread of the search: ends of emitters, those of the visit before a retune among them."""
        for event in events:
            emitter = event.emitter
            if event.happening != "ended" or emitter.kind not in ("signal", "whole"):
                continue
            with self._lock:
                placed = [visit for visit in self._visits if 0 <= visit.start_sample <= emitter.start_sample]
                if placed:
                    placed[-1].emitters[emitter.number] = emitter

    def finish(self) -> None:
        """End all visits; after the end of the session."""
        with self._lock:
            done, self._visits = self._visits, []
        self._end_visits(done)

    def _end_searched(self) -> None:
        """End the visits that the search has left: it has begun with the next one."""
        if self._session is None:
            return
        searched = self._session.position - self._session.accounts.samples_waiting
        with self._lock:
            starts = [visit.start_sample for visit in self._visits[1:]]
            count = sum(0 <= start < searched for start in starts)
            done, self._visits = self._visits[:count], self._visits[count:]
        self._end_visits(done)

    def _end_visits(self, visits: list[Visit]) -> None:
        for visit in visits:
            if visit.start_sample >= 0:
                self._end(visit)

    def _end(self, visit: Visit) -> None:
        tuning = self.plan.tunings[visit.index]
        at_s = float(visit.time)
        places = self.memory.take_visit(visit.index, at_s, visit.emitters.values())
        self.occupancy.observe(at_s, tuning.low_hz, tuning.high_hz, visit.n_samples / tuning.rate_hz)
        for emitter in visit.emitters.values():
            edges_hz = tuning.centre_hz + emitter.low_hz, tuning.centre_hz + emitter.high_hz
            seconds = emitter.n_samples / emitter.rate_hz * emitter.duty
            self.occupancy.occupy(at_s, *edges_hz, seconds)
        if self._session is not None:
            state = self.memory.states[visit.index]
            facts = {"centre_hz": tuning.centre_hz, "rate_hz": tuning.rate_hz, "floor_db": state.floor_db}
            self._session.bus.publish(
                "visit", {**facts, "time": visit.time.as_dict(), "places": [place.as_dict() for place in places]}
            )
