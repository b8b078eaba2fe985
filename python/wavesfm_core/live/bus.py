# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of a live session, numbered and handed to everybody who wants them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

KINDS = ("event", "status", "warning", "recording", "visit")
"""Events of emitters, accounts once a second, faults, recordings that were written, and visits of a scan."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a session."""

    kind: str
    """One of KINDS."""
    values: Mapping[str, Any]
    """Plain types for JSON."""
    run: str
    """Identity of the session."""
    sequence: int
    """Number of the record in the session, from 0; a missing one was dropped on the way."""

    def as_dict(self) -> dict[str, Any]:
        """One flat dictionary for JSON."""
        return {"type": self.kind, "run": self.run, "sequence": self.sequence, **self.values}


Taker = Callable[[Record], object]


class Bus:
    """Hands each record to all takers on the thread of the sender; a taker never blocks.

    Parameters
    ----------
    run : str
        Identity of the session.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._lock = threading.RLock()  # so that records arrive in order
        self._takers: list[Taker] = []
        self._sequence = 0

    def add(self, taker: Taker) -> None:
        """Hand further records to this one too."""
        with self._lock:
            self._takers.append(taker)

    def remove(self, taker: Taker) -> None:
        """Hand no further record to this one."""
        with self._lock:
            self._takers.remove(taker)

    def publish(self, kind: str, values: Mapping[str, Any]) -> None:
        """Number a record and hand it over; a taker that raises is logged."""
        with self._lock:
            record = Record(kind, values, self.run, self._sequence)
            self._sequence += 1
            for taker in list(self._takers):
                try:
                    taker(record)
                except Exception:
                    log.exception("a taker of records raised")
