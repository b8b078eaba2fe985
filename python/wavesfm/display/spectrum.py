# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a waterfall from a stream of any rate: a few transforms of each row's samples; no Qt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLOOR_DB = -200.0


class RowMaker:
    """Cut a stream into rows of equal length, and show each by the strongest of a few transforms.

    The cost is the same at any sample rate: the samples between the transforms of a row are skipped and counted.

    Parameters
    ----------
    columns : int
        Bins of a transform, and values of a row.
    rows_per_s : float
        Rows for each second of the stream.
    frames : int
        Most transforms of one row.
    """

    samples_in: int
    """Samples that came."""
    samples_skipped: int
    """Samples that no transform has seen."""

    def __init__(self, columns: int = 1024, rows_per_s: float = 30.0, frames: int = 6) -> None:
        self.columns, self.rows_per_s, self._frames = columns, rows_per_s, frames
        window = np.hanning(columns).astype(np.float32)
        self._window = window / window.sum()
        self._frame = np.zeros(columns, np.complex64)
        self.samples_in = self.samples_skipped = 0
        self.set_rate(0.0)

    @property
    def row_samples(self) -> int:
        """Samples of one row."""
        return self._row_samples

    def set_rate(self, rate_hz: float) -> None:
        """Begin a new row; rate_hz: 0 when unknown, which gives rows of ten transforms."""
        wanted = round(rate_hz / self.rows_per_s) if rate_hz > 0 else 10 * self.columns
        self._row_samples = max(self.columns, wanted)
        self._step = max(self.columns, self._row_samples // self._frames)
        self.restart()

    def restart(self) -> None:
        """Begin a new row at the next sample."""
        self._at = self._filled = 0  # in the row; in the transform that is being filled
        self._power: NDArray[np.float32] | None = None

    def push(self, samples: NDArray[np.complex64]) -> list[NDArray[np.float32]]:
        """Take samples in; returns the rows that they complete.

        Parameters
        ----------
        samples : complex64 [n]
            The next samples of the stream.

        Returns
        -------
        list of float32 [columns]
            Power in each bin by rising frequency, dB relative to full scale.
        """
        rows, done, n = [], 0, len(samples)
        self.samples_in += n
        while done < n:
            into = self._at % self._step
            fits = self._at - into + self.columns <= self._row_samples
            if fits and into < self.columns:
                count = min(self.columns - into, n - done)
                self._frame[into : into + count] = samples[done : done + count]
                if into + count == self.columns:
                    self._transform()
            else:
                next_at = min(self._at - into + self._step, self._row_samples) if fits else self._row_samples
                count = min(next_at - self._at, n - done)
                self.samples_skipped += count
            done, self._at = done + count, self._at + count
            if self._at == self._row_samples:
                rows.append(self._decibels())
                self.restart()
        return rows

    def _transform(self) -> None:
        spectrum = np.fft.fft(self._frame * self._window)
        power = np.nan_to_num(spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        self._power = power if self._power is None else np.maximum(self._power, power)

    def _decibels(self) -> NDArray[np.float32]:
        if self._power is None:
            return np.full(self.columns, FLOOR_DB, np.float32)
        floor = np.float32(10 ** (FLOOR_DB / 10))
        return 10 * np.log10(np.fft.fftshift(np.maximum(self._power, floor)))
