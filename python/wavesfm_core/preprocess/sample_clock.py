# SPDX-License-Identifier: GPL-3.0-or-later
"""Absolute time of a stream's samples, tracked through reports that jitter and drift."""

from __future__ import annotations

import math

from ..errors import ConfigurationError
from ..types import StreamTime

TOLERANCE_S = 5e-6  # default, or one sample where that is longer
DRIFT = 20e-6  # of the time since the last report: what oscillators and host clocks differ by
JITTERS = 6.0  # a jump is more than so many times the jitter measured so far
JITTER_WEIGHT = 1 / 8  # of one report in the running mean square
GAIN = 1 / 8  # least part of a deviation by which the clock is corrected at a report
GAIN_PER_S = 5.0  # reports further apart than 1 / GAIN_PER_S seconds are followed at once


class SampleClock:
    """Time of each sample from a start time and the sample rate, corrected by reported times.

    A report close to the tracked time corrects the clock a little, so that jitter averages out and drift is followed.
    A report further away is a jump: samples were lost, or the time was set anew.

    Parameters
    ----------
    rate_hz : float
        Sample rate; 0.0 when unknown, and then only reported samples have a time.
    time : StreamTime or None
        Time of `sample`; None when unknown.
    sample : int
        Absolute sample index of `time`.
    tolerance_s : float or None
        Largest deviation in seconds that is no jump; None for the longer of 5 us and one sample. Measured jitter (6
        times its rms) and 20 ppm of the time since the last report widen it.

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
        self.rate_hz = rate_hz
        self._tolerance_s = tolerance_s
        self._mean_square = 0.0  # of the deviations, s^2
        self.set_time(time, sample)

    def set_time(self, time: StreamTime | None, sample: int) -> None:
        """Set the time of `sample`; None: unknown from here on."""
        self._time, self._sample = time, sample
        self._reported = sample

    def set_rate(self, rate_hz: float, sample: int) -> None:
        """Change the rate at `sample`; where the rate before was unknown the time becomes unknown."""
        self.set_time(self.time_of(sample), sample)
        self.rate_hz = rate_hz

    def time_of(self, sample: int) -> StreamTime | None:
        """Time of a sample, None when unknown."""
        if self._time is None or sample == self._sample:
            return self._time
        if self.rate_hz == 0.0:
            return None
        return self._time.advanced((sample - self._sample) / self.rate_hz)

    def jump_s(self, time: StreamTime, sample: int) -> float | None:
        """Seconds by which a reported time of `sample` jumps ahead of the clock.

        0.0 when it follows, and then the clock is corrected; None when no time was known before. A jump changes
        nothing: the caller ends what it has and calls `set_time`.
        """
        expected = self.time_of(sample)
        if expected is None:
            return None
        ahead_s = time.seconds_after(expected)
        elapsed_s = abs(sample - self._reported) / self.rate_hz if self.rate_hz else 0.0
        if abs(ahead_s) > self._limit_s(elapsed_s):
            return ahead_s
        self._mean_square += JITTER_WEIGHT * (ahead_s**2 - self._mean_square)
        gain = min(1.0, max(GAIN, GAIN_PER_S * elapsed_s))
        self.set_time(expected.advanced(gain * ahead_s), sample)
        return 0.0

    def _limit_s(self, elapsed_s: float) -> float:
        period_s = 1 / self.rate_hz if self.rate_hz else 0.0
        tolerance_s = max(TOLERANCE_S, period_s) if self._tolerance_s is None else self._tolerance_s
        return max(tolerance_s, JITTERS * math.sqrt(self._mean_square)) + DRIFT * elapsed_s
