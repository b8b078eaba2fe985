# SPDX-License-Identifier: GPL-3.0-or-later
"""IQ recordings as blocks of complex64, memory-mapped: SigMF, cu8, cs8, cs16 and cf32."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .. import _kernels
from ..errors import InputError
from ..types import Samples, StreamTime
from .sigmf_meta import load_meta, meta_path_of

SAMPLE_BYTES = {"cu8": 2, "cs8": 2, "cs16": 4, "cf32": 8}  # little-endian, I before Q
SIGMF_DATATYPES = {"cu8": "cu8", "ci8": "cs8", "ci16_le": "cs16", "cf32_le": "cf32"}
BLOCK_SAMPLES = 1 << 18
# rtl_433's habit, <anything>_<frequency>_<rate>.<format>, as in g001_433.92M_250k.cu8
_NAMED = re.compile(r"_(\d+(?:\.\d+)?[kMG])_(\d+(?:\.\d+)?[kM])\.[^.]+$")
_SCALE = {"k": 1e3, "M": 1e6, "G": 1e9}


class Segment(NamedTuple):
    """From start_sample to the next segment: centre_hz (None: unknown) and the time of its first sample."""

    start_sample: int
    centre_hz: float | None
    time: StreamTime | None


@dataclass
class Recording:
    """An open recording; a context manager.

    path: of the samples; meta_path: of the SigMF metadata, None for a raw file; sample_format: one of SAMPLE_BYTES;
    rate_hz: 0.0 when unknown; n_samples: of the whole file; segments: at least one, in order, the first at sample 0.
    """

    path: Path
    meta_path: Path | None
    sample_format: str
    rate_hz: float
    n_samples: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        count = self.n_samples * SAMPLE_BYTES[self.sample_format]
        try:
            self._bytes: np.ndarray | None = np.memmap(self.path, np.uint8, mode="r", shape=(count,))
        except (OSError, ValueError) as error:
            raise InputError(self.path, "file", error, "a file that can be read") from error

    @property
    def centre_hz(self) -> float | None:
        """Of the first segment."""
        return self.segments[0].centre_hz

    @property
    def time(self) -> StreamTime | None:
        """Of the first sample."""
        return self.segments[0].time

    def blocks(self, block_samples: int = BLOCK_SAMPLES, start: int = 0, stop: int | None = None) -> Iterator[Samples]:
        """complex64 arrays of up to `block_samples` samples: all from `start` to before `stop` (None: the end)."""
        size = SAMPLE_BYTES[self.sample_format]
        stop = self.n_samples if stop is None else stop
        for first in range(start, stop, block_samples):
            if self._bytes is None:
                raise InputError(self.path, "recording", "a closed file", "an open one")
            raw = self._bytes[first * size : min(first + block_samples, stop) * size]
            if self.sample_format == "cf32":
                yield np.array(raw).view("<c8").astype(np.complex64, copy=False)
            else:
                yield _kernels.to_complex64(raw, self.sample_format)

    def close(self) -> None:
        """Let go of the file."""
        self._bytes = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_recording(
    path: str | Path, rate_hz: float | None = None, sample_format: str | None = None, centre_hz: float | None = None
) -> Recording:
    """Open a recording; what is given here goes before what the file says.

    SigMF by its .sigmf-meta, .sigmf-data or the name without either; else the format is `sample_format` or the suffix
    .cu8, .cs8, .cs16 or .cf32, and a name like g001_433.92M_250k.cu8 tells frequency and rate.
    Raises InputError: a file that is missing, empty or truncated, an unknown format, a wrong rate, metadata that is
    wrong or does not fit the samples.
    """
    path = Path(path)
    rate_hz = None if rate_hz is None else check_rate(path, rate_hz)
    if centre_hz is not None and not math.isfinite(centre_hz):
        raise InputError(path, "centre frequency", centre_hz, "a finite number of Hz")
    if sample_format is not None and sample_format not in SAMPLE_BYTES:
        raise InputError(path, "format", repr(sample_format), "one of " + ", ".join(SAMPLE_BYTES))
    meta = meta_path_of(path)
    if meta is not None:
        return _open_sigmf(meta, rate_hz, sample_format, centre_hz)
    return _open_raw(path, rate_hz, sample_format, centre_hz)


def check_rate(where: object, rate_hz: float) -> float:
    """The rate as a float; raises InputError unless it is 0 (unknown) or positive and finite."""
    try:
        value = float(rate_hz)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(where, "sample rate", rate_hz, "a positive number of Hz, or 0 for unknown")
    return value


def _open_raw(path: Path, rate_hz: float | None, sample_format: str | None, centre_hz: float | None) -> Recording:
    sample_format = sample_format or path.suffix[1:].lower()
    n_samples = _count(path, sample_format)
    named = _NAMED.search(path.name)
    if named is not None:
        frequency, rate = (float(text[:-1]) * _SCALE[text[-1]] for text in named.groups())
        rate_hz = rate if rate_hz is None else rate_hz
        centre_hz = frequency if centre_hz is None else centre_hz
    return Recording(path, None, sample_format, rate_hz or 0.0, n_samples, (Segment(0, centre_hz, None),))


def _count(path: Path, sample_format: str) -> int:
    """Samples of the file, in a sensible order of complaints."""
    try:
        if not path.is_file():
            raise InputError(path, "file", "a directory" if path.is_dir() else "nothing", "a recording")
        size = path.stat().st_size
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a file that can be read") from error
    if sample_format not in SAMPLE_BYTES:
        suffixes = ", ".join(SAMPLE_BYTES)
        raise InputError(
            path, "format", repr(sample_format), f"a SigMF recording, a suffix of {suffixes}, or the format given"
        )
    if size == 0:
        raise InputError(path, "size", "0 bytes", f"samples of {SAMPLE_BYTES[sample_format]} bytes")
    if size % SAMPLE_BYTES[sample_format]:
        each = SAMPLE_BYTES[sample_format]
        expected = f"a multiple of {each} bytes, one {sample_format} sample (truncated, or another format?)"
        raise InputError(path, "size", f"{size} bytes", expected)
    return size // SAMPLE_BYTES[sample_format]


def _open_sigmf(
    meta_path: Path, rate_hz: float | None, sample_format: str | None, centre_hz: float | None
) -> Recording:
    meta = load_meta(meta_path)
    fields = meta["global"]
    datatype = fields["core:datatype"]
    if datatype not in SIGMF_DATATYPES:
        raise InputError(meta_path, "core:datatype", repr(datatype), "one of " + ", ".join(SIGMF_DATATYPES))
    told = SIGMF_DATATYPES[datatype]
    if sample_format not in (None, told):
        raise InputError(meta_path, "core:datatype", repr(datatype), f"{sample_format}, the format given")
    for field, fine in (("core:num_channels", 1), ("core:trailing_bytes", 0), ("core:metadata_only", False)):
        if fields.get(field, fine) != fine:
            raise InputError(meta_path, field, fields[field], f"{fine}; nothing else can be read")
    path = _data_path(meta_path, fields)
    n_samples = _count(path, told)
    if rate_hz is None:
        rate_hz = check_rate(meta_path, fields.get("core:sample_rate", 0.0))
    segments = _segments(meta_path, meta["captures"], n_samples, centre_hz)
    return Recording(path, meta_path, told, rate_hz, n_samples, segments)


def _data_path(meta_path: Path, fields: dict[str, Any]) -> Path:
    name = fields.get("core:dataset", meta_path.name.removesuffix(".sigmf-meta") + ".sigmf-data")
    if Path(name).name != name:
        raise InputError(meta_path, "core:dataset", repr(name), "the name of a file beside the metadata")
    return meta_path.parent / name


def _segments(
    meta_path: Path, captures: list[dict[str, Any]], n_samples: int, centre_hz: float | None
) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for i, capture in enumerate(captures):
        start = capture["core:sample_start"]
        if capture.get("core:header_bytes", 0):
            raise InputError(
                meta_path,
                f"captures[{i}].core:header_bytes",
                capture["core:header_bytes"],
                "0; nothing else can be read",
            )
        if start >= n_samples:
            raise InputError(
                meta_path, f"captures[{i}].core:sample_start", start, f"less than the {n_samples} samples of the file"
            )
        frequency = capture.get("core:frequency")
        if centre_hz is not None:
            frequency = centre_hz
        segment = Segment(start, frequency, _time(meta_path, i, capture.get("core:datetime")))
        if segments and segments[-1].start_sample == start:
            segments.pop()  # of two at one sample the later counts
        segments.append(segment)
    if not segments or segments[0].start_sample > 0:
        segments.insert(0, Segment(0, centre_hz, None))
    return tuple(segments)


def _time(meta_path: Path, i: int, text: str | None) -> StreamTime | None:
    if text is None:
        return None
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InputError(meta_path, f"captures[{i}].core:datetime", repr(text), "an ISO 8601 date and time") from None
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    since = when - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return StreamTime(since.days * 86400 + since.seconds, since.microseconds / 1e6)
