# SPDX-License-Identifier: GPL-3.0-or-later
"""Absolute time of a stream's samples, tracked through reports that jitter and drift."""

from __future__ import annotations

import math

from ..errors import ConfigurationError
from ..types import StreamTime

TOLERANCE_S = 5e-6  # default, or one sample where that is longer
JITTERS = 6.0  # a jump is more than this many times the jitter measured so far
JITTER_WEIGHT = 0.1  # of one report in the running mean square of the deviations
MOST_WIDENED = 10.0  # times the tolerance to which jitter may widen it
DRIFT = 20e-6  # standard deviation of the drift before any report, as a part of the rate
DRIFT_WALK = 1e-9  # by which the drift may wander in a second


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
        self.rate_hz = rate_hz
        self._tolerance_s = tolerance_s
        self._drift = 0.0
        self._offset_power = self._cross_power = self._drift_power = 0.0  # the covariance of offset and drift
        self._jitter_power = 0.0  # running mean square of the deviations, s^2
        self.set_time(time, sample)

    def set_time(self, time: StreamTime | None, sample: int) -> None:
        """Set the time of `sample`; None: unknown from here on."""
        self._time, self._sample = time, sample
        self._jitter_power = self._offset_power = (self._base_s / 2) ** 2
        self._cross_power, self._drift_power = 0.0, DRIFT**2

    def set_rate(self, rate_hz: float, sample: int) -> None:
        """Change the rate at `sample`; where the rate before was unknown the time becomes unknown."""
        time = self.time_of(sample)
        self.rate_hz, self._drift = rate_hz, 0.0
        self.set_time(time, sample)

    def time_of(self, sample: int) -> StreamTime | None:
        """Time of a sample, None when unknown."""
        if self._time is None or sample == self._sample:
            return self._time
        if self.rate_hz == 0.0:
            return None
        return self._time.advanced((sample - self._sample) / self.rate_hz * (1 + self._drift))

    def jump_s(self, time: StreamTime, sample: int) -> float | None:
        """Seconds by which a reported time of `sample` jumps ahead of the clock.

        0.0 when it follows, and then the clock is corrected; None when no time was known before. A jump changes
        nothing: the caller ends what it has and calls `set_time`.
        """
        expected = self.time_of(sample)
        if expected is None:
            return None
        ahead_s = time.seconds_after(expected)
        if abs(ahead_s) > self.limit_s:
            return ahead_s
        self._correct(expected, ahead_s, sample)
        return 0.0

    @property
    def limit_s(self) -> float:
        """Largest deviation in seconds of the next report that is no jump."""
        widened_s = min(JITTERS * math.sqrt(self._jitter_power), MOST_WIDENED * self._base_s)
        return max(self._base_s, widened_s) * (1 + 1e-9)

    @property
    def _base_s(self) -> float:
        if self._tolerance_s is not None:
            return self._tolerance_s
        return max(TOLERANCE_S, 1 / self.rate_hz if self.rate_hz else 0.0)

    def _correct(self, expected: StreamTime, ahead_s: float, sample: int) -> None:
        """One step of the filter."""
        passed_s = (sample - self._sample) / self.rate_hz if self.rate_hz else 0.0
        drift_power = self._drift_power + DRIFT_WALK**2 * abs(passed_s)
        offset_power = self._offset_power + 2 * passed_s * self._cross_power + passed_s**2 * drift_power
        cross_power = self._cross_power + passed_s * drift_power
        deviation_power = offset_power + self._jitter_power + 1e-24
        offset_gain, drift_gain = offset_power / deviation_power, cross_power / deviation_power
        self._time, self._sample = expected.advanced(offset_gain * ahead_s), sample
        self._drift += drift_gain * ahead_s
        self._offset_power = (1 - offset_gain) * offset_power
        self._cross_power = (1 - offset_gain) * cross_power
        self._drift_power = drift_power - drift_gain * cross_power
        self._jitter_power += JITTER_WEIGHT * (ahead_s**2 - self._jitter_power)
