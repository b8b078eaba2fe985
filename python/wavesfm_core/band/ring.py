# SPDX-License-Identifier: GPL-3.0-or-later
"""The last samples of a stream, in bounded memory, by their place in it."""

from __future__ import annotations

import sys
from collections import deque

import numpy as np

from ..types import Samples

ITEM = 8  # bytes of a sample
BLOCK = 1 << 20  # samples that are kept and dropped together: 8 MiB, for which numpy asks for huge pages
UNSHARED = 2  # references to a block that nobody else has: a name and an argument


class SampleRing:
    """Keeps the last samples in blocks, so that spans of them stay valid while more come.

    Attributes
    ----------
    start, stop : int
        Place in the stream of the first sample kept, and of the one after the last.
    """

    def __init__(self, limit_bytes: int, least_samples: int, start: int = 0) -> None:
        """limit_bytes: of memory; least_samples: kept even where that needs more; start: place of the first sample."""
        self._size = max(limit_bytes // ITEM, 2 * least_samples)
        self._block = max(1, min(BLOCK, self._size // 4))
        self._blocks: deque[Samples] = deque()
        self._filled = self._block  # of the last block
        self.start = self.stop = start

    def push(self, samples: Samples) -> None:
        """More samples, complex64 [n], which are copied; NaN and infinity become 0. The oldest go."""
        at = 0
        while at < samples.size:
            if self._filled == self._block:
                self._next_block()
            count = min(samples.size - at, self._block - self._filled)
            kept = self._blocks[-1][self._filled : self._filled + count]
            kept[:] = samples[at : at + count]
            if not np.isfinite(kept.view(np.float32).sum()):  # a sum is much faster than a look at each sample
                kept[~np.isfinite(kept)] = 0
            self._filled += count
            self.stop += count
            at += count

    def _next_block(self) -> None:
        block = None
        if (len(self._blocks) + 1) * self._block > self._size:
            block = self._blocks.popleft()
            self.start += self._block
            if sys.getrefcount(block) > UNSHARED:  # a span of it is in use
                block = None
        self._blocks.append(np.empty(self._block, np.complex64) if block is None else block)
        self._filled = 0

    def span(self, start: int, stop: int) -> list[Samples]:
        """What there is of samples start to stop, complex64 arrays in order; views, which later pushes leave alone."""
        first, last = max(start, self.start) - self.start, min(stop, self.stop) - self.start
        parts: list[Samples] = []
        while first < last:
            block, offset = divmod(first, self._block)
            count = min(last - first, self._block - offset)
            parts.append(self._blocks[block][offset : offset + count])
            first += count
        return parts

    def samples(self, start: int, stop: int) -> Samples:
        """The same as one array, copied where it is in several blocks."""
        parts = self.span(start, stop)
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.complex64), *parts])
