# SPDX-License-Identifier: GPL-3.0-or-later
"""No signal: an empty band, at times with what the receiver itself makes (spurs, combs, a hump at DC, clicks).

Most draws are all zeros, to which unit power does not apply: the channel adds the thermal noise. Of an artefact
occupied_hz is chosen so that it peaks WEAKER_DB less over the noise, in a bin of a spectrogram, than the
signal-to-noise ratio that the channel draws.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import from_turns, place, sample_count, smooth

FFT_BINS = 512  # a line's height over the noise floor is counted in one bin of this many
WEAKER_DB = 12.0
PLAIN_SHARE = 0.6


def _spurs(rng: np.random.Generator, n: int, rate_hz: float) -> tuple[IQ, float]:
    """A few lines, some of them wandering."""
    iq = np.zeros(n, np.complex64)
    t = np.arange(n) / n
    for level_db in (0.0, *rng.uniform(-20, 0, int(rng.integers(0, 3)))):
        turns = rng.uniform(-0.5, 0.5) * n * t + rng.uniform()
        if rng.uniform() < 0.3:
            wander = rng.uniform(0, 0.004) * n / (2 * np.pi)
            turns += wander * np.sin(2 * np.pi * rng.uniform(0.2, 2) * t)
        iq += np.float32(10 ** (level_db / 20)) * from_turns(turns)
    return iq, rate_hz / FFT_BINS


def _comb(rng: np.random.Generator, n: int, rate_hz: float) -> tuple[IQ, float]:
    """Harmonics of a switching supply: a pulse train with jitter, coloured by what it couples through."""
    period = rng.uniform(8, 160)
    spread = rng.choice([0.0, 0.005, 0.02])
    jitter = rng.standard_normal(int(n / period) + 2) * spread * period
    wander = np.cumsum(jitter * 0.2) if rng.uniform() < 0.5 else jitter
    index = ((np.arange(len(jitter)) + rng.uniform()) * period + wander).astype(np.int64)
    iq = np.zeros(n, np.complex64)
    iq[index[(index >= 0) & (index < n)]] = 1
    iq[min(int(period / 2), n - 1)] += np.float32(1e-3)  # never empty, however short
    taps = (rng.standard_normal(6) + 1j * rng.standard_normal(6)).astype(np.complex64)
    # Power is counted over the samples that are not zero, of which 6 in a period: in each of `period` lines 6/period^2.
    height = min(period**2 / 6 / FFT_BINS, period / 1500 if spread else 1.0)  # jitter makes the lines a broad noise
    return lfilter(taps, np.ones(1, np.float32), iq), height * rate_hz / 8


def _hump(rng: np.random.Generator, n: int, rate_hz: float) -> tuple[IQ, float]:
    """Flicker noise around DC."""
    width = 10 ** rng.uniform(-3.2, -2)
    white = rng.standard_normal(2 * n, np.float32).view(np.complex64)
    return lfilter(np.ones(1, np.float32), np.array([1, 2 * np.pi * width - 1], np.float32), white), width * rate_hz


def _impulses(rng: np.random.Generator, n: int, rate_hz: float) -> tuple[IQ, float]:
    """A few short clicks that ring, at random or at twice the mains frequency."""
    iq = np.zeros(n, np.complex64)
    step = rate_hz / rng.choice([100.0, 120.0])
    if rng.uniform() < 0.3:
        starts = np.arange(rng.uniform(0, min(step, n)), n, step)
    else:
        starts = rng.uniform(0, n, int(rng.integers(1, 9)))
    length = int(rng.integers(2, 60))
    decay = np.exp(-np.arange(length) / (length / 4))
    for start in starts:
        click = decay * (rng.standard_normal(length) + 1j * rng.standard_normal(length))
        place(iq, (rng.uniform(0.3, 1) * click).astype(np.complex64), int(start))
    return iq, rate_hz


def _mains_noise(rng: np.random.Generator, n: int, rate_hz: float) -> tuple[IQ, float]:
    """Noise that swells twice in every mains cycle (dimmers, chargers)."""
    white = rng.standard_normal(2 * n, np.float32).view(np.complex64)
    turns = np.arange(n) * (rng.choice([100.0, 120.0]) / rate_hz) + rng.uniform()
    swell = np.clip(np.cos(2 * np.pi * turns), 1e-2, None) ** int(rng.integers(2, 20))
    taps = np.ones(int(rng.integers(1, 5)), np.float32)
    return smooth(white * swell.astype(np.float32), taps), rate_hz / 1000


ARTEFACTS = ((_spurs, 0.5), (_comb, 0.15), (_hump, 0.2), (_impulses, 0.1), (_mains_noise, 0.05))


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """An empty band, in four draws of ten with an artefact of the receiver."""
    n = sample_count(duration_s, view_hz)
    if rng.uniform() < PLAIN_SHARE:
        return Emission(np.zeros(n, np.complex64), view_hz, view_hz, placed=True)
    weights = np.array([weight for _, weight in ARTEFACTS])
    artefact = ARTEFACTS[int(rng.choice(len(ARTEFACTS), p=weights / weights.sum()))][0]
    iq, height_hz = artefact(rng, n, view_hz)
    return Emission(unit_power(iq), view_hz, height_hz * 10 ** (-WEAKER_DB / 10), placed=True)


SIGNAL = SignalClass(
    label="noise",
    standard="none: thermal noise and artefacts of receivers",
    views=(View(0.25e6, 3.2e6, 2.0), View(3.2e6, 25e6, 1.0)),
    make=make,
)
