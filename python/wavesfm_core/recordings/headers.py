# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of IQ files: WAV (RIFF and RF64, with the `auxi` chunk of receivers), SDRangel's .sdriq, PortaPack's .TXT.

The samples are mapped where they lie. The chunks of a WAV file are walked here because soundfile and scipy give neither
the `auxi` chunk nor the place of the samples.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import InputError
from ..types import StreamTime

CHUNKS_LIMIT = 1000
"""Most chunks that are read of a WAV file."""
TEXT_LIMIT = 64 << 10
"""Most bytes that are read of a text."""
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNSET_SIZES = (0, 0xFFFFFFFF)  # of a data chunk whose recording was interrupted, and of RF64
_SDRIQ = struct.Struct("<IQQIII")


class Header(NamedTuple):
    """Facts in a header about the samples behind it."""

    sample_format: str
    first_byte: int
    n_bytes: int
    rate_hz: float
    centre_hz: float | None
    time: StreamTime | None
    notes: tuple[str, ...] = ()


def read_wav(path: Path) -> Header:
    """Read the header of a WAV file. Two channels are I and Q, one channel is a real signal.

    Raises InputError where it is damaged, compressed, or has another number of channels.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(12)
        if len(start) < 12 or start[:4] not in (b"RIFF", b"RF64") or start[8:] != b"WAVE":
            raise InputError(path, "header", repr(start[:12]), "a WAV file (RIFF or RF64)")
        chunks = _walk(path, file, size)
    if chunks.format is None or chunks.data is None:
        raise InputError(path, "header", f"no {'fmt' if chunks.format is None else 'data'} chunk", "a WAV file")
    return _wav_header(path, chunks, size)


@dataclass
class _Chunks:
    """Chunks of a WAV file."""

    format: bytes | None = None
    auxi: bytes = b""
    data: tuple[int, int] | None = None
    """First byte and declared number of bytes."""
    data_bytes_64: int | None = None
    """Of RF64."""


def _walk(path: Path, file: BinaryIO, size: int) -> _Chunks:
    chunks = _Chunks()
    for _ in range(CHUNKS_LIMIT):
        head = file.read(8)
        if len(head) < 8:
            return chunks
        name, length = head[:4], int.from_bytes(head[4:], "little")
        first = file.tell()
        if name == b"data":
            if length == 0xFFFFFFFF and chunks.data_bytes_64 is not None:
                length = chunks.data_bytes_64
            chunks.data = (first, length)
            if length in _UNSET_SIZES or first + length >= size:
                return chunks
        elif name == b"fmt ":
            chunks.format = file.read(min(length, 40))
        elif name == b"auxi":
            chunks.auxi = file.read(min(length, TEXT_LIMIT))
        elif name == b"ds64":
            sizes = file.read(min(length, 24))
            if len(sizes) >= 16:
                chunks.data_bytes_64 = struct.unpack_from("<Q", sizes, 8)[0]
        file.seek(min(first + length + length % 2, size))
    if chunks.data is None:
        raise InputError(path, "header", f"more than {CHUNKS_LIMIT} chunks", "a WAV file")
    return chunks  # what follows the samples is no chunk


def _wav_header(path: Path, chunks: _Chunks, size: int) -> Header:
    assert chunks.format is not None and chunks.data is not None
    if len(chunks.format) < 16:
        raise InputError(path, "fmt chunk", f"{len(chunks.format)} bytes", "16 or more")
    tag, channels, rate_hz, _, block_bytes, bits = struct.unpack_from("<HHIIHH", chunks.format)
    if tag == _EXTENSIBLE and len(chunks.format) >= 26:
        tag = struct.unpack_from("<H", chunks.format, 24)[0]
    kinds = {(_PCM, 8): "u8", (_PCM, 16): "s16", (_PCM, 24): "s24", (_PCM, 32): "s32"}
    kinds |= {(_FLOAT, 32): "f32", (_FLOAT, 64): "f64"}
    kind = kinds.get((tag, bits))
    if kind is None:
        raise InputError(path, "sample type", f"WAV format {tag} of {bits} bits", "PCM of 8 to 32 bits or float")
    if channels not in (1, 2) or block_bytes != channels * bits // 8:
        found = f"{channels} channels in {block_bytes} bytes"
        raise InputError(path, "channels", found, "2 (I and Q) or 1 (a real signal)")
    first, declared = chunks.data
    present, notes = size - first, []
    wrapped = present > 0xFFFFFFFF and chunks.data_bytes_64 is None
    if declared in _UNSET_SIZES or declared > present or wrapped:
        # an interrupted recording, or one of more than 4 GiB whose size does not fit the header
        notes.append(f"header: {declared} bytes of samples are declared, {present} are in the file and are read")
        declared = present
    centre_hz, time = _read_auxi(chunks.auxi)
    return Header("cr"[channels == 1] + kind, first, declared, float(rate_hz), centre_hz, time, tuple(notes))


def _read_auxi(chunk: bytes) -> tuple[float | None, StreamTime | None]:
    """Centre frequency and start time of an auxi chunk: binary (SpectraVue, HDSDR, SDRuno) or XML (SDR Console)."""
    if b"<\x00?\x00x\x00m\x00l" in chunk[:16] or b"<?xml" in chunk[:8]:
        text = chunk.decode("utf-16-le" if b"<\x00" in chunk[:16] else "utf-8", errors="replace")
        frequency = re.search(r'RadioCenterFreq="(\d{1,15})"', text)
        seconds = re.search(r'UTCSeconds="(\d{1,12})"', text)
        return float(frequency[1]) if frequency else None, StreamTime(int(seconds[1]), 0.0) if seconds else None
    if len(chunk) < 36:
        return None, None
    year, month, _, day, hour, minute, second, millisecond = struct.unpack_from("<8H", chunk)
    (centre_hz,) = struct.unpack_from("<I", chunk, 32)
    try:
        when = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        return float(centre_hz) or None, None
    if millisecond > 999:
        return float(centre_hz) or None, None
    return float(centre_hz) or None, StreamTime(math.floor(when.timestamp()), millisecond / 1e3)


def read_sdriq(path: Path) -> Header:
    """Read the header of an SDRangel file. Raises InputError if it is damaged."""
    with path.open("rb") as file:
        head = file.read(_SDRIQ.size)
        size = file.seek(0, 2)
    if len(head) < _SDRIQ.size:
        raise InputError(path, "header", f"{len(head)} bytes", f"{_SDRIQ.size} bytes of SDRangel")
    rate_hz, centre_hz, stamp, bits, _, checksum = _SDRIQ.unpack(head)
    if zlib.crc32(head[:-4]) != checksum:
        raise InputError(path, "header", "a wrong checksum", "the header of SDRangel (.sdriq)")
    if bits not in (16, 24):
        raise InputError(path, "sample size", f"{bits} bits", "16 or 24")
    # older versions count seconds, newer ones milliseconds
    seconds, milliseconds = divmod(stamp, 1000) if stamp > 10**11 else (stamp, 0)
    time = StreamTime(seconds, milliseconds / 1e3) if 0 < seconds < 1 << 40 else None
    sample_format = "cs16" if bits == 16 else "cs24in32"
    return Header(sample_format, _SDRIQ.size, size - _SDRIQ.size, float(rate_hz), float(centre_hz), time)


def read_portapack(path: Path) -> tuple[float | None, float | None]:
    """Rate and centre frequency from the .TXT file beside a PortaPack's .C16 or .C8; None if missing."""
    for suffix in (".TXT", ".txt"):
        text_path = path.with_suffix(suffix)
        try:
            with text_path.open("rb") as file:
                text = file.read(TEXT_LIMIT).decode("utf-8", errors="replace")
        except OSError:
            continue
        rate = re.search(r"^sample_rate=(\d{1,12})\s*$", text, re.MULTILINE)
        centre = re.search(r"^center_frequency=(\d{1,15})\s*$", text, re.MULTILINE)
        return float(rate[1]) or None if rate else None, float(centre[1]) if centre else None
    return None, None
