# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a signal reaches in a spectrum: the bins within 20 dB of its strongest, over what the noise may do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.float32]

DEPTH = 1e-2  # 20 dB
FREEDOM_PER_ROW = 3.8  # chi-square degrees of freedom of one bin of one row
SIGMAS = 4.0
DC_BINS = 3  # on either side of the band's middle
OTHER_BINS = 12  # over the noise beside them, for which the line there is left out
WIDE_BINS = 32  # from which on a signal is wide
WIDE_PARTS = 8  # of its width, that means are taken over
CORRELATED = 2.0  # Hann bins that count as one
CLIPPED = 0.4  # mean of the positive part of the noise, over its standard deviation
LEAST_SHARE = 0.5  # of the noise, over it


def noise_share(rows: float) -> float:
    """Standard deviation of the noise's mean over `rows` rows, relative to it."""
    return float(np.sqrt(2 / (FREEDOM_PER_ROW * max(rows, 1.0))))


def extent(excess: Spectrum, floor: Spectrum, rows: float, middle: int = -1) -> tuple[float, float]:
    """First bin and the bin after the last that belong to the signal; the hull of its parts.

    Parameters
    ----------
    excess : float32 [n]
        Mean power over the floor in each bin.
    floor : float32 [n]
        Noise power in each bin.
    rows : float
        Rows that the mean is of.
    middle : int
        Place of the band's middle among the bins, if it is: the receiver's DC line there does not count where
        something else does.
    """
    if 0 <= middle < excess.size:
        rest = excess.copy()
        rest[max(0, middle - DC_BINS) : middle + DC_BINS + 1] = 0
        if np.count_nonzero(rest > LEAST_SHARE * floor) >= OTHER_BINS:
            excess = rest
    smooth = np.convolve(excess, np.full(3, 1 / 3, np.float32), "same") if excess.size >= 3 else excess
    peak = float(excess.max(initial=0.0))
    threshold = np.maximum(DEPTH * peak, SIGMAS * noise_share(rows) * floor)
    inside = np.flatnonzero((excess > threshold) & (smooth > threshold / 3))
    if inside.size == 0:
        top = int(np.argmax(excess))
        return float(top), float(top + 1)
    low, high = int(inside[0]), int(inside[-1]) + 1
    return _wide_extent(excess, floor, rows, low, high) if high - low >= WIDE_BINS else (float(low), float(high))


def _wide_extent(excess: Spectrum, floor: Spectrum, rows: float, low: int, high: int) -> tuple[float, float]:
    """The same of a wide signal, whose means over many bins stand out farther than single bins do."""
    width = (high - low) // WIDE_PARTS
    mean = np.convolve(excess, np.full(width, 1 / width, np.float32), "same")
    one = noise_share(rows)
    noise = CLIPPED * one + SIGMAS * one / np.sqrt(width / CORRELATED)
    inside = np.flatnonzero(mean > np.maximum(DEPTH * float(mean.max()), noise * floor))
    if inside.size:
        low, high = min(low, int(inside[0]) + width // 2), max(high, int(inside[-1]) + 1 - width // 2)
    return float(low), float(high)


@dataclass
class ExcessSum:
    """Power over the floor, summed over rows, in a span of bins that grows.

    Attributes
    ----------
    low : int
        First bin.
    energy : float64 [n]
        Sum over rows of the power over the floor.
    floor : float32 [n]
        The last floor.
    """

    low: int = 0
    energy: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    floor: Spectrum = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def high(self) -> int:
        """The bin after the last."""
        return self.low + self.energy.size

    def add(self, low: int, energy: NDArray[np.float64], floor: Spectrum) -> None:
        """More energy [n] in the bins from `low` on; `floor` [n] is theirs."""
        if self.energy.size == 0:
            self.low, self.energy, self.floor = low, energy.astype(np.float64), floor.astype(np.float32)
        else:
            self._reach(low, low + energy.size)
            at = slice(low - self.low, low - self.low + energy.size)
            self.energy[at] += energy
            self.floor[at] = floor

    def _reach(self, low: int, high: int) -> None:
        before, after = max(0, self.low - low), max(0, high - self.high)
        if before or after:
            self.energy = np.pad(self.energy, (before, after))
            self.floor = np.pad(self.floor, (before, after), mode="edge")
            self.low -= before
