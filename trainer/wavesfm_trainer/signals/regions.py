# SPDX-License-Identifier: GPL-3.0-or-later
"""Regions of a signal in time and frequency as a detector finds them over the noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from .base import Emission, SilentWindow

FIRST_FRAME = 32


@dataclass(frozen=True)
class Region:
    """Where a signal stands in an emission: frames as seconds [start_s, stop_s), its band, its mean power there.

    anchor_s: a time at which it is on the air.
    """

    start_s: float
    stop_s: float
    low_hz: float
    high_hz: float
    power: float
    anchor_s: float


def find_region(rng: np.random.Generator, emission: Emission, snr_db: float) -> Region:
    """A region of the emission where it stands over the noise, drawn by its energy; its bursts may be joined."""
    iq, rate_hz = emission.iq, emission.rate_hz
    size = 2 ** int(np.clip(round(np.log2(rate_hz / max(emission.occupied_hz, 1.0) * rng.uniform(8, 20))), 5, 11))
    size = max(min(size, 2 ** int(np.log2(max(len(iq) // 4, FIRST_FRAME)))), FIRST_FRAME)
    frames = iq[: len(iq) // size * size].reshape(-1, size)
    step = max(1, len(frames) // 3000)
    frames = frames[: len(frames) // step * step]
    window = np.hanning(size).astype(np.float32) * np.float32(np.sqrt(8 / 3))
    power = np.abs(fft.fft(frames * window, axis=1)) ** 2 / size**2
    power = fft.fftshift(power.reshape(-1, step, size).mean(axis=1), axes=1)
    smooth = ndimage.uniform_filter(power, (3, 3), mode="nearest")
    noise = 10 ** (-snr_db / 10) / emission.occupied_hz * rate_hz / size
    threshold = min(max(2.0 * noise, smooth.max() * 10**-4.5), smooth.max() * 0.5)
    above = (smooth > threshold).astype(np.uint8)
    reach = (int(rng.choice([3, 5, 9])), 3)
    found = ndimage.minimum_filter(ndimage.maximum_filter(above, reach), reach) > 0
    found |= above > 0
    marked, count = ndimage.label(found)
    if not count:
        raise SilentWindow("find_region: found nothing over the noise, expected a signal")
    energy = ndimage.sum_labels(power, marked, np.arange(1, count + 1))
    odds = np.sqrt(np.maximum(energy, 0)) * (energy > energy.max() * 1e-3)
    chosen = 1 + int(rng.choice(count, p=odds / odds.sum()))
    return _bounds(rng, power, marked, chosen, step * size / rate_hz, rate_hz / size)


def _bounds(rng, power: NDArray, marked: NDArray, chosen: int, frame_s: float, bin_hz: float) -> Region:
    rows, columns = ndimage.find_objects(marked)[chosen - 1]
    mine = np.where(marked[rows, columns] == chosen, power[rows, columns], 0)
    # Most detectors give what stands over the noise, some what holds nearly all of the power.
    weights = mine.sum(axis=0) if rng.random() < 0.3 else (mine > 0).sum(axis=0)
    share = np.cumsum(weights) / weights.sum()
    tail = 10 ** rng.uniform(-3, -1.7)
    low = columns.start + int(np.searchsorted(share, tail))
    high = columns.start + int(np.searchsorted(share, 1 - tail)) + 1
    first, last = rows.start, rows.stop
    if rng.random() < 0.35:  # an emitter: all its bursts of this place
        first, last = 0, len(power)
    on = np.flatnonzero((marked[first:last, low:high] > 0).any(axis=1)) + first
    level = float(power[on][:, low:high].sum(axis=1).mean()) + 1e-12
    middle = power.shape[1] // 2
    edges_hz = ((low - middle - 0.5) * bin_hz, (high - middle - 0.5) * bin_hz)
    return Region(first * frame_s, last * frame_s, *edges_hz, level, (float(rng.choice(on)) + rng.random()) * frame_s)


def piece_of(rng: np.random.Generator, region: Region) -> Region:
    """Part of the band or of the time, as a detector that breaks a signal up gives it."""
    share = rng.uniform(0.3, 0.85)
    first = rng.random() * (1 - share)
    if rng.random() < 0.6:
        width = region.high_hz - region.low_hz
        return replace(region, low_hz=region.low_hz + first * width, high_hz=region.low_hz + (first + share) * width)
    length = region.stop_s - region.start_s
    start_s = region.start_s + first * length
    start_s = float(np.clip(start_s, region.anchor_s - share * length, region.anchor_s))
    return replace(region, start_s=start_s, stop_s=start_s + share * length)
