# SPDX-License-Identifier: GPL-3.0-or-later
"""A recording of known length as blocks of complex64, memory-mapped."""

from __future__ import annotations

import dataclasses
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..types import Samples, StreamTime
from . import raw_statistics
from .analytic import MARGIN, analytic
from .sample_formats import FORMATS, RawBytes, SampleFormat

BLOCK_SAMPLES = 1 << 18
LEAST_RATE_HZ = 1e3
"""Lower sample rates are refused: a unit is missing."""
CHANNELS_LIMIT = 256


class Segment(NamedTuple):
    """Frequency and time from a sample on, until the next segment."""

    start_sample: int
    """In the recording, from 0."""
    centre_hz: float | None
    """None: unknown."""
    time: StreamTime | None
    """Of the segment's first sample, None: unknown."""


class Extent(NamedTuple):
    """Samples that lie together in the file, until the next extent."""

    start_sample: int
    first_byte: int


@dataclass
class Recording:
    """An open recording of known length; a context manager.

    Samples are counted as they are read: a real recording has half as many complex samples, at half the rate.
    """

    path: Path
    """Of the file that holds the samples (of a SigMF archive: the archive)."""
    meta_path: Path | None
    """Of the SigMF metadata, None for a file without."""
    sample_format: str
    """A name in FORMATS."""
    rate_hz: float
    """Complex samples per second, 0.0 when unknown."""
    n_samples: int
    """Of the whole recording."""
    segments: tuple[Segment, ...]
    """At least one, in order, the first at the first sample that is read."""
    notes: tuple[str, ...] = ()
    """Sentences about what was assumed, corrected or left out."""
    extents: tuple[Extent, ...] = (Extent(0, 0),)
    """At least one, in order, the first at sample 0."""
    n_channels: int = 1
    """Channels whose samples alternate in the file."""
    channel: int = 0
    """The one that is read, from 0."""
    metadata: dict[str, Any] | None = None
    """The SigMF metadata as it was read, None for a file without."""
    stop_sample: int = -1
    """End of the part that is read, see `part`; -1: of the recording."""
    _bytes: RawBytes | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.stop_sample < 0:
            self.stop_sample = self.n_samples
        try:
            self._bytes = np.memmap(self.path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise InputError(self.path, "file", error, "a file that can be read") from error
        last, stop = self.extents[-1], self.n_samples
        if last.first_byte + (stop - last.start_sample) * self._frame_bytes > len(self._bytes):
            raise InputError(self.path, "size", f"{len(self._bytes)} bytes", f"{stop} samples")

    @property
    def format(self) -> SampleFormat:
        """How one sample lies in the file."""
        return FORMATS[self.sample_format]

    @property
    def start_sample(self) -> int:
        """First sample of the part that is read: 0, unless `part` was called."""
        return self.segments[0].start_sample

    @property
    def centre_hz(self) -> float | None:
        """Centre frequency of the first segment."""
        return self.segments[0].centre_hz

    @property
    def time(self) -> StreamTime | None:
        """Time of the first sample that is read."""
        return self.segments[0].time

    @property
    def _frame_bytes(self) -> int:
        return self.format.sample_bytes * self.n_channels

    def part(self, start: int = 0, length: int | None = None) -> Recording:
        """The same recording, of which only `length` samples (None: all) from sample `start` on are read.

        Samples keep their numbers. Raises InputError when the recording has no sample there.
        """
        stop = self.n_samples if length is None else min(self.n_samples, start + length)
        if not 0 <= start < stop:
            raise InputError(self.path, "part", f"samples {start} to {stop}", f"within the {self.n_samples} samples")
        at = max(i for i, segment in enumerate(self.segments) if segment.start_sample <= start)
        first, *later = self.segments[at:]
        time = first.time
        if time is not None and start > first.start_sample:
            time = time.advanced((start - first.start_sample) / self.rate_hz) if self.rate_hz else None
        segments = (Segment(start, first.centre_hz, time), *(each for each in later if each.start_sample < stop))
        return dataclasses.replace(self, segments=segments, stop_sample=stop)

    def blocks(
        self, block_samples: int = BLOCK_SAMPLES, start: int | None = None, stop: int | None = None
    ) -> Iterator[Samples]:
        """complex64 arrays of up to `block_samples` samples: all from `start` to before `stop` (None: of the part)."""
        start = self.start_sample if start is None else start
        stop = self.stop_sample if stop is None else min(stop, self.n_samples)
        for first in range(start, stop, block_samples):
            yield self._read(first, min(first + block_samples, stop))

    def _read(self, first: int, stop: int) -> Samples:
        if self.format.is_complex:
            return self.format.complex64(self._raw(first, stop))
        margin = MARGIN // 2
        low, high = max(first - margin, 0), min(stop + margin, self.n_samples)
        values = self.format.float32(self._raw(low, high))
        padding = (2 * (low - first + margin), 2 * (stop + margin - high))
        return analytic(np.pad(values, padding), first)

    def _raw(self, first: int, stop: int) -> RawBytes:
        """Bytes of the channel's samples from `first` to before `stop`."""
        if self._bytes is None:
            raise InputError(self.path, "recording", "a closed file", "an open one")
        ends = [*(extent.start_sample for extent in self.extents[1:]), self.n_samples]
        pieces = []
        for extent, end in zip(self.extents, ends, strict=True):
            low, high = max(first, extent.start_sample), min(stop, end)
            if low < high:
                places = ((at - extent.start_sample) * self._frame_bytes + extent.first_byte for at in (low, high))
                pieces.append(self._channel(self._bytes[slice(*places)]))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.zeros(0, np.uint8)])

    def _channel(self, raw: RawBytes) -> RawBytes:
        if self.n_channels == 1:
            return raw
        stored = self.format.sample_bytes // self.format.stored_per_sample
        return np.ascontiguousarray(raw.reshape(-1, self.n_channels, stored)[:, self.channel]).reshape(-1)

    def doubt(self) -> str | None:
        """A note if the bytes look like another format than `sample_format`, else None."""
        each = self.format.sample_bytes
        places = raw_statistics.pieces(self.n_samples * each, math.lcm(each, 16))  # whole samples of all formats
        raw = np.concatenate([self._raw(first // each, stop // each) for first, stop in places])
        return raw_statistics.doubt(raw, self.sample_format)

    def close(self) -> None:
        """Unmap the file."""
        self._bytes = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_rate(where: object, rate_hz: float) -> float:
    """The rate as a float. Raises InputError unless it is 0 (unknown) or finite and at least LEAST_RATE_HZ."""
    try:
        value = float(rate_hz)
    except (TypeError, ValueError):
        value = math.nan
    if not (value == 0 or (math.isfinite(value) and value >= LEAST_RATE_HZ)):
        expected = f"a number of Hz of {LEAST_RATE_HZ:g} or more such as 2.4e6, or 0 for unknown"
        raise InputError(where, "sample rate", rate_hz, expected)
    return value


def file_size(path: Path) -> int:
    """Size of a file in bytes. Raises InputError unless it is a regular file that is not empty."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a recording") from None
    except (OSError, ValueError) as error:
        raise InputError(path, "file", getattr(error, "strerror", error), "a file that can be read") from error
    if stat.S_ISDIR(facts.st_mode):
        raise InputError(path, "file", "a directory", "a recording")
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(path, "file", "a pipe or a device", "a file, whose length is known")
    if facts.st_size == 0:
        raise InputError(path, "size", "0 bytes", "samples")
    return facts.st_size


def count_samples(path: Path, n_bytes: int, sample_bytes: int) -> tuple[int, tuple[str, ...]]:
    """Whole samples in n_bytes, and a note about the rest. Raises InputError if there is no whole sample."""
    n_samples, rest = divmod(n_bytes, sample_bytes)
    if n_samples < 1:
        raise InputError(path, "size", f"{max(n_bytes, 0)} bytes", f"samples of {sample_bytes} bytes")
    return n_samples, (f"the last {rest} bytes are no whole sample of {sample_bytes} bytes: left out",) if rest else ()


def with_doubt(recording: Recording, advice: str) -> Recording:
    """The recording, with a note if its bytes look like another format."""
    if (doubt := recording.doubt()) is None:
        return recording
    return dataclasses.replace(recording, notes=(*recording.notes, f"{doubt}; {advice}"))


def as_complex(
    sample_format: SampleFormat, rate_hz: float, centre_hz: float | None
) -> tuple[float, float | None, tuple[str, ...]]:
    """Rate and centre frequency of the complex samples, and a note where these differ from the real ones."""
    if sample_format.is_complex:
        return rate_hz, centre_hz, ()
    note = "real samples: read as their analytic signal, the band from 0 to half the rate, at half the rate"
    if not rate_hz:
        return rate_hz, None, (note,)
    return rate_hz / 2, (centre_hz or 0.0) + rate_hz / 4, (note,)
