# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples of labelled IQ, deterministic from (seed, index): a data set that needs no disk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import CLASSES, LABELS
from .base import IQ, Emission, SignalClass, SilentWindow
from .channel import Reception, draw_reception, receive
from .visibility import raised_snr_db

NEIGHBOUR_PROBABILITY = 0.15
MAX_SILENT_DRAWS = 50


@dataclass(frozen=True)
class Example:
    """One recording of the generator: complex64 [n] at rate_hz, what is in it and how it was received."""

    iq: IQ
    rate_hz: float
    label: str
    snr_db: float
    reception: Reception


@dataclass(frozen=True)
class SignalDataset:
    """Endless labelled recordings; `[index]` depends on (seed, index) alone and the classes take turns.

    tile_samples: length of a full recording; shorter ones (log-uniform down to min_samples, and no shorter than the
        class's shortest_s) come with `partial_share`.
    labels: all classes; drawn: those that take turns, in order, repeats allowed; none: all.
    snr_db: a fixed range to draw from, or None for the default mixture of -5 to 60 dB.
    """

    seed: int
    tile_samples: int
    min_samples: int
    partial_share: float = 0.5
    snr_db: tuple[float, float] | None = None
    labels: tuple[str, ...] = LABELS
    drawn: tuple[str, ...] = ()

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, index])
        turns = self.drawn or self.labels
        label = turns[index % len(turns)]
        n_samples = self.tile_samples
        if rng.random() < self.partial_share:
            n_samples = int(np.exp(rng.uniform(np.log(self.min_samples), np.log(self.tile_samples))))
        snr_db = None if self.snr_db is None else float(rng.uniform(*self.snr_db))
        return make_example(rng, CLASSES[label], n_samples, snr_db, most_samples=self.tile_samples)


def make_example(
    rng: np.random.Generator,
    signal: SignalClass,
    n_samples: int,
    snr_db: float | None = None,
    rate_hz: float | None = None,
    most_samples: int = 0,
    visible: bool = False,
) -> Example:
    """One recording of one class with everything else drawn.

    n_samples: raised to the class's shortest_s, as far as most_samples allows. visible: snr_db is raised until the
    signal stands out of the noise (`visibility`).
    """
    rate_hz = signal.draw_rate(rng) if rate_hz is None else rate_hz
    n_samples = max(n_samples, min(most_samples, int(signal.shortest_s * rate_hz)))
    emission = _make(rng, signal, n_samples, rate_hz)
    reception = draw_reception(rng, rate_hz, snr_db)
    offset_hz = _draw_offset(rng, emission, rate_hz)
    neighbours = ()
    if signal.label != "noise" and rng.random() < NEIGHBOUR_PROBABILITY:
        neighbours = _draw_neighbour(rng, emission, offset_hz, n_samples, rate_hz)
    if visible and signal.label != "noise":
        reception = replace(reception, snr_db=raised_snr_db(emission, reception.snr_db, rate_hz, n_samples))
    reception = replace(reception, offset_hz=offset_hz, neighbours=neighbours)
    iq = receive(rng, emission, reception, rate_hz, n_samples)
    return Example(iq, rate_hz, signal.label, reception.snr_db, reception)


def _make(rng: np.random.Generator, signal: SignalClass, n_samples: int, rate_hz: float) -> Emission:
    # A little longer than asked: the channel may round its transforms up.
    duration_s = n_samples / rate_hz * 1.01 + 1e-5
    for _ in range(MAX_SILENT_DRAWS):
        try:
            return signal.make(rng, duration_s, rate_hz)
        except SilentWindow:
            continue  # about one in a thousand short windows of the bursty classes
    raise SilentWindow(f"{signal.label}: found {MAX_SILENT_DRAWS} silent draws of {duration_s} s, expected a signal")


def _draw_offset(rng: np.random.Generator, emission: Emission, rate_hz: float) -> float:
    """Near the centre (tuned on it, or beside the DC spike) or anywhere that keeps the signal in the band."""
    jitter_hz = rng.normal() * 2e-5 * 1e9 * min(1.0, rate_hz / 2e6) * 0.3
    if emission.placed:
        return float(np.clip(jitter_hz, -0.02 * rate_hz, 0.02 * rate_hz))
    room_hz = max(0.0, 0.46 * rate_hz - emission.occupied_hz / 2)
    if rng.random() < 0.5:
        return float(np.clip(jitter_hz, -max(room_hz, 0.03 * rate_hz), max(room_hz, 0.03 * rate_hz)))
    return float(rng.uniform(-1, 1) * max(room_hz, 0.05 * rate_hz))


def _draw_neighbour(
    rng: np.random.Generator, emission: Emission, offset_hz: float, n_samples: int, rate_hz: float
) -> tuple[tuple[Emission, float, float], ...]:
    """One weaker signal of any class that lives at this rate, beside the wanted one; none where there is no room."""
    usual = [s for s in CLASSES.values() if s.label != "noise" and _lives_at(s, rate_hz)]
    other = _make(rng, usual[int(rng.integers(len(usual)))], n_samples, rate_hz) if usual else None
    if other is None or other.placed:
        return ()
    gap_hz = (emission.occupied_hz + other.occupied_hz) / 2 * 1.2
    places = [
        f
        for f in (offset_hz - gap_hz * rng.uniform(1, 3), offset_hz + gap_hz * rng.uniform(1, 3))
        if abs(f) < rate_hz / 2
    ]
    if not places:
        return ()
    density_db = 10 * np.log10(other.occupied_hz / emission.occupied_hz)
    return ((other, float(rng.choice(places)), float(density_db - rng.uniform(3, 20))),)


def _lives_at(signal: SignalClass, rate_hz: float) -> bool:
    return any(view.low_hz <= rate_hz <= view.high_hz for view in signal.views)
