# SPDX-License-Identifier: GPL-3.0-or-later
"""SigMF recordings and archives: what the metadata says about samples, captures, times and channels."""

from __future__ import annotations

import datetime
import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..types import StreamTime
from .recording import (
    CHANNELS_LIMIT,
    Extent,
    Recording,
    Segment,
    as_complex,
    check_rate,
    count_samples,
    file_size,
    with_doubt,
)
from .sample_formats import FORMATS, SIGMF_DATATYPES, SampleFormat
from .sigmf_meta import DATA, META, load_meta, read_archive

_DATETIME = re.compile(r"(.*\d:\d\d:)(\d\d)(?:[.,](\d+))?(.*)")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class _Options(NamedTuple):
    """What the caller chose, each None where the metadata decides."""

    rate_hz: float | None
    sample_format: SampleFormat | None
    centre_hz: float | None
    channel: int | None


def open_sigmf(
    meta_path: Path,
    rate_hz: float | None,
    sample_format: SampleFormat | None,
    centre_hz: float | None,
    channel: int | None,
) -> Recording:
    """The recording of a .sigmf-meta file; see `open_recording`."""
    meta, notes = load_meta(meta_path)
    path = _data_path(meta_path, meta["global"])
    span = (0, file_size(path))
    return _open(meta_path, path, span, meta, notes, _Options(rate_hz, sample_format, centre_hz, channel))


def open_archive(
    path: Path,
    rate_hz: float | None,
    sample_format: SampleFormat | None,
    centre_hz: float | None,
    channel: int | None,
) -> Recording:
    """The first recording of a .sigmf archive; see `open_recording`."""
    meta, member, notes = read_archive(path)
    span = (member.first_byte, member.n_bytes)
    return _open(None, path, span, meta, notes, _Options(rate_hz, sample_format, centre_hz, channel))


def check_hash(recording: Recording) -> str | None:
    """A sentence when the samples do not have the core:sha512 of their metadata; reads all of them."""
    expected = (recording.metadata or {}).get("global", {}).get("core:sha512")
    if expected is None:
        return None
    digest = hashlib.sha512()
    with recording.path.open("rb") as file:
        left = recording.path.stat().st_size
        if recording.meta_path is None:
            _, member, _ = read_archive(recording.path)
            file.seek(member.first_byte)
            left = member.n_bytes
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    if digest.hexdigest() == str(expected).lower():
        return None
    return "core:sha512 of the metadata is not that of the samples: they were changed, or belong to other metadata"


def _open(
    meta_path: Path | None,
    path: Path,
    span: tuple[int, int],
    meta: dict[str, Any],
    notes: tuple[str, ...],
    options: _Options,
) -> Recording:
    """span: first byte and number of bytes of the data set in the file `path`."""
    where, fields = meta_path or path, meta["global"]
    declared = _declared_format(where, fields, options.sample_format)
    n_channels, channel, channel_notes = _channels(where, fields, options.channel)
    frame_bytes = declared.sample_bytes * n_channels
    captures, offset_notes = _file_captures(meta["captures"], fields.get("core:offset", 0))
    headers = sum(capture.get("core:header_bytes", 0) for capture in captures)
    sample_bytes = span[1] - headers - fields.get("core:trailing_bytes", 0)
    n_samples, rest_notes = count_samples(path, sample_bytes, frame_bytes)
    rate_hz, rate_notes = _rate(where, meta, options.rate_hz)
    used, late_notes = _within(captures, n_samples, declared.stored_per_sample)
    segments, time_notes = _segments(used, options.centre_hz, declared)
    complex_rate_hz, _, real_notes = as_complex(declared, rate_hz, None)
    if not declared.is_complex:
        segments = [each._replace(centre_hz=as_complex(declared, rate_hz, each.centre_hz)[1]) for each in segments]
    recording = Recording(
        path,
        meta_path,
        declared.name,
        complex_rate_hz,
        n_samples,
        tuple(segments),
        (*notes, *channel_notes, *offset_notes, *rest_notes, *rate_notes, *late_notes, *time_notes, *real_notes),
        _extents(used, span[0], declared, n_channels),
        n_channels,
        channel,
        meta,
    )
    return with_doubt(recording, "the core:datatype may be wrong")


def _data_path(meta_path: Path, fields: dict[str, Any]) -> Path:
    name = fields.get("core:dataset", meta_path.name.removesuffix(META) + DATA)
    if not name or Path(name).name != name:
        raise InputError(meta_path, "core:dataset", repr(name), "the name of a file beside the metadata")
    return meta_path.parent / name


def _declared_format(where: Path, fields: dict[str, Any], chosen: SampleFormat | None) -> SampleFormat:
    if fields.get("core:metadata_only", False):
        raise InputError(where, "core:metadata_only", True, "metadata of samples")
    datatype = fields["core:datatype"]
    if datatype not in SIGMF_DATATYPES:
        raise InputError(where, "core:datatype", repr(datatype), "one of " + ", ".join(sorted(SIGMF_DATATYPES)))
    declared = FORMATS[SIGMF_DATATYPES[datatype]]
    if chosen is not None and chosen.name != declared.name:
        raise InputError(where, "core:datatype", repr(datatype), f"{chosen.name}, the chosen format")
    return declared


def _channels(where: Path, fields: dict[str, Any], channel: int | None) -> tuple[int, int, tuple[str, ...]]:
    count = fields.get("core:num_channels", 1)
    if not 1 <= count <= CHANNELS_LIMIT:
        raise InputError(where, "core:num_channels", count, f"1 to {CHANNELS_LIMIT}")
    if channel is not None and not 0 <= channel < count:
        raise InputError(where, "channel", channel, f"0 to {count - 1}, by core:num_channels")
    if count > 1 and channel is None:
        return count, 0, (f"channel 0 of {count} is read: --channel chooses another",)
    return count, channel or 0, ()


def _file_captures(captures: list[dict[str, Any]], offset: int) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Captures counted from the first sample of the file; the specification counts from core:offset."""
    if not offset or not captures:
        return captures, ()
    if captures[0]["core:sample_start"] < offset:
        return captures, (f"captures count from the file's first sample and not from core:offset {offset}",)
    return [{**each, "core:sample_start": each["core:sample_start"] - offset} for each in captures], ()


def _rate(where: Path, meta: dict[str, Any], chosen: float | None) -> tuple[float, tuple[str, ...]]:
    """Of the stored samples, from the global section or, as some writers have it, from the captures."""
    if chosen is not None:
        return chosen, ()
    if "core:sample_rate" in meta["global"]:
        return check_rate(where, meta["global"]["core:sample_rate"]), ()
    rates = {each["core:sample_rate"] for each in meta["captures"] if "core:sample_rate" in each}
    if len(rates) > 1:
        return 0.0, ("the captures have different core:sample_rate: the rate is taken as unknown",)
    if rates:
        rate_hz = check_rate(where, rates.pop())
        return rate_hz, ("core:sample_rate is in the captures and not in the global section: read all the same",)
    return 0.0, ()


def _within(
    captures: list[dict[str, Any]], n_samples: int, stored: int
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Captures that begin within the data, and a note about the others."""
    used = [each for each in captures if (each["core:sample_start"] + stored - 1) // stored < n_samples]
    late = captures[len(used) :]
    if not late:
        return used, ()
    first = late[0]["core:sample_start"]
    stored_samples = n_samples * stored
    note = f"{len(late)} captures begin at sample {first}, past the last of the {stored_samples} samples: left out"
    return used, (note,)


def _segments(
    captures: list[dict[str, Any]], centre_hz: float | None, declared: SampleFormat
) -> tuple[list[Segment], tuple[str, ...]]:
    segments: list[Segment] = []
    notes: list[str] = []
    stored = declared.stored_per_sample
    for i, capture in enumerate(captures):
        start = (capture["core:sample_start"] + stored - 1) // stored
        frequency = capture.get("core:frequency") if centre_hz is None else centre_hz
        time, note = read_datetime(capture.get("core:datetime"))
        notes += [f"captures[{i}]: {note}"] if note else []
        if segments and segments[-1].start_sample == start:
            segments.pop()  # of two at one sample the later counts
        segments.append(Segment(start, frequency, time))
    if not segments or segments[0].start_sample > 0:
        segments.insert(0, Segment(0, centre_hz, None))
    return segments, tuple(notes)


def _extents(
    captures: list[dict[str, Any]], first_byte: int, declared: SampleFormat, n_channels: int
) -> tuple[Extent, ...]:
    """Where samples lie: before those of a capture there may be header bytes."""
    extents = [Extent(0, first_byte)]
    stored_bytes = declared.sample_bytes * n_channels // declared.stored_per_sample
    headers = 0
    for capture in captures:
        if header := capture.get("core:header_bytes", 0):
            headers += header
            start, odd = divmod(capture["core:sample_start"], declared.stored_per_sample)
            stored = capture["core:sample_start"] + odd
            if extents[-1].start_sample == start + odd:
                extents.pop()
            extents.append(Extent(start + odd, first_byte + headers + stored * stored_bytes))
    return tuple(extents)


def read_datetime(text: str | None) -> tuple[StreamTime | None, str | None]:
    """An ISO 8601 date and time to its last digit, and a note where it is a leap second or cannot be read."""
    if text is None:
        return None, None
    match = _DATETIME.fullmatch(text)
    seconds, fraction = 0, 0.0
    if match:
        seconds, fraction = int(match[2]), float(f"0.{match[3] or 0}")
        text_to_minute = match[1] + "00" + match[4]
    try:
        when = datetime.datetime.fromisoformat(text_to_minute if match else text)
        since = (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return None, f"core:datetime {text[:40]!r} is no ISO 8601 date and time: the time is unknown"
    if seconds > 60:
        return None, f"core:datetime {text[:40]!r} has {seconds} seconds: the time is unknown"
    note = "core:datetime is a leap second: taken as the first second after it" if seconds == 60 else None
    return StreamTime(since.days * 86400 + since.seconds + seconds, fraction + since.microseconds / 1e6), note
