# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a waterfall at a fixed rate, whatever the sample rate is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Samples, StreamTime

LEAST_POWER = 1e-20


class SpectrumRow(NamedTuple):
    """Mean power over a stretch of samples."""

    start_sample: int
    """First sample of the stretch."""
    n_samples: int
    """Samples from this row to the next one."""
    rate_hz: float
    centre_hz: float | None
    time: StreamTime | None
    """Of the first sample, None when unknown."""
    power_db: NDArray[np.float32]
    """float32 [bins] in dB relative to full scale per FFT bin, in the order of rising frequency."""


class Spectra:
    """Cuts a stream into rows of a waterfall.

    A row is the mean of up to `looks` spectra, spread over its time, so that the cost does not follow the sample rate.

    Parameters
    ----------
    rows_per_s : float
        Rows in a second of samples.
    bins : int
        FFT size and points of a row.
    looks : int
        Spectra that a row is the mean of, at most.
    """

    def __init__(self, rows_per_s: float = 20.0, bins: int = 1024, looks: int = 12) -> None:
        self.rows_per_s, self.bins, self._looks = rows_per_s, bins, looks
        window = np.hanning(bins)
        self._window = (window / window.sum()).astype(np.float32)
        self._begin(0, 0.0, None, None)

    def push(
        self, start: int, samples: Samples, rate_hz: float, centre_hz: float | None, time: StreamTime | None
    ) -> list[SpectrumRow]:
        """Take complex64 [n] from sample `start` on; returns the rows that became complete.

        A gap, or another rate or centre frequency, begins a new row.
        """
        if (start, rate_hz, centre_hz) != (self._first + self._seen, self._rate_hz, self._centre_hz):
            self._begin(start, rate_hz, centre_hz, time)
        rows = []
        at = 0
        while at < samples.size:
            count = min(self._row_samples - self._seen, samples.size - at)
            self._add(samples[at : at + count])
            at += count
            if self._seen == self._row_samples:
                rows += self._finish()
                later = None if time is None else time.advanced(at / rate_hz)
                self._begin(start + at, rate_hz, centre_hz, later)
        return rows

    def _begin(self, start: int, rate_hz: float, centre_hz: float | None, time: StreamTime | None) -> None:
        self._first, self._seen = start, 0
        self._rate_hz, self._centre_hz, self._time = rate_hz, centre_hz, time
        self._row_samples = max(self.bins, round(rate_hz / self.rows_per_s)) if rate_hz else self.bins
        self._spacing = max(self.bins, self._row_samples // self._looks)
        self._power = np.zeros(self.bins)
        self._count = 0

    def _add(self, samples: Samples) -> None:
        """Spectra at multiples of the spacing, as far as they lie within these samples."""
        first = -self._seen % self._spacing
        for at in range(first, samples.size - self.bins + 1, self._spacing):
            spectrum = np.fft.fft(np.nan_to_num(samples[at : at + self.bins]) * self._window)
            self._power += spectrum.real**2 + spectrum.imag**2
            self._count += 1
        self._seen += samples.size

    def _finish(self) -> list[SpectrumRow]:
        if not self._count:
            return []
        mean = np.fft.fftshift(self._power / self._count)
        decibels = (10 * np.log10(np.maximum(mean, LEAST_POWER))).astype(np.float32)
        return [SpectrumRow(self._first, self._seen, self._rate_hz, self._centre_hz, self._time, decibels)]
