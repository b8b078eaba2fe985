# SPDX-License-Identifier: GPL-3.0-or-later
"""Cyclic-prefix OFDM as observed in a receiver's band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from .base import IQ, SilentWindow
from .shaping import sample_count

Gain = NDArray[np.float32]
Fixed = Sequence[tuple[int, int, NDArray]]
SHIFT_STEPS = 32  # fractions of a sample that a symbol's start is rounded to


@dataclass(frozen=True)
class Band:
    """The carriers [low, high) of a signal that are inside a view centred on carrier `centre`."""

    fft_size: int
    """FFT size of the synthesis."""
    spacing_hz: float
    """Subcarrier spacing."""
    centre: int
    """Carrier at the centre of the view, in the signal's numbering."""
    low: int
    """First carrier in view."""
    high: int
    """Carrier after the last one in view."""

    @property
    def rate_hz(self) -> float:
        """Sample rate of the synthesis."""
        return self.fft_size * self.spacing_hz

    @property
    def carriers(self) -> NDArray[np.int64]:
        """Numbers of the carriers in view."""
        return np.arange(self.low, self.high)


def fits(low: int, high: int, spacing_hz: float, view_hz: float) -> bool:
    """Whether carriers [low, high) are inside the view with room to shift them."""
    return (high - low) * spacing_hz <= 0.92 * view_hz


def look(view_hz: float, spacing_hz: float, low: int, high: int, centre: int = 0, fft_size: int = 0) -> Band:
    """The smallest even FFT that holds the carriers [low, high) inside a view around `centre`.

    Parameters
    ----------
    view_hz : receiver's sample rate.
    spacing_hz : subcarrier spacing.
    low, high : carriers of the signal.
    centre : carrier at the centre of the view.
    fft_size : use this size instead; 0: the smallest.

    Raises
    ------
    ValueError : no carrier is in view.
    """
    if not fft_size:
        reach = 2 * max(high - centre, centre - low, 2)
        seen = view_hz * 1.06 / spacing_hz  # a margin for the channel's carrier offset
        fft_size = 2 * scipy.fft.next_fast_len(max(int(np.ceil(min(1.12 * reach, seen) / 2)), 3))
    half = fft_size // 2
    band = Band(fft_size, spacing_hz, centre, max(low, centre - half), min(high, centre + half))
    if band.low >= band.high:
        raise ValueError(f"look: found carriers [{low}, {high}) outside the view around {centre}, expected an overlap")
    return band


def qam(rng: np.random.Generator, shape: tuple[int, ...], order: int) -> NDArray[np.complex64]:
    """Random square QAM of `order` points (4, 16, 64, 256) with mean power 1."""
    side = int(np.sqrt(order))
    levels = (2 * np.arange(side) - side + 1) / np.sqrt(2 * (order - 1) / 3)
    points = (levels[:, None] + 1j * levels[None, :]).ravel().astype(np.complex64)
    index = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8) & (order - 1)
    return points[index].reshape(shape)


def modulate(grid: NDArray, band: Band, prefix_s: NDArray, length_s: NDArray, ramp_s: float = 0.0) -> IQ:
    """OFDM symbols to samples.

    A symbol longer than prefix and useful part repeats itself. A symbol may start between samples: the carriers are
    rotated by the fraction.

    Parameters
    ----------
    grid : [rows, carriers in view].
    band : carriers in view.
    prefix_s : [rows], cyclic prefix in seconds.
    length_s : [rows], whole symbol in seconds.
    ramp_s : length of the raised cosine with which a symbol fades into the next.
    """
    size, rate_hz = band.fft_size, band.rate_hz
    start = np.concatenate(([0.0], np.cumsum(length_s))) * rate_hz
    edge = np.ceil(start - 1e-6).astype(np.int64)
    useful = start[:-1] + prefix_s * rate_hz
    whole = np.rint(useful).astype(np.int64)
    step = np.rint((whole - useful) * SHIFT_STEPS).astype(np.int64)
    carriers = band.carriers - band.centre
    if step.any():
        turns = np.arange(-SHIFT_STEPS, SHIFT_STEPS + 1)[:, None] * (carriers / (SHIFT_STEPS * size))
        grid = grid * np.exp(2j * np.pi * turns).astype(np.complex64)[step + SHIFT_STEPS]
    spectrum = np.zeros((len(grid), size), np.complex64)
    split = int(np.searchsorted(carriers, 0))
    if split:
        spectrum[:, carriers[0] + size : carriers[split - 1] + size + 1] = grid[:, :split]
    if split < len(carriers):
        spectrum[:, carriers[split] : carriers[-1] + 1] = grid[:, split:]
    body = scipy.fft.ifft(spectrum, axis=1, overwrite_x=True, workers=1).astype(np.complex64, copy=False).ravel()
    count = np.diff(edge)
    position = np.arange(edge[-1]) - np.repeat(whole, count)
    out = body[position % size + np.repeat(np.arange(len(grid)) * size, count)]
    _fade(out, body, edge, whole, size, min(int(ramp_s * rate_hz), int(count.min())))
    return out


def _fade(out: IQ, body: IQ, edge: NDArray, whole: NDArray, size: int, ramp: int) -> None:
    """Overlap the first `ramp` samples of each symbol with the cyclic suffix of the one before, in place."""
    if ramp < 1 or len(whole) < 2:
        return
    up = (0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)).astype(np.float32)
    at = edge[1:-1, None] + np.arange(ramp)
    before = (at - whole[:-1, None]) % size + np.arange(len(whole) - 1)[:, None] * size
    out[at] = up * out[at] + (1 - up) * body[before]


def window(rng: np.random.Generator, length_s: NDArray, active: NDArray, duration_s: float) -> float:
    """A random start in seconds of a window of `duration_s` that overlaps some active rows.

    Parameters
    ----------
    length_s : [rows], symbol lengths in seconds.
    active : bool [rows].
    duration_s : length of the window.

    Raises
    ------
    SilentWindow : no row is active, or the rows are too short.
    """
    end = np.cumsum(length_s)
    begin = end - length_s
    last_start = end[-1] - duration_s - 2 * length_s.max()
    if last_start < 0 or not active.any():
        raise SilentWindow(
            f"window: found {end[-1]} s with {active.sum()} active rows, expected more than {duration_s} s"
        )
    start = rng.uniform(0, last_start)
    met = np.clip(np.minimum(end, start + duration_s) - np.maximum(begin, start), 0, None)[active].sum()
    if met < min(0.2 * duration_s, 60e-6):
        inside = np.flatnonzero(active & (begin < last_start + duration_s / 2))
        row = int(rng.choice(inside if len(inside) else np.flatnonzero(active)))
        near, far = sorted((begin[row], end[row] - duration_s))
        start = rng.uniform(near, far)
    return float(np.clip(start, 0, last_start))


def render(
    rng: np.random.Generator,
    gain: Gain,
    fixed: Fixed,
    band: Band,
    prefix_s: NDArray,
    length_s: NDArray,
    duration_s: float,
    order: int = 4,
    ramp_s: float = 0.0,
) -> IQ:
    """Random QAM with given amplitudes, cut to a random window.

    Parameters
    ----------
    rng : random generator.
    gain : amplitudes [rows, carriers in view].
    fixed : known sequences as (row, first carrier, values); a value of 0 silences the carrier.
    band, prefix_s, length_s, ramp_s : as for `modulate`.
    duration_s : length of the window in seconds.
    order : points of the QAM.
    """
    active = gain.any(axis=1)
    fixed = [item for item in fixed if item[1] < band.high and item[1] + len(item[2]) > band.low]
    active[[row for row, _, _ in fixed]] = True
    start_s = window(rng, length_s, active, duration_s)
    end = np.cumsum(length_s)
    first = int(np.searchsorted(end, start_s, side="right"))
    last = min(int(np.searchsorted(end, start_s + duration_s, side="right")) + 2, len(gain))
    grid = qam(rng, gain[first:last].shape, order) * gain[first:last]
    for row, carrier, values in fixed:
        if first <= row < last:
            low, high = max(carrier, band.low), min(carrier + len(values), band.high)
            grid[row - first, low - band.low : high - band.low] = values[low - carrier : high - carrier]
    iq = modulate(grid, band, prefix_s[first:last], length_s[first:last], ramp_s)
    skip = int((start_s - (end[first] - length_s[first])) * band.rate_hz)
    return iq[skip : skip + sample_count(duration_s, band.rate_hz)]


def runs(rng: np.random.Generator, count: int, duty: float, mean_run: float) -> tuple[NDArray, NDArray]:
    """On/off traffic over `count` slots with geometric bursts: (bool on [count], number of the run [count])."""
    duty = float(np.clip(duty, 0.0, 1.0))
    if duty in (0.0, 1.0):
        return np.full(count, duty == 1.0), np.arange(count) // max(int(mean_run), 1)
    mean_off = max(mean_run * (1 - duty) / duty, 1.0)
    pairs = int(2 * count / (mean_run + mean_off)) + 8
    lengths = np.empty(2 * pairs, np.int64)
    lengths[0::2] = rng.geometric(1 / max(mean_run, 1.0), pairs)
    lengths[1::2] = rng.geometric(1 / mean_off, pairs)
    lengths[-1] += count  # the last run always reaches the end
    number = np.repeat(np.arange(2 * pairs), np.minimum(lengths, count))
    skip = int(rng.integers(0, max(len(number) - 2 * count, 0) + 1)) if len(number) > 2 * count else 0
    number = number[skip : skip + count]
    return number % 2 == 0, number - number[0]


def allocate(rng: np.random.Generator, n_slots: int, n_blocks: int, load: float, group: int) -> Gain:
    """Amplitude of the data in every slot and resource block: a few users with contiguous blocks or groups of blocks.

    Parameters
    ----------
    rng : random generator.
    n_slots, n_blocks : size of the result.
    load : share of the time that is used, 0 to 1.
    group : resource blocks of an allocation group.

    Returns
    -------
    float32 [n_slots, n_blocks].
    """
    gain = np.zeros((n_slots, n_blocks), np.float32)
    if load >= 0.99:
        gain[:] = 1
        return gain
    block = np.arange(n_blocks)
    for _ in range(int(rng.integers(1, 4)) if load > 0 else 0):
        on, number = runs(rng, n_slots, load, float(np.exp(rng.uniform(0, np.log(40)))))
        level = 10 ** (rng.choice([-6, -4.77, -3, -1.77, 0, 1, 2]) / 20)  # P_A of TS 36.213 clause 5.2
        if rng.random() < 0.3:
            number = np.arange(n_slots)  # scheduled anew in every slot
        drawn = int(number.max()) + 1
        if rng.random() < 0.5:
            width = np.ceil(rng.beta(0.7, 1.0 + 2 * (1 - load), drawn) * n_blocks)[number, None]
            begin = np.floor(rng.random(drawn)[number, None] * (n_blocks - width + 1))
            chosen = (block >= begin) & (block < begin + width)
        else:
            share = rng.beta(0.8, 1.2, drawn)[number, None]
            picked = rng.random((drawn, -(-n_blocks // group)))[number] < share
            chosen = picked[:, block // group]
        gain[chosen & on[:, None]] = level
    return gain
