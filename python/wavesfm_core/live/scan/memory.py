# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each tuning of a scan: its noise floor, and the emitters of all visits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...band.types import Emitter
from ..spectra import SpectrumRow
from .plan import Tuning

SAME_IOU = 0.3  # of two spans of frequency that are one emitter's
FLOOR_WEIGHT = 0.2  # of the newest row in the running mean
MOST_PLACES = 20_000


@dataclass
class Place:
    """An emitter as several visits have seen it."""

    number: int
    """In the scan, from 1 on."""
    low_hz: float
    """Lower edge at the last sight, Hz."""
    high_hz: float
    """Upper edge at the last sight, Hz."""
    first_s: float
    """First sight, seconds since the epoch."""
    last_s: float
    """Last sight, seconds since the epoch."""
    visits: int = 1
    """Visits at which it was on the air."""
    snr_db: float = 0.0
    """At the last sight."""
    votes: Counter[str] = field(default_factory=Counter)
    """Sum of the confidences by label."""

    @property
    def label(self) -> str:
        """Label with the most votes; "" while nobody has looked."""
        return self.votes.most_common(1)[0][0] if self.votes else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        total = sum(self.votes.values())
        share = self.votes[self.label] / total if total else None
        facts = {"place": self.number, "low_hz": self.low_hz, "high_hz": self.high_hz, "label": self.label}
        return {**facts, "share": share, "first_s": self.first_s, "last_s": self.last_s, "visits": self.visits}


@dataclass
class TuningState:
    """What is known of one tuning."""

    floor_db: float | None = None
    """Median power of an FFT bin, running mean; None before the first visit."""
    active: int = 0
    """Emitters at the last visit."""
    visits: int = 0
    """Visits that have ended."""


class ScanMemory:
    """Emitters and floors of all tunings; any thread may read it.

    Parameters
    ----------
    tunings : sequence of Tuning
        Of the plan.
    """

    def __init__(self, tunings: Sequence[Tuning]) -> None:
        self._tunings = tunings
        self._lock = threading.Lock()
        self._places: list[Place] = []
        self._numbered = 0
        self.states = [TuningState() for _ in tunings]

    states: list[TuningState]
    """Of each tuning, in the order of the plan."""

    @property
    def places(self) -> list[Place]:
        """All emitters, by rising frequency."""
        with self._lock:
            return sorted(self._places, key=lambda place: place.low_hz)

    def is_active(self, index: int) -> bool:
        """Whether there were emitters at the last visit of a tuning."""
        return self.states[index].active > 0

    def take_row(self, index: int, row: SpectrumRow) -> None:
        """Follow the noise floor of a tuning."""
        state = self.states[index]
        median_db = float(np.median(row.power_db))
        known = state.floor_db
        state.floor_db = median_db if known is None else known + FLOOR_WEIGHT * (median_db - known)

    def take_visit(self, index: int, at_s: float, emitters: Iterable[Emitter]) -> list[Place]:
        """End a visit at which these emitters were on the air; returns their places. Those at the edges are left out.

        at_s: time of the visit, seconds since the epoch.
        """
        tuning = self._tunings[index]
        found = []
        with self._lock:
            for emitter in emitters:
                low_hz, high_hz = tuning.centre_hz + emitter.low_hz, tuning.centre_hz + emitter.high_hz
                if not tuning.low_hz <= (low_hz + high_hz) / 2 < tuning.high_hz:
                    continue
                place = self._place(low_hz, high_hz, at_s)
                place.low_hz, place.high_hz, place.last_s = low_hz, high_hz, at_s
                place.snr_db = emitter.snr_db
                if emitter.label and emitter.confidence is not None:
                    place.votes[emitter.label] += emitter.confidence  # type: ignore[assignment]
                if place not in found:
                    found.append(place)
        state = self.states[index]
        state.active, state.visits = len(found), state.visits + 1
        return found

    def _place(self, low_hz: float, high_hz: float, at_s: float) -> Place:
        """The known place that fits best, or a new one."""
        best, score = None, SAME_IOU
        for place in self._places:
            shared = min(place.high_hz, high_hz) - max(place.low_hz, low_hz)
            union = max(place.high_hz, high_hz) - min(place.low_hz, low_hz)
            if shared / union > score:
                best, score = place, shared / union
        if best is not None:
            best.visits += best.last_s != at_s
            return best
        self._numbered += 1
        place = Place(self._numbered, low_hz, high_hz, at_s, at_s)
        self._places.append(place)
        if len(self._places) > MOST_PLACES:
            self._places.remove(min(self._places, key=lambda each: each.last_s))
        return place
