# SPDX-License-Identifier: GPL-3.0-or-later
"""The detector's blocks in the units of the stream: pieces with their edges, power and place in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .extent import Spectrum, extent


@dataclass(frozen=True, slots=True)
class Piece:
    """What was on the air without a pause within one block.

    Attributes
    ----------
    start, stop : int
        Rows of the stream, the last excluded.
    raw_low, raw_high : int
        Bins that stood over the floor.
    low, high : float
        Bins that belong to the signal; see `extent`.
    energy : float64 [raw_high - raw_low]
        Sum over the rows of the power over the floor in each of these bins.
    floor : float32 [raw_high - raw_low]
        Noise power in each of these bins.
    cells : int
        Cells, of a row and a bin, that stood over the floor.
    """

    start: int
    stop: int
    raw_low: int
    raw_high: int
    low: float
    high: float
    energy: NDArray[np.float64]
    floor: Spectrum
    cells: int

    @property
    def rows(self) -> int:
        """On the air."""
        return self.stop - self.start

    @property
    def width(self) -> float:
        """In bins, of what belongs to the signal."""
        return self.high - self.low

    @property
    def total(self) -> float:
        """All of the energy."""
        return float(self.energy.sum())


@dataclass(frozen=True, slots=True)
class Block:
    """One judged block.

    Attributes
    ----------
    start, stop : int
        Rows of the stream, the last excluded.
    floor, mean : float32 [fft_size]
        Noise power and mean power of each bin, relative to full scale.
    row_power : float32 [rows]
        Sum over the bins of power over floor, in each row.
    pieces : list of Piece
        In the order of falling energy.
    n_nonfinite : int
        Samples that were NaN or infinite and were taken as zero.
    """

    start: int
    stop: int
    floor: Spectrum
    mean: Spectrum
    row_power: Spectrum
    pieces: list[Piece]
    n_nonfinite: int


def block_of(made: tuple[Any, ...]) -> Block:
    """What `_kernels.BandDetector` returns, as a Block."""
    first_row, floor, mean, row_power, pieces, n_nonfinite = made
    found = [_piece(first_row, floor, *piece) for piece in pieces]
    found.sort(key=lambda piece: piece.total, reverse=True)
    return Block(first_row, first_row + row_power.size, floor, mean, row_power, found, n_nonfinite)


def _piece(
    first_row: int, floor: Spectrum, start: int, stop: int, low: int, high: int, cells: int, spectrum: Spectrum
) -> Piece:
    under = floor[low:high]
    excess = np.maximum(spectrum - under, 0)
    rows = stop - start
    core_low, core_high = extent(excess, under, rows)
    energy = excess.astype(np.float64) * rows
    return Piece(first_row + start, first_row + stop, low, high, low + core_low, low + core_high, energy, under, cells)
