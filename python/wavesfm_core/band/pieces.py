# SPDX-License-Identifier: GPL-3.0-or-later
"""The detector's blocks in the units of the stream: pieces with their edges, power and place in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .extent import Spectrum, extent

DC_WIDTH = 10  # bins that the receiver's DC line may take
NEAR_ROWS = 1  # within which two pieces begin and end together
GAP_BINS = 8  # between them, at most, or
GAP_WIDTHS = 2.0  # as many of the wider one's width
SIDE_BINS = 2  # by which a row reaches over a cut without being on both sides
CUT_BINS = 8  # of either part of a piece that is cut in two
CUT_SHARE = 0.01  # of its energy
CUT_DEPTH = 4.0  # times the valley, that either part reaches
UNEQUAL = 100.0  # times the energy of one that the other may have


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
    row_low, row_high : int64 [rows]
        First bin that stood over the floor in each row, and the one after the last; equal in a pause.
    total : float
        All of the energy.
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
    row_low: NDArray[np.int64]
    row_high: NDArray[np.int64]
    total: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", float(self.energy.sum()))

    @property
    def rows(self) -> int:
        """On the air."""
        return self.stop - self.start

    @property
    def width(self) -> float:
        """In bins, of what belongs to the signal."""
        return self.high - self.low

    def cut(self, at: int) -> tuple[Piece, Piece] | None:
        """Below and above the lowest bin near `at`, if that is a valley between two that are worth it; else None."""
        place = at - self.raw_low
        reach = max(4, self.energy.size // 50)
        if place < reach or place > self.energy.size - reach:
            return None
        smooth = np.convolve(self.energy, np.ones(5) / 5, "same")
        lowest = place - reach + int(np.argmin(smooth[place - reach : place + reach]))
        sides = self.energy[:lowest], self.energy[lowest:]
        if min(side.size for side in sides) < CUT_BINS or min(side.sum() for side in sides) < CUT_SHARE * self.total:
            return None
        if smooth[lowest] * CUT_DEPTH > min(float(smooth[:lowest].max()), float(smooth[lowest:].max())):
            return None
        return self._side(0, lowest), self._side(lowest, self.energy.size)

    def _side(self, low: int, high: int) -> Piece:
        energy, floor = self.energy[low:high], self.floor[low:high]
        first, last = self.raw_low + low, self.raw_low + high
        on = np.flatnonzero((self.row_low < last - SIDE_BINS) & (self.row_high > first + SIDE_BINS))
        begin, end = (int(on[0]), int(on[-1]) + 1) if on.size else (0, self.rows)
        core = extent((energy / (end - begin)).astype(np.float32), floor, end - begin)
        cells = self.cells * (high - low) // self.energy.size
        rows = [np.clip(edges[begin:end], first, last) for edges in (self.row_low, self.row_high)]
        start, stop = self.start + begin, self.start + end
        return Piece(start, stop, first, last, first + core[0], first + core[1], energy, floor, cells, *rows)


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
    stop = first_row + row_power.size
    found = _rejoined([_piece(first_row, floor, *piece) for piece in pieces], first_row, stop, floor.size // 2)
    found.sort(key=lambda piece: piece.total, reverse=True)
    return Block(first_row, stop, floor, mean, row_power, found, n_nonfinite)


def _piece(
    first_row: int,
    floor: Spectrum,
    start: int,
    stop: int,
    low: int,
    high: int,
    cells: int,
    spectrum: Spectrum,
    *row_edges: NDArray[np.uint32],
) -> Piece:
    under = floor[low:high]
    excess = np.maximum(spectrum - under, 0)
    rows = stop - start
    core_low, core_high = extent(excess, under, rows, floor.size // 2 - low)
    energy = excess.astype(np.float64) * rows
    core = low + core_low, low + core_high
    row_low, row_high = (each.astype(np.int64) for each in row_edges)
    rest = _without_dc(row_low, row_high, floor.size // 2)
    start, stop = first_row + start + rest.start, first_row + start + rest.stop
    return Piece(start, stop, low, high, *core, energy, under, cells, row_low[rest], row_high[rest])


def _without_dc(row_low: NDArray[np.int64], row_high: NDArray[np.int64], middle: int) -> slice:
    """The rows from the first to the last that hold more than the receiver's DC line; all where no row does."""
    reach = DC_WIDTH // 2
    more = np.flatnonzero((row_high > row_low) & ((row_low < middle - reach) | (row_high > middle + reach + 1)))
    return slice(int(more[0]), int(more[-1]) + 1) if more.size else slice(0, row_low.size)


def _rejoined(pieces: list[Piece], start: int, stop: int, middle: int) -> list[Piece]:
    """Pieces side by side that begin and end together, and not with the block, are one: tones of a burst, its lobes."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.raw_low):
        for i, other in enumerate(joined):
            if _belong(piece, other, start, stop):
                joined[i] = _union(other, piece, middle)
                break
        else:
            joined.append(piece)
    return joined


def _belong(a: Piece, b: Piece, start: int, stop: int) -> bool:
    gap = max(a.raw_low, b.raw_low) - min(a.raw_high, b.raw_high)
    if gap < 0 or not 1 / UNEQUAL < a.total / max(b.total, 1e-300) < UNEQUAL:
        return False
    if abs(a.start - b.start) > NEAR_ROWS or abs(a.stop - b.stop) > NEAR_ROWS:
        return False
    free = (min(a.start, b.start) > start) + (max(a.stop, b.stop) < stop)
    reach = (0.0, GAP_BINS, max(GAP_BINS, GAP_WIDTHS * max(a.width, b.width)))[free]
    return gap <= reach and free > 0


def _union(a: Piece, b: Piece, middle: int) -> Piece:
    low, high = min(a.raw_low, b.raw_low), max(a.raw_high, b.raw_high)
    energy = np.zeros(high - low)
    floor = np.interp(np.arange(low, high), [a.raw_low, b.raw_low], [a.floor[0], b.floor[0]]).astype(np.float32)
    for piece in (a, b):
        at = slice(piece.raw_low - low, piece.raw_high - low)
        energy[at] += piece.energy
        floor[at] = piece.floor
    first, last = min(a.start, b.start), max(a.stop, b.stop)
    core = extent((energy / (last - first)).astype(np.float32), floor, last - first, middle - low)
    row_low, row_high = np.full(last - first, high), np.full(last - first, low)
    for piece in (a, b):
        rows, on = slice(piece.start - first, piece.stop - first), piece.row_high > piece.row_low
        row_low[rows] = np.where(on, np.minimum(row_low[rows], piece.row_low), row_low[rows])
        row_high[rows] = np.where(on, np.maximum(row_high[rows], piece.row_high), row_high[rows])
    row_low = np.minimum(row_low, row_high)
    edges = low + core[0], low + core[1]
    return Piece(first, last, low, high, *edges, energy, floor, a.cells + b.cells, row_low, row_high)
