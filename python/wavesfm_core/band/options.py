# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be chosen of the band's analysis, and what follows from the sample rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from .._kernels import BandDetector
from ..errors import ConfigurationError

BIN_HZ = 2.5e3  # at most, so that a channel of 12.5 kHz is a few bins and parts from the next
FFT_SIZES = (128, 65536)


@dataclass(frozen=True)
class BandOptions:
    """How a band is searched and how much of what is found is looked at.

    Attributes
    ----------
    fft_size : int
        Samples of one row and bins across the band, a power of two from 128 to 65536; 0 for the smallest whose bins
        are 2.5 kHz or narrower.
    block_rows : int
        Rows that are judged together, 8 to 4096; the delay of what is live.
    false_rate : float
        Probability that a statistic of noise passes for a signal, for each cell of a row and a bin.
    hold_s : float
        Silence in seconds after which an emitter has ended; longer for one whose pauses are long.
    memory_s : float
        Seconds for which an emitter that has ended is still known when it comes back.
    dwell_s : float
        Shortest time on the air, in seconds from the first burst to the last, for which an emitter is told of at all
        unless it stands out by 6 dB and more.
    whole_share : float
        Share of the band from which on an emitter is looked at as the whole band.
    view_width : float
        Sample rate of a zoomed view, in widths of the emitter.
    least_rate_hz : float
        Least sample rate of a view; the lowest that the bundle was trained at, which `analyse_recording` sees to.
    looks_per_s : float
        Tiles that may go to the engine per second of signal; what is new and what has changed goes first.
    relook_s : float
        Seconds after which a named emitter is looked at again.
    looks_per_emitter : int
        Tiles from which on an emitter counts as named, 1 or more.
    threshold : float
        Confidence below which an emitter is "unknown", 0 to 1.
    ring_bytes : int
        Memory for the last samples, of which views are cut.
    most_emitters : int
        Emitters that are followed at the same time; the weakest give way.
    """

    fft_size: int = 0
    block_rows: int = 128
    false_rate: float = 1e-9
    hold_s: float = 0.25
    memory_s: float = 10.0
    dwell_s: float = 0.0
    whole_share: float = 0.7
    view_width: float = 1.6
    least_rate_hz: float = 20e3
    looks_per_s: float = 40.0
    relook_s: float = 2.0
    looks_per_emitter: int = 3
    threshold: float = 0.0
    ring_bytes: int = 1 << 28
    most_emitters: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError("band", field.name, value, "a number, 0 or more")
        power_of_two = self.fft_size & (self.fft_size - 1) == 0
        rules = {
            "fft_size": (
                self.fft_size == 0 or (power_of_two and FFT_SIZES[0] <= self.fft_size <= FFT_SIZES[1]),
                "0, or a power of two from 128 to 65536",
            ),
            "block_rows": (8 <= self.block_rows <= 4096, "8 to 4096"),
            "false_rate": (0 < self.false_rate < 1e-3, "more than 0 and less than 0.001"),
            "whole_share": (0 < self.whole_share <= 1, "more than 0, at most 1"),
            "view_width": (1.4 <= self.view_width <= 20, "1.4 to 20"),
            "threshold": (self.threshold <= 1, "0 to 1"),
            "looks_per_emitter": (self.looks_per_emitter >= 1, "1 or more"),
            "most_emitters": (self.most_emitters >= 1, "1 or more"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigurationError("band", name, getattr(self, name), expected)

    def bins(self, rate_hz: float) -> int:
        """The detector's transform at this sample rate in Hz."""
        if self.fft_size:
            return self.fft_size
        wanted = 1 << max(0, math.ceil(math.log2(rate_hz / BIN_HZ)))
        return min(max(wanted, FFT_SIZES[0]), FFT_SIZES[1])

    def make_detector(self, rate_hz: float) -> BandDetector:
        """A fresh detector for one stream at this sample rate in Hz."""
        return BandDetector(self.bins(rate_hz), self.block_rows, self.false_rate)
