# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tags of a stream say of its time, so that a gap can be told from a tag that only repeats what is known."""

from __future__ import annotations

from wavesfm_core.types import StreamTime


class StreamClock:
    """The last known time of a stream and its rate; rate_hz: 0 when unknown. Samples are counted absolutely."""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._reference: tuple[StreamTime, int] | None = None  # a known time and its sample

    @property
    def known(self) -> bool:
        """Whether any time is known."""
        return self._reference is not None

    def set_time(self, time: StreamTime, sample: int) -> None:
        """The time of a sample."""
        self._reference = (time, sample)

    def set_rate(self, rate_hz: float, sample: int) -> None:
        """From this sample on time passes at another rate; with the former unknown, the time becomes unknown too."""
        if self._reference is not None:
            self._reference = (self.time_of(sample), sample) if self.rate_hz else None
        self.rate_hz = rate_hz

    def follows(self, time: StreamTime, sample: int) -> bool:
        """Whether this time of a sample is, to one sample, what the last known time and the rate say."""
        if self._reference is None or not self.rate_hz:
            return False
        expected = self.time_of(sample)
        ahead_s = (time.full_s - expected.full_s) + (time.frac_s - expected.frac_s)
        return abs(ahead_s) <= 1 / self.rate_hz

    def time_of(self, sample: int) -> StreamTime:
        """The time of a sample, where any is known."""
        assert self._reference is not None
        time, known = self._reference
        return time.advanced((sample - known) / self.rate_hz)
