"""No signal: an empty band, at times with what the receiver itself makes (spurs, combs, a hump at DC, clicks).

Most draws are all zeros, to which unit power does not apply: the channel adds the thermal noise. A draw with artefacts
brings its own thermal noise, so that their height over it does not depend on the channel's signal-to-noise ratio.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from .base import IQ, Emission, SignalClass, View, unit_power
from .shaping import place, sample_count, smooth

FFT_BINS = 512  # a line's height over the noise floor is counted in one bin of this many
PLAIN_SHARE = 0.6


def _white(rng: np.random.Generator, n: int) -> IQ:
    """Complex white noise of power 2 per sample."""
    return rng.standard_normal(2 * n, np.float32).view(np.complex64)


def _line_amplitude(rng: np.random.Generator, low_db: float, high_db: float) -> float:
    """Amplitude of a line that stands `low_db`..`high_db` over the thermal noise in one bin."""
    return float(np.sqrt(10 ** (rng.uniform(low_db, high_db) / 10) / FFT_BINS))


def _phasor(turns: NDArray) -> IQ:
    """exp(2j pi turns), in single precision after the whole turns are gone."""
    angle = (2 * np.pi * (turns - np.floor(turns))).astype(np.float32)
    iq = np.empty(len(turns), np.complex64)
    iq.real, iq.imag = np.cos(angle), np.sin(angle)
    return iq


def _spurs(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """A few weak lines, some of them wandering."""
    iq = np.zeros(n, np.complex64)
    t = np.arange(n) / n
    for _ in range(int(rng.integers(1, 4))):
        turns = rng.uniform(-0.5, 0.5) * n * t + rng.uniform()
        if rng.uniform() < 0.3:
            wander = rng.uniform(0, 0.004) * n / (2 * np.pi)
            turns += wander * np.sin(2 * np.pi * rng.uniform(0.2, 2) * t)
        iq += _line_amplitude(rng, -3, 18) * _phasor(turns)
    return iq


def _comb(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """Harmonics of a switching supply: a pulse train with jitter, coloured by what it couples through."""
    period = rng.uniform(8, 160)
    jitter = rng.standard_normal(int(n / period) + 2) * rng.choice([0.0, 0.02, 0.1]) * period
    wander = np.cumsum(jitter * 0.2) if rng.uniform() < 0.5 else jitter
    index = ((np.arange(len(jitter)) + rng.uniform()) * period + wander).astype(np.int64)
    iq = np.zeros(n, np.complex64)
    iq[index[(index >= 0) & (index < n)]] = 1
    taps = (rng.standard_normal(6) + 1j * rng.standard_normal(6)).astype(np.complex64)
    height = _line_amplitude(rng, -6, 10) * period / np.sqrt((np.abs(taps) ** 2).sum())
    return height * lfilter(taps, [1], iq)


def _hump(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """Flicker noise around DC."""
    pole = 1 - 2 * np.pi * 10 ** rng.uniform(-3.2, -2)
    gain = (1 - pole) * np.sqrt(10 ** (rng.uniform(-3, 15) / 10) / 2)
    return lfilter(np.array([gain], np.float32), np.array([1, -pole], np.float32), _white(rng, n))


def _ripple(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """Extra noise that is not flat: a tilt or humps of the receiver's gain over frequency, at times breathing."""
    count = int(rng.integers(2, 12))
    taps = (rng.standard_normal(count) + 1j * rng.standard_normal(count)).astype(np.complex64)
    level = np.sqrt(10 ** (rng.uniform(-12, 0) / 10) / 2 / (np.abs(taps) ** 2).sum())
    t = np.arange(n) / n
    slow = 1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * (rng.uniform(0.3, 6) * t + rng.uniform()))
    return level * slow * lfilter(taps, np.ones(1, np.float32), _white(rng, n))


def _impulses(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """A few short clicks that ring, at random or at twice the mains frequency."""
    iq = np.zeros(n, np.complex64)
    step = rate_hz / rng.choice([100.0, 120.0])
    if rng.uniform() < 0.3:
        starts = np.arange(rng.uniform(0, step), n, step)
    else:
        starts = rng.uniform(0, n, int(rng.integers(1, 9)))
    length = int(rng.integers(2, 60))
    decay = np.exp(-np.arange(length) / (length / 4))
    for start in starts:
        click = decay * (rng.standard_normal(length) + 1j * rng.standard_normal(length))
        place(iq, (rng.uniform(0.5, 4) * click).astype(np.complex64), int(start))
    return iq


def _mains_noise(rng: np.random.Generator, n: int, rate_hz: float) -> IQ:
    """Noise that swells twice in every mains cycle (dimmers, chargers)."""
    turns = np.arange(n) * (rng.choice([100.0, 120.0]) / rate_hz) + rng.uniform()
    swell = np.clip(np.cos(2 * np.pi * turns), 0, None) ** int(rng.integers(2, 30))
    taps = np.ones(int(rng.integers(1, 5)), np.float32)
    return rng.uniform(0.1, 0.6) / np.sqrt(len(taps)) * smooth(_white(rng, n) * swell.astype(np.float32), taps)


ARTEFACTS = ((_spurs, 0.45), (_comb, 0.12), (_hump, 0.15), (_ripple, 0.15), (_impulses, 0.08), (_mains_noise, 0.05))


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """An empty band, in four draws of ten with one or two artefacts of the receiver."""
    n = sample_count(duration_s, view_hz)
    iq = np.zeros(n, np.complex64)
    if rng.uniform() >= PLAIN_SHARE:
        weights = np.array([weight for _, weight in ARTEFACTS])
        count = int(rng.choice([1, 2], p=[0.75, 0.25]))
        for k in rng.choice(len(ARTEFACTS), count, replace=False, p=weights / weights.sum()):
            iq += ARTEFACTS[k][0](rng, n, view_hz).astype(np.complex64)
        iq = unit_power(iq + np.float32(np.sqrt(0.5)) * _white(rng, n))
    return Emission(iq, view_hz, view_hz, placed=True)


SIGNAL = SignalClass(
    label="noise",
    standard="none: thermal noise and artefacts of receivers",
    views=(View(0.25e6, 3.2e6, 2.0), View(3.2e6, 25e6, 1.0)),
    make=make,
)
