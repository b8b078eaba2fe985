# SPDX-License-Identifier: GPL-3.0-or-later
"""A signal that fills the band all the time stands over no floor: whether the samples are more than coloured noise."""

from __future__ import annotations

import numpy as np

from ..types import Samples
from .extent import Spectrum
from .pieces import Block
from .track import Track

SAMPLES = 1 << 18  # of the last ones, at most, whose autocorrelation is looked at
NEAR_LAG = 64  # up to which a receiver's filter correlates its noise
SIGMAS = 9.0  # of an autocorrelation peak over what the other lags show
UNEVEN = 2.5  # times noise's own spread, of the power from row to row
ROW_SPREAD = 2 / 3.8 * 1.94  # variance of a bin of one row of noise over its mean squared, neighbours counted
WIDE_DEPTH = 0.05  # of the band's usual power: its edges are where it falls below
NAMELESS = ("noise", "unknown", "")


def repeats(samples: Samples) -> bool:
    """Whether samples resemble themselves some time later, as cyclic prefixes, pilots and training make them.

    A receiver's noise, whatever its colour, does so over a few samples only; a line does so at all lags alike, which
    the median takes out.
    """
    n = 1 << int(np.log2(max(samples.size, 1)))
    if n < 4096:
        return False
    spectrum = np.fft.fft(samples[-n:], 2 * n)
    lags = np.fft.ifft(np.abs(spectrum) ** 2)[NEAR_LAG : n // 2]
    power = np.abs(lags) ** 2
    usual = float(np.median(power))
    # |r|^2 of noise is exponential: its largest of n is about ln n times the mean
    return bool(power.max() > (np.log(n) + SIGMAS) * usual / np.log(2))


def is_uneven(block: Block) -> bool:
    """Whether the whole band's power varies from row to row as noise's does not: pauses, frames, bursts."""
    if block.row_power.size < 16:
        return False
    expected = np.sqrt(block.floor.size * ROW_SPREAD) * block.row_power.mean() / block.floor.size
    return bool(block.row_power.std() > UNEVEN * expected)


def wide_extent(mean: Spectrum) -> tuple[int, int]:
    """First bin and the bin after the last of what fills the band."""
    inside = np.flatnonzero(mean > WIDE_DEPTH * np.median(mean))
    return int(inside[0]), int(inside[-1]) + 1


def whole_track(number: int, block: Block, first_row: int) -> Track:
    """What may fill the band, as one block shows it, since first_row."""
    low, high = wide_extent(block.mean)
    track = Track(number, first_row, first_row, low, high, low, high, reach_low=low, reach_high=high)
    track.hear(first_row, block.start)
    extend(track, block)
    track.kind = "whole"
    return track


def extend(track: Track, block: Block) -> None:
    """One block more of it."""
    track.hear(block.start, block.stop)
    n = int(track.high) - int(track.low)
    span = slice(int(track.low), int(track.high))
    track.total.add(int(track.low), block.mean[span].astype(np.float64) * (block.stop - block.start), block.floor[span])
    track.cells += n * (block.stop - block.start)
