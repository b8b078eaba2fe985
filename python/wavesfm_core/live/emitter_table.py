# SPDX-License-Identifier: GPL-3.0-or-later
"""Emitters of a session as they are known now, and the last ones that have ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from ..band.types import Emitter, Event

SHOWN_KINDS = ("signal", "whole", "line")
ENDED_KEPT = 200


class Known(NamedTuple):
    """An emitter and whether it is on the air."""

    emitter: Emitter
    is_active: bool


class EmitterTable:
    """Follows the events of a session; any thread may read it.

    Parameters
    ----------
    ended_kept : int
        Emitters that have ended and are kept.
    """

    def __init__(self, ended_kept: int = ENDED_KEPT) -> None:
        self._limit = ended_kept
        self._lock = threading.Lock()
        self._active: dict[int, Emitter] = {}
        self._ended: OrderedDict[int, Emitter] = OrderedDict()

    def take(self, events: Iterable[Event]) -> None:
        """Follow events in their order."""
        with self._lock:
            for event in events:
                emitter = event.emitter
                self._ended.pop(emitter.number, None)
                if event.happening != "ended":
                    self._active[emitter.number] = emitter
                    continue
                self._active.pop(emitter.number, None)
                if emitter.kind in SHOWN_KINDS:
                    self._ended[emitter.number] = emitter
                while len(self._ended) > self._limit:
                    self._ended.popitem(last=False)

    def refresh(self, emitters: Iterable[Emitter]) -> None:
        """Replace active emitters by what is known of them now."""
        with self._lock:
            self._active.update({each.number: each for each in emitters if each.number in self._active})

    def forget_active(self) -> None:
        """End all active emitters, after a fault that has lost their ends."""
        with self._lock:
            self._active.clear()

    def all(self) -> list[Known]:
        """Active emitters and those that have ended, of the kinds SHOWN_KINDS, by their numbers."""
        with self._lock:
            known = [Known(each, False) for each in self._ended.values()]
            known += [Known(each, True) for each in self._active.values() if each.kind in SHOWN_KINDS]
        return sorted(known, key=lambda each: each.emitter.number)

    def find(self, number: int) -> Emitter | None:
        """The emitter of this number, None when it is not known any more."""
        with self._lock:
            return self._active.get(number) or self._ended.get(number)
