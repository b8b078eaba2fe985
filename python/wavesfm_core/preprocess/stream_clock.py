# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of a stream from its tags: tells a gap from jitter and from the drift between two clocks."""

from __future__ import annotations

from ..types import StreamTime

TOLERANCE_S = 5e-6
JITTERS = 6.0  # tolerance in standard deviations of the observed jitter
MOST_WIDENED = 10.0  # times the given tolerance that jitter may widen it to
JITTER_WEIGHT = 0.1  # of the newest tag in the running variance of the jitter
DRIFT_PRIOR = 20e-6  # standard deviation of the drift before any tag, as a part of the rate
DRIFT_WALK_PER_S = 1e-9  # how fast the drift itself may wander


class StreamClock:
    """The time of every sample of a stream, tracked over its time tags by a Kalman filter of offset and drift.

    Parameters
    ----------
    rate_hz : float
        Sample rate in Hz, 0 when unknown.
    tolerance_s : float
        Difference from the tracked time, in seconds, up to which a tag follows; 0 is the larger of 5 us and one sample.
        Six times the observed jitter widens it, at most tenfold; before tags have shown their jitter it is threefold.
    """

    def __init__(self, rate_hz: float, tolerance_s: float = 0.0) -> None:
        self.rate_hz = rate_hz
        self._given_tolerance_s = tolerance_s
        self._reference: tuple[StreamTime, int] | None = None  # the tracked time of a sample
        self._drift = 0.0
        self._start_filter()

    @property
    def known(self) -> bool:
        """Whether any time is known."""
        return self._reference is not None

    @property
    def tolerance_s(self) -> float:
        """Difference in seconds up to which the next tag follows."""
        jitter_s = float(self._jitter_power**0.5)
        return max(self._base_s, min(JITTERS * jitter_s, MOST_WIDENED * self._base_s)) * (1 + 1e-9)

    def set_time(self, time: StreamTime, sample: int) -> None:
        """Take this time of a sample as exact; what was learned of the drift stays."""
        self._reference = (time, sample)
        self._start_filter()

    def set_rate(self, rate_hz: float, sample: int) -> None:
        """Let time pass at another rate from this sample on; with no rate before it, the time becomes unknown."""
        if self._reference is not None:
            self._reference = (self.time_of(sample), sample) if self.rate_hz else None
        self.rate_hz = rate_hz
        self._drift = 0.0
        self._start_filter()

    def jump_s(self, time: StreamTime, sample: int) -> float | None:
        """Compare a tag with the tracked time, and track it if it follows.

        Parameters
        ----------
        time : StreamTime
            The tag's time.
        sample : int
            Absolute index of the tag's sample.

        Returns
        -------
        float or None
            0.0 if the tag follows; else the seconds by which it is ahead (samples were lost) or, negative, behind.
            None if no time or no rate is known.
        """
        ahead_s = self.ahead_s(time, sample)
        if ahead_s is None or abs(ahead_s) > self.tolerance_s:
            return ahead_s
        self._track(ahead_s, sample)
        return 0.0

    def ahead_s(self, time: StreamTime, sample: int) -> float | None:
        """Return the seconds by which this time of a sample is ahead of the tracked one; None if none is known."""
        if self._reference is None or not self.rate_hz:
            return None
        expected = self.time_of(sample)
        return (time.full_s - expected.full_s) + (time.frac_s - expected.frac_s)

    def time_of(self, sample: int) -> StreamTime:
        """The tracked time of a sample; only where a time is known."""
        assert self._reference is not None
        time, known = self._reference
        return time.advanced((sample - known) / self.rate_hz * (1 + self._drift)) if sample != known else time

    @property
    def _base_s(self) -> float:
        return self._given_tolerance_s or max(TOLERANCE_S, 1 / self.rate_hz if self.rate_hz else 0.0)

    def _start_filter(self) -> None:
        self._jitter_power = (self._base_s / 2) ** 2
        self._offset_power, self._cross_power, self._drift_power = self._jitter_power, 0.0, DRIFT_PRIOR**2

    def _track(self, ahead_s: float, sample: int) -> None:
        """One step of the filter; the powers are the covariance of its two states."""
        assert self._reference is not None
        passed_s = (sample - self._reference[1]) / self.rate_hz
        drift_power = self._drift_power + DRIFT_WALK_PER_S**2 * abs(passed_s)
        offset_power = self._offset_power + 2 * passed_s * self._cross_power + passed_s**2 * drift_power
        cross_power = self._cross_power + passed_s * drift_power
        innovation_power = offset_power + self._jitter_power
        offset_gain, drift_gain = offset_power / innovation_power, cross_power / innovation_power
        self._reference = (self.time_of(sample).advanced(offset_gain * ahead_s), sample)
        self._drift += drift_gain * ahead_s
        self._offset_power = (1 - offset_gain) * offset_power
        self._cross_power = (1 - offset_gain) * cross_power
        self._drift_power = drift_power - drift_gain * cross_power
        self._jitter_power += JITTER_WEIGHT * (ahead_s**2 - self._jitter_power)
        self._jitter_power = max(self._jitter_power, 1e-18)
