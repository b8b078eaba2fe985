# SPDX-License-Identifier: GPL-3.0-or-later
"""Absolute time of a stream's samples, tracked through reports that jitter and drift."""

from __future__ import annotations

import math

from .. import _kernels
from ..errors import ConfigurationError
from ..types import StreamTime


class SampleClock:
    """Time of each sample from a start time and the sample rate, corrected by reported times.

    A report close to the tracked time corrects the clock: a Kalman filter of offset and drift averages jitter out and
    follows the drift between two oscillators. A report further away is a jump: samples were lost, or the time was set
    anew. The drift that reports have shown widens nothing, so that a gap of one packet is seen after hours, too.

    Parameters
    ----------
    rate_hz : float
        Sample rate; 0.0 when unknown, and then only reported samples have a time.
    time : StreamTime or None
        Time of `sample`; None when unknown.
    sample : int
        Absolute sample index of `time`.
    tolerance_s : float or None
        Largest deviation in seconds that is no jump; None for the longer of 5 us and one sample. Six times the measured
        jitter (rms) widens it, up to tenfold; threefold before reports have shown their jitter.

    Raises
    ------
    ConfigurationError
        For a tolerance that is negative or not finite.
    """

    def __init__(
        self, rate_hz: float, time: StreamTime | None = None, sample: int = 0, tolerance_s: float | None = None
    ) -> None:
        if tolerance_s is not None and not (math.isfinite(tolerance_s) and tolerance_s >= 0):
            raise ConfigurationError("clock", "tolerance_s", tolerance_s, "seconds, 0 or more, or None")
        self._clock = _kernels.SampleClock(rate_hz, time, sample, tolerance_s)

    @property
    def rate_hz(self) -> float:
        """Sample rate in Hz; 0.0 when unknown."""
        return self._clock.rate_hz

    def set_time(self, time: StreamTime | None, sample: int) -> None:
        """Set the time of `sample`; None: unknown from here on."""
        self._clock.set_time(time, sample)

    def set_rate(self, rate_hz: float, sample: int) -> None:
        """Change the rate at `sample`; where the rate before was unknown the time becomes unknown."""
        self._clock.set_rate(rate_hz, sample)

    def time_of(self, sample: int) -> StreamTime | None:
        """Time of a sample, None when unknown."""
        time = self._clock.time_of(sample)
        return None if time is None else StreamTime(*time)

    def jump_s(self, time: StreamTime, sample: int) -> float | None:
        """Seconds by which a reported time of `sample` jumps ahead of the clock.

        0.0 when it follows, and then the clock is corrected; None when no time was known before. A jump changes
        nothing: the caller ends what it has and calls `set_time`.
        """
        return self._clock.jump_s(time, sample)

    @property
    def limit_s(self) -> float:
        """Largest deviation in seconds of the next report that is no jump."""
        return self._clock.limit_s
