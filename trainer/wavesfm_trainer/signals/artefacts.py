# SPDX-License-Identifier: GPL-3.0-or-later
"""What receivers and decimators do to any recording: sloping passbands, pedestals, lines, combs, gaps, steps.

An empty band with any of these is still the class noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .base import IQ
from .shaping import from_turns

LINE_BINS = 512  # a line's height is counted over the noise in one bin of this many


@dataclass(frozen=True)
class Artefacts:
    """Draws of `draw_artefacts`.

    slope_db: loss from one edge of the band to the other; ripple_db: of a random smooth curve on top.
    pedestal: (low, high, skirt) as shares of the rate, -0.5 to 0.5: inside it the passband is flat, outside
        pedestal_db down; None: no pedestal. Signals that were resampled into a wider recording stand on one.
    lines: (frequency as a share of the rate, height in dB over the noise in one of LINE_BINS bins) each.
    comb: (spacing as a share of the rate, height in dB) of equally spaced lines, or None.
    gaps: share of the samples that are zeros, in pieces of gap_samples; 0.0: none.
    steps: (position in [0, 1), dB) each, of an automatic gain control.
    """

    slope_db: float = 0.0
    ripple_db: float = 0.0
    pedestal: tuple[float, float, float] | None = None
    pedestal_db: float = 0.0
    lines: tuple[tuple[float, float], ...] = ()
    comb: tuple[float, float] | None = None
    gaps: float = 0.0
    gap_samples: int = 0
    steps: tuple[tuple[float, float], ...] = ()


def draw_artefacts(
    rng: np.random.Generator, busy: float = 1.0, zoomed: bool = False, keep: tuple[float, float] = (0.0, 0.0)
) -> Artefacts:
    """Draw what a recording has of them.

    busy: factor on all odds (3 for an empty band, where they are what there is to see). keep: (low, high) shares of
    the rate that a pedestal holds inside. zoomed: of a decimated part of a wider recording.
    """

    def happens(odds: float) -> bool:
        return rng.random() < min(odds * busy, 0.85)

    pedestal = None
    if happens(0.2 if zoomed else 0.08):
        low = rng.uniform(-0.5, max(min(keep[0] - 0.02, 0.3), -0.499))
        high = rng.uniform(min(max(keep[1] + 0.02, low + 0.1), 0.499), 0.5)
        pedestal = (float(low), float(high), float(rng.uniform(0.005, 0.1)))
    lines = ()
    if happens(0.12):
        lines = tuple((float(rng.uniform(-0.49, 0.49)), float(rng.uniform(0, 28))) for _ in range(rng.integers(1, 5)))
    comb = None
    if happens(0.03):
        comb = (float(10 ** rng.uniform(-2.3, -0.5)), float(rng.uniform(0, 20)))
    steps = ()
    if happens(0.05):
        steps = tuple((float(rng.random()), float(rng.uniform(-12, 12))) for _ in range(rng.integers(1, 5)))
    return Artefacts(
        slope_db=float(rng.uniform(-14, 14)) if happens(0.2) else 0.0,
        ripple_db=float(rng.uniform(0.5, 6)) if happens(0.15) else 0.0,
        pedestal=pedestal,
        pedestal_db=float(rng.uniform(4, 40)),
        lines=lines,
        comb=comb,
        gaps=float(10 ** rng.uniform(-2, -0.3)) if happens(0.06) else 0.0,
        gap_samples=int(10 ** rng.uniform(1.5, 4.5)),
        steps=steps,
    )


def apply_artefacts(rng: np.random.Generator, iq: IQ, artefacts: Artefacts, noise_power: float) -> IQ:
    """Complex64 [n] with the artefacts on it; noise_power: of the white noise in it, per sample."""
    n = len(iq)
    if artefacts.slope_db or artefacts.ripple_db or artefacts.pedestal:
        n_fft = fft.next_fast_len(n)
        spectrum = fft.fft(iq, n_fft, workers=1)
        gain_db = np.interp(np.arange(n_fft) / n_fft, np.linspace(0, 1, 1025), fft.ifftshift(passband(rng, artefacts)))
        spectrum *= (10 ** (gain_db / 20)).astype(np.float32)
        iq = fft.ifft(spectrum, overwrite_x=True, workers=1)[:n].astype(np.complex64)
    for frequency, height_db in artefacts.lines:
        iq = iq + _line(rng, n, frequency, height_db, noise_power)
    if artefacts.comb is not None:
        spacing, height_db = artefacts.comb
        first = rng.uniform(-0.5, -0.5 + spacing)
        for frequency in np.arange(first, 0.5, spacing)[:40]:
            iq = iq + _line(rng, n, frequency, height_db + rng.normal(0, 2), noise_power)
    for position, step_db in artefacts.steps:
        iq = iq.copy()
        iq[int(position * n) :] *= np.float32(10 ** (step_db / 20))
    if artefacts.gaps:
        iq = iq * _gaps(rng, n, artefacts)
    return iq.astype(np.complex64, copy=False)


def one_edge(rng: np.random.Generator, artefacts: Artefacts) -> Artefacts:
    """The artefacts with at most one edge of the pedestal in the band.

    A pedestal of noise with both edges in view is a flat spectrum of some width, as many signals have it.
    """
    if artefacts.pedestal is None:
        return artefacts
    low, high, skirt = artefacts.pedestal
    pedestal = (-1.0, high, skirt) if rng.random() < 0.5 else (low, 1.0, skirt)
    return replace(artefacts, pedestal=pedestal)


def passband(rng: np.random.Generator, artefacts: Artefacts) -> NDArray[np.float64]:
    """Gain in dB [1025] over frequency from -rate/2 to rate/2."""
    f = np.linspace(-0.5, 0.5, 1025)
    gain_db = artefacts.slope_db * f
    if artefacts.ripple_db:
        knots = rng.normal(0, artefacts.ripple_db, int(rng.integers(4, 12)))
        gain_db = gain_db + np.interp(f, np.linspace(-0.5, 0.5, len(knots)), knots)
    if artefacts.pedestal is not None:
        low, high, skirt = artefacts.pedestal
        outside = np.maximum(low - f, f - high)
        gain_db = gain_db - artefacts.pedestal_db * np.clip(outside / skirt + 0.5, 0, 1)
    return gain_db


def _line(rng: np.random.Generator, n: int, frequency: float, height_db: float, noise_power: float) -> IQ:
    turns = np.arange(n) * frequency + rng.random()
    if rng.random() < 0.25:  # it drifts
        turns += rng.uniform(-3, 3) / LINE_BINS * np.arange(n) * np.linspace(0, 1, n)
    amplitude = np.sqrt(noise_power / LINE_BINS * 10 ** (height_db / 10))
    return np.float32(amplitude) * from_turns(turns)


def _gaps(rng: np.random.Generator, n: int, artefacts: Artefacts) -> NDArray[np.float32]:
    heard = np.ones(n, np.float32)
    length = min(artefacts.gap_samples, max(n // 8, 1))
    count = max(1, int(artefacts.gaps * n / length))
    if rng.random() < 0.5:
        starts = (np.arange(count) + rng.random()) * (n / count)
    else:
        starts = rng.uniform(0, n, min(count, 2000))
    for start in starts[:4000].astype(int):
        heard[start : start + length] = 0
    return heard


__all__ = ["LINE_BINS", "Artefacts", "apply_artefacts", "draw_artefacts", "one_edge", "passband"]
