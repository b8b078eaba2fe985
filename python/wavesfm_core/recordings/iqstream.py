# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples from standard input or a named pipe, whose length is not known, in blocks."""

from __future__ import annotations

import itertools
import stat
import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..types import Samples
from . import raw_statistics
from .analytic import MARGIN, analytic
from .names import read_name
from .recording import BLOCK_SAMPLES, Segment, as_complex, check_rate
from .sample_formats import FORMAT_NAMES, FORMATS, SampleFormat, find_format, suffix_formats

STANDARD_INPUT = "-"
LOOK_BYTES = 1 << 18
"""Bytes at the beginning by which the format is doubted."""


def is_stream(path: str | Path) -> bool:
    """Whether `path` is read as a stream: "-", a named pipe or a character device."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return str(path) == STANDARD_INPUT
    return str(path) == STANDARD_INPUT or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


class IQStream:
    """Raw samples that are read once, in order; a context manager.

    Parameters
    ----------
    path : str or Path
        "-" for standard input, or a named pipe.
    rate_hz : float, optional
        Sample rate in Hz, of a real recording that of the real samples. Default: from the name, or unknown.
    sample_format : str, optional
        Such as cu8; may be left out where the name of the pipe has a suffix that tells.
    centre_hz : float, optional
        Centre frequency in Hz. Default: from the name, or unknown.
    start, length : int, optional
        Samples to skip first, and samples to read after them. Default: to the end.

    Raises
    ------
    InputError
        An unknown format, a wrong rate, or a pipe that cannot be read; while reading, data that begins with the header
        of a WAV file.
    """

    meta_path = None
    metadata = None

    def __init__(
        self,
        path: str | Path,
        rate_hz: float | None = None,
        sample_format: str | None = None,
        centre_hz: float | None = None,
        start: int = 0,
        length: int | None = None,
    ) -> None:
        self.path = Path("standard input") if str(path) == STANDARD_INPUT else Path(path)
        facts = read_name(self.path.name)
        rate_hz = facts.rate_hz or 0.0 if rate_hz is None else check_rate(self.path, rate_hz)
        centre_hz = facts.centre_hz if centre_hz is None else centre_hz
        self.format = self._find_format(sample_format)
        self.sample_format = self.format.name
        self.rate_hz, centre_hz, self.notes = as_complex(self.format, rate_hz, centre_hz)
        self.segments = (Segment(start, centre_hz, None),)
        self.stop_sample = None if length is None else start + length
        self._position = 0
        self._rest = b""
        self._looked_at: bytes | None = b""
        self._file = self._open(path)

    def _find_format(self, name: str | None) -> SampleFormat:
        found = None if name is None else find_format(name)
        by_suffix = suffix_formats(self.path.name)
        if name is None and len(by_suffix) == 1:
            found = FORMATS[by_suffix[0]]
        if found is None:
            found_text = "none" if name is None else repr(name)
            raise InputError(self.path, "format", found_text, f"--format, {FORMAT_NAMES}")
        return found

    def _open(self, path: str | Path) -> BufferedReader:
        if str(path) == STANDARD_INPUT:
            return cast(BufferedReader, sys.stdin.buffer)
        try:
            return open(path, "rb")
        except OSError as error:
            raise InputError(self.path, "file", error.strerror, "a pipe that can be read") from error

    def blocks(
        self, block_samples: int = BLOCK_SAMPLES, start: int | None = None, stop: int | None = None
    ) -> Iterator[Samples]:
        """complex64 arrays as they arrive, of up to `block_samples` samples, from `start` to before `stop` or the end.

        A stream is read once: `start` may not lie before what was read. Notes are added at the first block and the end.
        """
        start = self.segments[0].start_sample if start is None else start
        stop = self.stop_sample if stop is None else stop
        for samples in self._converted(block_samples):
            first, self._position = self._position, self._position + len(samples)
            wanted = samples[max(start - first, 0) : None if stop is None else max(stop - first, 0)]
            if len(wanted):
                yield wanted
            if stop is not None and self._position >= stop:
                return
        if self._rest:
            self.notes += (f"the last {len(self._rest)} bytes are no whole sample: left out",)

    def _converted(self, block_samples: int) -> Iterator[Samples]:
        if self.format.is_complex:
            yield from (self.format.complex64(raw) for raw in self._raw(block_samples))
            return
        values = np.zeros(MARGIN, np.float32)
        first = 0
        for raw in itertools.chain(self._raw(block_samples), [None]):
            more = np.zeros(MARGIN, np.float32) if raw is None else self.format.float32(raw)
            values = np.concatenate([values, more])
            if (n := (len(values) - 2 * MARGIN) // 2) > 0:
                yield analytic(values[: 2 * MARGIN + 2 * n], first)
                first, values = first + n, values[2 * n :]

    def _raw(self, block_samples: int) -> Iterator[NDArray[np.uint8]]:
        each = self.format.sample_bytes
        while True:
            data = self._read(each * block_samples - len(self._rest))
            if not data:
                self._look_at(np.zeros(0, np.uint8), is_last=True)
                return
            whole, self._rest = self._rest + data, b""
            if size := len(whole) % each:
                whole, self._rest = whole[:-size], whole[-size:]
            raw = np.frombuffer(whole, np.uint8)
            if not len(raw):
                continue
            self._look_at(raw)
            yield raw

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read1(count)
        except OSError as error:
            raise InputError(self.path, "file", error.strerror, "a pipe that can be read") from error

    def _look_at(self, raw: NDArray[np.uint8], is_last: bool = False) -> None:
        """Doubt the format once, when enough bytes have come."""
        if self._looked_at is None:
            return
        if not self._looked_at and raw[:4].tobytes() in (b"RIFF", b"RF64"):
            raise InputError(self.path, "format", "a WAV header", "raw samples: a WAV file is read by its name")
        self._looked_at += raw.tobytes()
        if is_last or len(self._looked_at) >= LOOK_BYTES:
            looked_at = np.frombuffer(self._looked_at, np.uint8)
            self._looked_at = None
            if doubt := raw_statistics.doubt(looked_at, self.sample_format):
                self.notes += (f"{doubt}; another --format may be right",)

    def close(self) -> None:
        """Close the pipe; standard input stays open."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def __enter__(self) -> IQStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
