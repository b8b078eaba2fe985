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


def noise_share(rows: float) -> float:
    """Standard deviation of the noise's mean over `rows` rows, relative to it."""
    return float(np.sqrt(2 / (FREEDOM_PER_ROW * max(rows, 1.0))))


def extent(excess: Spectrum, floor: Spectrum, rows: float) -> tuple[float, float]:
    """First bin and the bin after the last, with fractions, that belong to the signal; the hull of its parts.

    Parameters
    ----------
    excess : float32 [n]
        Mean power over the floor in each bin.
    floor : float32 [n]
        Noise power in each bin.
    rows : float
        Rows that the mean is of.
    """
    smooth = np.convolve(excess, np.full(3, 1 / 3, np.float32), "same") if excess.size >= 3 else excess
    peak = float(excess.max(initial=0.0))
    threshold = np.maximum(DEPTH * peak, SIGMAS * noise_share(rows) * floor)
    inside = np.flatnonzero((excess > threshold) & (smooth > threshold / 3))
    if inside.size == 0:
        top = int(np.argmax(excess))
        return float(top), float(top + 1)
    return float(inside[0]), float(inside[-1] + 1)


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
    rows : float
        Rows summed over.
    """

    low: int = 0
    energy: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    floor: Spectrum = field(default_factory=lambda: np.zeros(0, np.float32))
    rows: float = 0.0

    @property
    def high(self) -> int:
        """The bin after the last."""
        return self.low + self.energy.size

    def add(self, low: int, energy: NDArray[np.float64], floor: Spectrum, rows: float) -> None:
        """More energy [n] in the bins from `low` on; `floor` [n] is theirs."""
        if self.energy.size == 0:
            self.low, self.energy, self.floor = low, energy.astype(np.float64), floor.astype(np.float32)
        else:
            self._reach(low, low + energy.size)
            at = slice(low - self.low, low - self.low + energy.size)
            self.energy[at] += energy
            self.floor[at] = floor
        self.rows += rows

    def _reach(self, low: int, high: int) -> None:
        before, after = max(0, self.low - low), max(0, high - self.high)
        if before or after:
            self.energy = np.pad(self.energy, (before, after))
            self.floor = np.pad(self.floor, (before, after), mode="edge")
            self.low -= before

    def excess(self) -> Spectrum:
        """Mean power over the floor, float32 [n]."""
        return (self.energy / max(self.rows, 1.0)).astype(np.float32)

    def extent(self) -> tuple[float, float]:
        """Where the signal lies, in bins of the band."""
        low, high = extent(self.excess(), self.floor, self.rows)
        return self.low + low, self.low + high
