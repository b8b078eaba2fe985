# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings as a detector and a zoom see them: occupied regions, mixed to the centre and decimated.

A plain detector of energy for evaluation; nothing here is for live streams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Samples = NDArray[np.complex64]
THRESHOLD_DB = 7.0  # over the floor, after smoothing
FILLS = 0.75  # of the band: from here on a signal is seen whole
ROWS = 400  # of the map in which regions are looked for


@dataclass(frozen=True)
class Found:
    """A region: samples [start, stop), band [low_hz, high_hz], its energy over the floor (any unit)."""

    start: int
    stop: int
    low_hz: float
    high_hz: float
    energy: float


def regions(iq: Samples, rate_hz: float, most: int = 4, size: int = 256) -> list[Found]:
    """Up to `most` regions of iq [n] at rate_hz, the strongest first; none where nothing stands over the floor.

    The floor is a low quantile over time and then over frequency, so that a signal that is always on is found too.
    """
    frames = iq[: len(iq) // size * size].reshape(-1, size)
    each = max(1, len(frames) // ROWS)
    frames = frames[: len(frames) // each * each]
    window = np.hanning(size).astype(np.float32)
    power = np.abs(fft.fftshift(fft.fft(frames * window, axis=1), axes=1)) ** 2
    power = power.reshape(-1, each, size).mean(axis=1)
    heard = power.sum(axis=1) > 0  # not the zeros of a squelch
    if heard.sum() < 2:
        return []
    smooth = ndimage.uniform_filter(power, (3, 3), mode="nearest")
    floor = np.quantile(smooth[heard], 0.15)
    mask = smooth > floor * 10 ** (THRESHOLD_DB / 10)
    mask = ndimage.binary_closing(mask, np.ones((7, 5)), border_value=0) | mask
    marked, _ = ndimage.label(mask)
    found = []
    for k, (rows, columns) in enumerate(ndimage.find_objects(marked)):
        mine = marked[rows, columns] == k + 1
        energy = float(power[rows, columns][mine].sum())
        if mine.sum() < 4:
            continue
        # The clicks of hard keying are as wide as the band: a column counts that is on in a tenth of the rows.
        on = columns.start + np.flatnonzero(mine.mean(axis=0) >= 0.1 * mine.mean(axis=0).max())
        low, high = ((edge - size / 2 - 0.5) * rate_hz / size for edge in (on[0], on[-1] + 1))
        found.append(Found(rows.start * each * size, rows.stop * each * size, low, high, energy))
    found = [f for f in found if f.energy > 0.02 * max(g.energy for g in found)]
    return sorted(found, key=lambda f: -f.energy)[:most]


def fills_band(region: Found, rate_hz: float) -> bool:
    """Whether the region is the whole band, which is then seen as it is."""
    return region.high_hz - region.low_hz > FILLS * rate_hz


def zoom(
    iq: Samples, rate_hz: float, region: Found, factor: float, min_samples: int, most_samples: int
) -> tuple[Samples, float]:
    """The region mixed to the centre and decimated to about `factor` times its width; the samples and their rate.

    At least min_samples (more of what is around it, or a higher rate, where it is short), at most most_samples.
    """
    width_hz = region.high_hz - region.low_hz
    new_hz = min(max(width_hz * factor, 1.5 * width_hz), rate_hz)
    length_s = (region.stop - region.start) / rate_hz
    if length_s * new_hz < min_samples:
        new_hz = min(min_samples / length_s, rate_hz, 12 * width_hz)
    span = int(np.ceil(max(length_s * 1.05, min_samples * 1.01 / new_hz) * rate_hz))
    span = min(span, int(most_samples * rate_hz / new_hz), len(iq))
    start = int(np.clip((region.start + region.stop - span) // 2, 0, len(iq) - span))
    piece = iq[start : start + span]
    spectrum = fft.fft(piece)
    kept = round(span * new_hz / rate_hz)
    kept = min(max(kept, 64), span)
    middle = round((region.low_hz + region.high_hz) / 2 * span / rate_hz)
    index = (np.arange(kept) - kept // 2 + middle) % span
    out = fft.fftshift(spectrum)[(index + span // 2) % span]
    edge = max(1, kept // 12)
    taper = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
    out[:edge] *= taper
    out[-edge:] *= taper[::-1]
    new = fft.ifft(fft.ifftshift(out)) * (kept / span)
    return np.ascontiguousarray(new[:most_samples], np.complex64), rate_hz * kept / span
