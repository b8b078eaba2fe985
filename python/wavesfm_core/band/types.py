# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found in a band, in the words that go out: emitters, their boxes, and what happened to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..types import StreamTime

SCHEMA = 1  # of the dictionaries, raised when a field changes its meaning or goes
KINDS = ("signal", "line", "whole", "shadow", "image")
HAPPENINGS = ("appeared", "changed", "ended")


@dataclass(frozen=True, slots=True)
class Emitter:
    """One emitter as it is known at one moment: bursts of the same place and width.

    Attributes
    ----------
    number : int
        Of this emitter in this stream, from 1 on; never used twice.
    kind : str
        "signal"; "shadow" for what turned out to be skirts or side lobes of a stronger one, a part of another, or too
        weak; "image" for the mirror image of a stronger one, which the receiver makes; "line" for a constant carrier
        without sidebands (a spur, the receiver's DC), which is not named; "whole" for what fills the band and shows
        only in what the model says.
    label : str
        Best label; "" while nobody has looked.
    confidence : float or None
        Calibrated probability of the label; None while nobody has looked.
    probabilities : mapping of str to float
        Of all labels, the geometric mean over the tiles; empty while nobody has looked.
    n_looks : int
        Tiles that the engine has seen of it.
    start_sample, n_samples : int
        From the start of its first burst to the end of its last, in the stream's samples; to a row.
    low_hz, high_hz : float
        Edges, Hz from the middle of the band.
    centre_hz : float or None
        The band's middle, in Hz; None when unknown.
    time : StreamTime or None
        Of start_sample; None when unknown.
    rate_hz : float
        Of the stream.
    snr_db : float
        Mean power over the noise within the edges while it is on the air.
    power_db : float
        Mean power within the edges while it is on the air, dB relative to full scale.
    n_bursts : int
        Times on the air without a pause.
    duty : float
        Share of n_samples that it is on the air, 0 to 1.
    """

    number: int
    kind: str
    label: str
    confidence: float | None
    probabilities: Mapping[str, float]
    n_looks: int
    start_sample: int
    n_samples: int
    low_hz: float
    high_hz: float
    centre_hz: float | None
    time: StreamTime | None
    rate_hz: float
    snr_db: float
    power_db: float
    n_bursts: int
    duty: float

    @property
    def width_hz(self) -> float:
        """From edge to edge, in Hz."""
        return self.high_hz - self.low_hz

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON, with the schema's number; see docs/events.md."""
        return {
            "schema": SCHEMA,
            "emitter": self.number,
            "kind": self.kind,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": dict(self.probabilities),
            "n_looks": self.n_looks,
            "start_sample": self.start_sample,
            "n_samples": self.n_samples,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "centre_hz": self.centre_hz,
            "time": None if self.time is None else self.time.as_dict(),
            "rate_hz": self.rate_hz,
            "snr_db": self.snr_db,
            "power_db": self.power_db,
            "n_bursts": self.n_bursts,
            "duty": self.duty,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an emitter.

    Attributes
    ----------
    happening : str
        "appeared", "changed" or "ended".
    sample : int
        Where in the stream: the start of the first burst, the row at which the change was seen, the end of the last
        burst.
    time : StreamTime or None
        Of `sample`; None when unknown.
    changes : tuple of str
        Of "label", "width", "power"; empty but for "changed".
    emitter : Emitter
        As it is after it.
    """

    happening: str
    sample: int
    time: StreamTime | None
    changes: tuple[str, ...]
    emitter: Emitter

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON, with the schema's number; see docs/events.md."""
        return {
            "schema": SCHEMA,
            "event": self.happening,
            "sample": self.sample,
            "time": None if self.time is None else self.time.as_dict(),
            "changes": list(self.changes),
            **{name: value for name, value in self.emitter.as_dict().items() if name not in ("schema", "time")},
        }


def boxes(events: Iterable[Event]) -> list[Emitter]:
    """Signals among the emitters that have ended, each as it was at its end, in the order of their starts."""
    ended = [event.emitter for event in events if event.happening == "ended"]
    return sorted(
        (emitter for emitter in ended if emitter.kind in ("signal", "whole")),
        key=lambda emitter: (emitter.start_sample, emitter.low_hz),
    )
