# SPDX-License-Identifier: GPL-3.0-or-later
"""The last samples of a stream, in bounded memory, by their place in it."""

from __future__ import annotations

import numpy as np

from ..types import Samples

ITEM = 8  # bytes of a sample


class SampleRing:
    """Keeps at least the last `limit_bytes` / 16 and at most the last `limit_bytes` / 8 samples.

    Attributes
    ----------
    start, stop : int
        Place in the stream of the first sample kept, and of the one after the last.
    """

    def __init__(self, limit_bytes: int, least_samples: int, start: int = 0) -> None:
        """limit_bytes: of memory; least_samples: kept even where that needs more; start: place of the first sample."""
        self._size = max(limit_bytes // ITEM, 2 * least_samples)
        self._buffer = np.empty(0, np.complex64)
        self._from = 0  # in the buffer
        self._to = 0
        self.stop = start

    @property
    def start(self) -> int:
        """Place in the stream of the first sample kept."""
        return self.stop - (self._to - self._from)

    def push(self, samples: Samples) -> None:
        """More samples, complex64 [n]; the oldest go."""
        self.stop += samples.size
        samples = samples[-(self._size // 2) :]
        self._make_room(samples.size)
        self._buffer[self._to : self._to + samples.size] = samples
        self._to += samples.size

    def _make_room(self, count: int) -> None:
        if self._to + count <= self._buffer.size:
            return
        kept = min(self._to - self._from, self._size - count, self._size // 2)
        wanted = min(self._size, max(2 * self._buffer.size, kept + count, 1 << 16))
        held = self._buffer[self._to - kept : self._to]
        if wanted > self._buffer.size and self._buffer.size < self._size:
            kept = min(self._to - self._from, wanted - count)
            fresh = np.empty(wanted, np.complex64)
            fresh[:kept] = self._buffer[self._to - kept : self._to]
            self._buffer = fresh
        else:
            self._buffer[:kept] = held.copy()
        self._from, self._to = 0, kept

    def span(self, start: int, stop: int) -> Samples:
        """What there is of samples start to stop, complex64; a view, valid until the next push."""
        first = self._from + max(start, self.start) - self.start
        last = self._from + min(stop, self.stop) - self.start
        return self._buffer[first : max(first, last)]
