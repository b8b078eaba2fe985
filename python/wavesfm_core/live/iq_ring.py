# SPDX-License-Identifier: GPL-3.0-or-later
"""The last seconds of a stream, kept as the blocks in which they arrived."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from ..types import StreamTime
from .block import SampleBlock


class PlacedBlock(NamedTuple):
    """A block and its place in the stream."""

    start: int
    """Number of its first sample."""
    block: SampleBlock
    time: StreamTime | None
    """Of its first sample, None when unknown."""

    @property
    def stop(self) -> int:
        """Number of the sample after its last one."""
        return self.start + self.block.n_samples


class IQRing:
    """The last blocks of a stream; written by one thread and read by any.

    Blocks are kept by reference in the format in which they arrived, so that neither writing nor reading copies them.

    Parameters
    ----------
    seconds : float
        Of samples that are kept at least, once they have arrived.
    most_bytes : int
        Memory that is never exceeded by more than a block: at high rates fewer seconds are kept.
    """

    def __init__(self, seconds: float, most_bytes: int = 1 << 30) -> None:
        self.seconds = seconds
        self._most_bytes = most_bytes
        self._lock = threading.Lock()  # guards all below
        self._blocks: deque[PlacedBlock] = deque()
        self._seconds = 0.0
        self._bytes = 0

    def push(self, start: int, block: SampleBlock, time: StreamTime | None = None) -> None:
        """Add the next block, whose first sample has the number `start`."""
        with self._lock:
            self._blocks.append(PlacedBlock(start, block, time))
            self._seconds += block.n_samples / block.rate_hz
            self._bytes += block.raw.nbytes
            while len(self._blocks) > 1 and (self._holds_enough_without_first() or self._bytes > self._most_bytes):
                first = self._blocks.popleft().block
                self._seconds -= first.n_samples / first.rate_hz
                self._bytes -= first.raw.nbytes

    def _holds_enough_without_first(self) -> bool:
        first = self._blocks[0].block
        return self._seconds - first.n_samples / first.rate_hz >= self.seconds - 1e-9  # rounding of the sum

    @property
    def span(self) -> tuple[int, int]:
        """Numbers of the first sample kept and of the one after the last; (0, 0) at the beginning."""
        with self._lock:
            return (self._blocks[0].start, self._blocks[-1].stop) if self._blocks else (0, 0)

    def between(self, start: int, stop: int) -> list[PlacedBlock]:
        """Blocks that hold some of the samples `start` to before `stop`, in order; at the ends more than these."""
        with self._lock:
            return [placed for placed in self._blocks if placed.start < stop and placed.stop > start]
