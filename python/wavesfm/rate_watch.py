# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the samples of a stream without time tags with the wall clock. No GNU Radio."""

from __future__ import annotations

WINDOW_S = 10.0
SHORT = 0.01  # share of missing samples from which on they are counted: throttles and buffers stay below


class RateWatch:
    """Samples that did not come although the sample rate promises them; receivers drop them without a word."""

    def __init__(self) -> None:
        self.share = 0.0
        """Share of the samples that was missing in the last window, 0.0 below SHORT."""
        self.missing = 0
        """Samples missing so far."""
        self.restart()

    def restart(self) -> None:
        """Begin a window at the next samples."""
        self._began_s: float | None = None
        self._samples = 0
        self._held_s = 0.0

    def take(self, n_samples: int, rate_hz: float, arrived_s: float, held_s: float = 0.0) -> None:
        """Count samples that have just arrived.

        Parameters
        ----------
        n_samples : int
            How many.
        rate_hz : float
            Sample rate in Hz; 0 when unknown: nothing is counted.
        arrived_s : float
            Monotonic time.
        held_s : float
            Seconds so far in which the stream was held back on this side; a window with any is not judged.
        """
        if not rate_hz:
            return
        if self._began_s is None:
            self._began_s, self._held_s = arrived_s, held_s  # these samples were received before
            return
        self._samples += n_samples
        passed_s = arrived_s - self._began_s
        if passed_s < WINDOW_S:
            return
        expected = passed_s * rate_hz
        share = 1 - self._samples / expected
        self.share = share if share >= SHORT and held_s - self._held_s < SHORT * passed_s else 0.0
        if self.share:
            self.missing += round(expected) - self._samples
        self._began_s, self._samples, self._held_s = arrived_s, 0, held_s
