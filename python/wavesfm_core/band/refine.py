# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges of one emitter, measured anew in a zoomed view, and whether it is nothing but a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Samples
from .extent import DEPTH
from .views import Zoomed

BINS = 256
FRAMES = 4096  # at most, spread over the view
ON_AIR = 0.2  # of the power of the strongest tenth of the frames
LINE_REST = 0.003  # of a line's power that may lie beside it
LINE_VARIATION = 0.3  # standard deviation of a line's power over its mean
NARROW_HZ = 60e3  # up to which a carrier is not taken for all of a signal
CLIP = 2.0  # times the strongest beside it
OUTSIDE = 0.02  # of the power, on either side of the edges


@dataclass(frozen=True)
class Edges:
    """Of an emitter: low_hz and high_hz from the middle of the band; is_line: a constant carrier and nothing else."""

    low_hz: float
    high_hz: float
    is_line: bool


def frames_of(samples: Samples) -> NDArray[np.float32]:
    """Power of Hann frames that overlap by half, float32 [frames, BINS], frequency rising; at most FRAMES of them."""
    if samples.size < BINS:
        samples = np.pad(samples, (0, BINS - samples.size))
    window = np.hanning(BINS + 1)[:-1].astype(np.float32)
    window /= np.sqrt(np.mean(window**2)) * BINS
    frames = np.lib.stride_tricks.sliding_window_view(samples, BINS)[:: BINS // 2]
    frames = frames[:: max(1, len(frames) // FRAMES)]
    power: NDArray[np.float32] = np.abs(np.fft.fftshift(np.fft.fft(frames * window, axis=1), axes=1)) ** 2
    return power.astype(np.float32)


def refine(view: Zoomed, low_hz: float, high_hz: float, noise: float) -> Edges | None:
    """Edges within low_hz to high_hz (from the middle of the band), or None where nothing stands out there.

    noise: power of one of the view's BINS bins without a signal, relative to full scale.
    """
    power = frames_of(view.samples)
    step = view.rate_hz / BINS
    offset = BINS // 2 - view.centre_hz / step
    first = int(np.clip(np.floor(low_hz / step + offset), 0, BINS - 1))
    last = int(np.clip(np.ceil(high_hz / step + offset) + 1, first + 1, BINS))
    power = power[:, first:last]
    power = power[_on_air(power.sum(1))]
    excess = np.maximum(power.mean(0) - noise, 0)
    least = noise * max(0.5, 4 / np.sqrt(len(power)))
    if not (excess > least).any():
        return None
    if high_hz - low_hz < NARROW_HZ:
        clipped = _without_line(excess)
        excess = clipped if (clipped > least).any() else excess
    low, high = _hull(excess, least)
    a, b = _occupied(excess, *_around_peak(excess, least, low, high))
    low, high = min(low, a), max(high, b)
    return Edges((first + low - offset - 0.5) * step, (first + high - offset - 0.5) * step, _is_line(power, noise))


def _on_air(power: NDArray[np.float32]) -> NDArray[np.bool_]:
    strongest = np.sort(power)[-max(1, power.size // 10) :].mean()
    on: NDArray[np.bool_] = power >= ON_AIR * strongest
    return on


def _hull(excess: NDArray[np.float32], least: float) -> tuple[int, int]:
    inside = np.flatnonzero(excess > max(DEPTH * float(excess.max()), least))
    return int(inside[0]), int(inside[-1]) + 1


def _around_peak(excess: NDArray[np.float32], least: float, low: int, high: int) -> tuple[int, int]:
    """From the hull outwards while the spectrum stays above what lies beside it; small gaps do not count."""
    rest = np.concatenate([excess[:low], excess[high:]])
    level = max(least, 2 * float(np.median(rest)) if rest.size >= 8 else 0.0)
    while True:
        reach = max(3, (high - low) // 5)
        left = np.flatnonzero(excess[max(0, low - reach) : low] > level)
        right = np.flatnonzero(excess[high : high + reach] > level)
        if left.size == 0 and right.size == 0:
            return low, high
        if left.size:
            low = max(0, low - reach) + int(left[0])
        if right.size:
            high += int(right[-1]) + 1


def _occupied(excess: NDArray[np.float32], low: int, high: int) -> tuple[int, int]:
    total = np.cumsum(excess[low:high], dtype=np.float64)
    share = total / total[-1]
    return low + int(np.searchsorted(share, OUTSIDE)), low + int(np.searchsorted(share, 1 - OUTSIDE)) + 1


def _without_line(excess: NDArray[np.float32]) -> NDArray[np.float32]:
    """The five bins around the strongest brought down towards the rest: the sidebands of a carrier then count."""
    top = int(np.argmax(excess))
    near = slice(max(0, top - 2), top + 3)
    rest = np.delete(excess, near)
    clipped = excess.copy()
    clipped[near] = np.minimum(clipped[near], CLIP * rest.max(initial=0.0) if rest.any() else np.inf)
    return clipped


def _is_line(power: NDArray[np.float32], noise: float) -> bool:
    """Whether one bin and its neighbours hold all that is more than noise, and hold it evenly over time."""
    mean = power.mean(0)
    top = int(np.argmax(mean))
    near = slice(max(0, top - 3), top + 4)
    rest = np.delete(mean, near)
    if len(power) < 8 or rest.size < 8:
        return False
    level = min(noise, float(np.median(rest)))
    spread = 4 * level * np.sqrt(rest.size / len(power))
    line = power[:, near].sum(1)
    if float(rest.sum()) - rest.size * level > max(LINE_REST * float(line.mean()), spread):
        return False
    return bool(line.std() < LINE_VARIATION * line.mean())
