# SPDX-License-Identifier: GPL-3.0-or-later
"""The emitters of a band and what happened to them, from the messages of a classifier; no Qt."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_EMITTERS = 300
MOST_EVENTS = 500
MOST_SPANS = 64  # times on the air that are kept of one emitter
SIGNS = {"appeared": "+", "changed": "~", "ended": "-"}
SHOWN_KINDS = ("signal", "whole")


@dataclass
class ShownEmitter:
    """An emitter as the display knows it."""

    number: int
    """Of the emitter in its stream."""
    record: dict[str, Any]
    """The fields of docs/events.md, newest."""
    active: bool = True
    """Whether its end was not reported."""
    spans: deque[list[int]] = field(default_factory=lambda: deque(maxlen=MOST_SPANS))
    """[first sample, sample after the last] of each stay; -1 as the end of one that goes on."""

    @property
    def label(self) -> str:
        """Best label, "" before the first look."""
        return str(self.record.get("label") or "")

    @property
    def confidence(self) -> float | None:
        """Of the label."""
        return self.record.get("confidence")

    @property
    def edges_hz(self) -> tuple[float, float]:
        """Lower and upper edge, absolute where the frequency of the band is known."""
        centre_hz = self.record.get("centre_hz") or 0.0
        return centre_hz + self.record["low_hz"], centre_hz + self.record["high_hz"]

    @property
    def middle_hz(self) -> float:
        """Middle of the edges."""
        return sum(self.edges_hz) / 2

    @property
    def width_hz(self) -> float:
        """From edge to edge."""
        return float(self.record["high_hz"] - self.record["low_hz"])

    @property
    def start_sample(self) -> int:
        """First sample of the first burst."""
        return int(self.record["start_sample"])

    def end_sample(self, now_sample: int) -> int:
        """The sample after the last one, `now_sample` while it is active."""
        end = self.start_sample + int(self.record["n_samples"])
        return max(end, now_sample) if self.active else end

    def copy(self) -> ShownEmitter:
        """One that later messages do not change."""
        return ShownEmitter(self.number, self.record, self.active, deque(map(list, self.spans), MOST_SPANS))

    def caption(self) -> str:
        """Label and confidence for a box."""
        name = self.label or "not looked at"
        return name if self.confidence is None else f"{name} {self.confidence:.0%}"

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable labels with their probabilities."""
        probabilities = self.record.get("probabilities") or {}
        return sorted(probabilities.items(), key=lambda item: -item[1])[:count]


@dataclass(frozen=True)
class LoggedEvent:
    """One line of the timeline."""

    sample: int
    """At which it happened."""
    sign: str
    """"+" appeared, "~" changed, "-" ended."""
    number: int
    """Of the emitter."""
    label: str
    """Of the emitter after it."""
    text: str
    """What happened, for people."""
    time: Any = None
    """(seconds, fraction) of the sample, None when unknown."""


class EmitterTable:
    """The emitters known and the events so far, both bounded."""

    def __init__(self) -> None:
        self._emitters: dict[int, ShownEmitter] = {}
        self._run: Any = None
        self._finished = False
        self.events: deque[LoggedEvent] = deque(maxlen=MOST_EVENTS)
        self.forgotten = 0

    def clear(self) -> None:
        """Forget everything."""
        self._emitters.clear()
        self.events.clear()
        self._run, self._finished = None, False

    def finish(self) -> None:
        """Note that the stream has ended: nothing is on the air any more."""
        self._finished = True
        for emitter in self._emitters.values():
            emitter.active = False

    def take_event(self, record: Mapping[str, Any]) -> None:
        """Take one event in, a dict of docs/events.md.

        Raises
        ------
        KeyError, TypeError, ValueError
            For a message of another schema.
        """
        happening, sample = str(record["event"]), int(record["sample"])
        emitter = self._take(record)
        if happening in ("appeared", "ended"):  # a label may change after the end, when its last look is answered
            emitter.active = happening == "appeared"
        if happening == "appeared":
            emitter.spans.append([sample, -1])
        elif happening == "ended" and emitter.spans:
            emitter.spans[-1][1] = sample
        if emitter.record.get("kind") in SHOWN_KINDS:
            self.events.append(_logged(happening, sample, emitter, record))

    def take_detections(self, record: Mapping[str, Any]) -> None:
        """Take the list of the emitters that are known; raises as `take_event`.

        One that no event has announced is active as long as it is in the list.
        """
        present = {self._take({**each, "run": record.get("run")}).number for each in record.get("emitters") or ()}
        for emitter in self._emitters.values():
            if emitter.number not in present and not emitter.spans:
                emitter.active = False

    def shown(self) -> list[ShownEmitter]:
        """Copies of the emitters with a box, by rising frequency."""
        found = [each.copy() for each in self._emitters.values() if each.record.get("kind") in SHOWN_KINDS]
        return sorted(found, key=lambda each: each.edges_hz)

    def get(self, number: int) -> ShownEmitter | None:
        """A copy of an emitter by its number."""
        emitter = self._emitters.get(number)
        return None if emitter is None else emitter.copy()

    def _take(self, record: Mapping[str, Any]) -> ShownEmitter:
        if record.get("run") != self._run and self._run is not None:
            self.clear()
        self._run = record.get("run")
        number = int(record["emitter"])
        for name in ("low_hz", "high_hz", "start_sample", "n_samples"):
            float(record[name])
        kept = {name: value for name, value in record.items() if name not in ("event", "sample", "changes", "time")}
        kept["start_time"] = _start_time(record)
        emitter = self._emitters.setdefault(number, ShownEmitter(number, kept, not self._finished))
        emitter.record = kept
        if len(self._emitters) > MOST_EMITTERS:
            self._forget()
        return emitter

    def _forget(self) -> None:
        """Forget the one that ended first, else the oldest."""
        oldest = min(self._emitters.values(), key=lambda each: (each.active, each.start_sample))
        del self._emitters[oldest.number]
        self.forgotten += 1


def _start_time(record: Mapping[str, Any]) -> tuple[int, float] | None:
    """(seconds, fraction) of an emitter's first sample; the time of an event is that of its sample."""
    time, rate_hz = record.get("time"), float(record.get("rate_hz") or 0.0)
    if time is None or rate_hz <= 0:
        return None
    since_s = (int(record["start_sample"]) - int(record.get("sample", record["start_sample"]))) / rate_hz
    whole = math.floor(float(time[1]) + since_s)
    return int(time[0]) + whole, float(time[1]) + since_s - whole


def _logged(happening: str, sample: int, emitter: ShownEmitter, record: Mapping[str, Any]) -> LoggedEvent:
    changes = ", ".join(map(str, record.get("changes") or ()))
    what = f"changed {changes}" if changes else happening
    text = f"{emitter.middle_hz / 1e6:.4f} MHz {emitter.caption()} {what}"
    return LoggedEvent(sample, SIGNS.get(happening, "?"), emitter.number, emitter.label, text, record.get("time"))
