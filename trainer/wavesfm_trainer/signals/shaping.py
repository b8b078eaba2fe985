# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulse shaping and modulation shared by signal classes, vectorised in float32 and complex64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, oaconvolve

from .base import IQ

Reals = NDArray[np.float32]


def sample_count(duration_s: float, rate_hz: float) -> int:
    """Number of samples that cover `duration_s` at `rate_hz`, rounded up."""
    return int(np.ceil(duration_s * rate_hz))


def hold(symbols: NDArray, symbol_rate_hz: float, rate_hz: float, n_samples: int) -> NDArray:
    """Zero-order hold of symbols at any ratio of rates; zeros after the last symbol.

    Parameters
    ----------
    symbols : [k].
    symbol_rate_hz : rate of the symbols.
    rate_hz : rate of the result.
    n_samples : length of the result.
    """
    index = np.floor(np.arange(n_samples) * (symbol_rate_hz / rate_hz)).astype(np.int64)
    held = symbols[np.minimum(index, len(symbols) - 1)]
    held[index >= len(symbols)] = 0
    return held


def gaussian_taps(bt: float, samples_per_symbol: float, span_symbols: int = 3) -> Reals:
    """Gaussian filter with unit sum.

    Parameters
    ----------
    bt : bandwidth-time product (0.3 in 3GPP TS 45.004 clause 2.5).
    samples_per_symbol : need not be an integer.
    span_symbols : length of the filter.
    """
    half = int(np.ceil(span_symbols * samples_per_symbol / 2))
    t = np.arange(-half, half + 1) / samples_per_symbol
    taps = np.exp(-(2 * np.pi**2 / np.log(2)) * (bt * t) ** 2)
    return (taps / taps.sum()).astype(np.float32)


def rrc_taps(rolloff: float, samples_per_symbol: float, span_symbols: int = 8) -> Reals:
    """Root-raised-cosine filter with unit energy; arguments as for `gaussian_taps`."""
    half = int(np.ceil(span_symbols * samples_per_symbol / 2))
    t = np.arange(-half, half + 1) / samples_per_symbol
    t = t + 1e-9  # keeps both removable singularities off the grid
    up = np.sin(np.pi * t * (1 - rolloff)) + 4 * rolloff * t * np.cos(np.pi * t * (1 + rolloff))
    taps = up / (np.pi * t * (1 - (4 * rolloff * t) ** 2))
    return (taps / np.sqrt((taps**2).sum())).astype(np.float32)


def smooth(x: NDArray, taps: Reals) -> NDArray:
    """Convolve to the same length and dtype (float32 or complex64)."""
    convolve = oaconvolve if len(x) > 64 * len(taps) else fftconvolve  # in blocks that fit the cache
    return convolve(x, taps, mode="same").astype(x.dtype, copy=False)


def from_turns(turns: NDArray) -> IQ:
    """Constant-envelope samples exp(2j pi turns) [n], in single precision after the whole turns are gone."""
    angle = (2 * np.pi * (turns - np.rint(turns))).astype(np.float32)
    iq = np.empty(len(angle), np.complex64)
    iq.real, iq.imag = np.cos(angle), np.sin(angle)
    return iq


def frequency_modulate(frequency_hz: NDArray, rate_hz: float, phase: float = 0.0) -> IQ:
    """Constant-envelope signal with instantaneous frequency `frequency_hz` [n], starting at `phase` radians."""
    turns = np.cumsum(frequency_hz.astype(np.float64)) / rate_hz
    return from_turns(turns + phase / (2 * np.pi))


def fsk(symbols: NDArray, symbol_rate_hz: float, deviation_hz: float, rate_hz: float, bt: float | None = None) -> IQ:
    """Frequency-shift keying.

    Parameters
    ----------
    symbols : [k], in [-1, 1].
    symbol_rate_hz : rate of the symbols.
    deviation_hz : frequency of symbol 1.
    rate_hz : rate of the result.
    bt : bandwidth-time product of a Gaussian filter; None: no filter.
    """
    n_samples = int(np.ceil(len(symbols) * rate_hz / symbol_rate_hz))
    shape = hold(np.asarray(symbols, np.float32), symbol_rate_hz, rate_hz, n_samples)
    if bt is not None:
        shape = smooth(shape, gaussian_taps(bt, rate_hz / symbol_rate_hz))
    return frequency_modulate(deviation_hz * shape, rate_hz)


def place(target: IQ, burst: IQ, start: int) -> None:
    """Add `burst` to `target` at sample `start`, cut to the length of `target`."""
    low, high = max(start, 0), min(start + len(burst), len(target))
    if low < high:
        target[low:high] += burst[low - start : high - start]


def shift(iq: IQ, frequency_hz: float, rate_hz: float) -> IQ:
    """Shift a signal by `frequency_hz`."""
    return (iq * from_turns(np.arange(len(iq)) * (frequency_hz / rate_hz))).astype(np.complex64, copy=False)


def bits(rng: np.random.Generator, count: int) -> NDArray[np.int8]:
    """Random bits, 0 or 1."""
    return rng.integers(0, 2, count, dtype=np.int8)


def window_start(rng: np.random.Generator, starts_s: NDArray, lengths_s: NDArray, duration_s: float) -> float:
    """Start in seconds of a window that contains a random instant of the bursts, away from the ends of the schedule.

    Parameters
    ----------
    starts_s, lengths_s : bursts in seconds, sorted.
    duration_s : length of the window.
    """
    ends_s = starts_s + lengths_s
    inner = (starts_s >= starts_s[0] + duration_s) & (ends_s <= ends_s[-1] - duration_s)
    chosen = np.flatnonzero(inner if inner.any() else np.ones_like(inner))
    k = rng.choice(chosen, p=lengths_s[chosen] / lengths_s[chosen].sum())
    return float(starts_s[k] + rng.uniform() * lengths_s[k] - rng.uniform(0.05, 0.95) * duration_s)


def trapezoids(starts_s: NDArray, lengths_s: NDArray, rise_s: float, rate_hz: float, n_samples: int) -> Reals:
    """Envelope of sorted, disjoint pulses of height 1.

    Parameters
    ----------
    starts_s, lengths_s : pulses in seconds.
    rise_s : duration of the linear edges.
    rate_hz : rate of the result.
    n_samples : length of the result.
    """
    corners = np.stack([starts_s, starts_s + lengths_s], axis=1).ravel()
    area = np.repeat(np.concatenate([[0.0], np.cumsum(lengths_s)]), 2)[1:-1]
    t = np.arange(n_samples) / rate_hz
    return ((np.interp(t + rise_s / 2, corners, area) - np.interp(t - rise_s / 2, corners, area)) / rise_s).astype(
        np.float32
    )


def clip_near(rng: np.random.Generator, iq: IQ) -> IQ:
    """A device so close that the receiver clips: shifted off centre, with harmonics of its offset; complex64 [n]."""
    moved = iq * from_turns(np.arange(len(iq)) * rng.uniform(-0.46, 0.46))
    limit = rng.uniform(0.3, 0.9) * np.abs(iq).max()
    return (np.clip(moved.real, -limit, limit) + 1j * np.clip(moved.imag, -limit, limit)).astype(np.complex64)
