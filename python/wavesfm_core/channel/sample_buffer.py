# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples of several antennas: checks, and a buffer by absolute index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import copy_streams
from ..errors import InputError
from ..types import Samples

SAMPLE_LIMIT = 1e15
"""Magnitude of I or Q from which on a sample counts as not finite, as in the kernels."""


class SampleBuffer:
    """Samples that are still needed, complex64 [A, ...], by absolute index."""

    def __init__(self, antennas: int, capacity: int, first: int) -> None:
        self._data: Samples = np.empty((antennas, capacity), np.complex64)
        self._first = first  # absolute index of the first sample in the array
        self._begin = 0  # of the needed samples in the array
        self._filled = 0

    @property
    def end(self) -> int:
        """Absolute index of the next sample."""
        return self._first + self._filled

    def append(self, streams: Sequence[Samples], first: int, n: int) -> None:
        """Append n samples of each stream from index `first` of the streams on."""
        if self._filled + n > self._data.shape[1]:
            kept = self._filled - self._begin
            self._data[:, :kept] = self._data[:, self._begin : self._filled].copy()
            self._first += self._begin
            self._begin, self._filled = 0, kept
        copy_streams(streams, first, n, self._data, self._filled)
        self._filled += n

    def drop_to(self, sample: int) -> None:
        """Drop the samples before an absolute index, which may lie ahead of the buffer."""
        self._begin = min(max(sample - self._first, self._begin), self._filled)

    def view(self, start: int, n: int) -> Samples:
        """n samples of each antenna from an absolute index on, complex64 [A, n]."""
        return np.ascontiguousarray(self._data[:, start - self._first : start - self._first + n])


def finite_samples(samples: Samples) -> tuple[Samples, int]:
    """Samples with zeros for NaN, infinity and magnitudes from SAMPLE_LIMIT on, and the number of replaced ones."""
    parts = samples.view(np.float32)
    if parts.size == 0 or (parts.min() > -SAMPLE_LIMIT and parts.max() < SAMPLE_LIMIT):  # false for NaN
        return samples, 0
    good = np.maximum(np.abs(samples.real), np.abs(samples.imag)) < SAMPLE_LIMIT
    return np.where(good, samples, np.complex64(0)), int(good.size - np.count_nonzero(good))


def as_streams(samples: NDArray[Any] | Sequence[NDArray[Any]], antennas: int) -> list[Samples]:
    """Samples of A antennas as a list of complex64 [n]; raises InputError for other types, numbers and lengths."""
    streams = list(samples)
    if len(streams) != antennas:
        raise InputError("slots", "antennas", len(streams), f"{antennas}, as the numerology has")
    for index, stream in enumerate(streams):
        if not isinstance(stream, np.ndarray) or stream.dtype not in (np.complex64, np.complex128) or stream.ndim != 1:
            found = f"{getattr(stream, 'dtype', type(stream).__name__)} {getattr(stream, 'shape', '')}".strip()
            raise InputError("slots", f"samples[{index}]", found, "a numpy array of complex64, one dimension")
        if stream.size != streams[0].size:
            expected = f"{streams[0].size}, as antenna 0 has"
            raise InputError("slots", f"length of samples[{index}]", stream.size, expected)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are taken as zero
        return [np.ascontiguousarray(stream, np.complex64) for stream in streams]
