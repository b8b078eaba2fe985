# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens recordings: SigMF and its archives, WAV, .sdriq and raw files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import raw_statistics
from .headers import Header, read_portapack, read_sdriq, read_wav
from .names import NameFacts, read_name
from .recording import (
    LEAST_RATE_HZ,
    Extent,
    Recording,
    Segment,
    as_complex,
    check_rate,
    count_samples,
    file_size,
    with_doubt,
)
from .sample_formats import FORMAT_NAMES, FORMATS, SampleFormat, find_format, suffix_formats
from .sigmf_meta import is_archive, meta_path_of
from .sigmf_recording import open_archive, open_sigmf


def open_recording(
    path: str | Path,
    rate_hz: float | None = None,
    sample_format: str | None = None,
    centre_hz: float | None = None,
    channel: int | None = None,
) -> Recording:
    """Open a recording. Arguments replace what the file says.

    Parameters
    ----------
    path : str or Path
        SigMF (.sigmf-meta, .sigmf-data, the name without either, or a .sigmf archive), WAV, .sdriq, or raw samples.
    rate_hz : float, optional
        Sample rate in Hz, of a real recording that of the real samples.
    sample_format : str, optional
        Such as cs16 or ci16_le. Default: from the metadata, the header, the name or the bytes.
    centre_hz : float, optional
        Centre frequency in Hz of all segments.
    channel : int, optional
        Of a SigMF recording with several channels, from 0.

    Raises
    ------
    InputError
        A file that is missing, empty or not readable, an unknown format, a wrong rate, metadata or a header that is
        damaged or does not fit the samples.
    """
    path = Path(path)
    rate_hz = None if rate_hz is None else check_rate(path, rate_hz)
    if centre_hz is not None and not math.isfinite(centre_hz):
        raise InputError(path, "centre frequency", centre_hz, "a finite number of Hz")
    chosen = None if sample_format is None else find_format(sample_format)
    if sample_format is not None and chosen is None:
        raise InputError(path, "format", repr(sample_format), FORMAT_NAMES)
    if (meta := meta_path_of(path)) is not None:
        recording = open_sigmf(meta, rate_hz, chosen, centre_hz, channel)
    elif is_archive(path):
        file_size(path)
        recording = open_archive(path, rate_hz, chosen, centre_hz, channel)
    else:
        if channel not in (None, 0):
            raise InputError(path, "channel", channel, "0: only SigMF recordings have several channels here")
        recording = _open_file(path, rate_hz, chosen, centre_hz)
    return recording


def _open_file(path: Path, rate_hz: float | None, chosen: SampleFormat | None, centre_hz: float | None) -> Recording:
    size = file_size(path)
    name_facts = read_name(path.name)
    try:
        with path.open("rb") as file:
            magic = file.read(12)
        if magic[:4] in (b"RIFF", b"RF64") and magic[8:] == b"WAVE":
            header = read_wav(path)
        elif path.suffix.lower() == ".wav":
            raise InputError(path, "header", repr(magic), "a WAV file (RIFF or RF64)")
        elif path.suffix.lower() == ".sdriq":
            header = read_sdriq(path)
        else:
            header = None
            if path.suffix.lower() in (".c16", ".c8"):
                rate, centre = read_portapack(path)
                name_facts = name_facts._replace(
                    rate_hz=rate or name_facts.rate_hz, centre_hz=centre or name_facts.centre_hz
                )
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a file that can be read") from error
    if header is not None:
        return _of_header(path, header, name_facts, rate_hz, chosen, centre_hz)
    name, notes = (chosen.name, ()) if chosen else _raw_format(path, size, name_facts)
    return _assemble(
        path, Header(name, 0, size, 0.0, None, None, notes), name_facts, rate_hz, centre_hz, chosen is not None
    )


def _of_header(
    path: Path,
    header: Header,
    name_facts: NameFacts,
    rate_hz: float | None,
    chosen: SampleFormat | None,
    centre_hz: float | None,
) -> Recording:
    if chosen is not None and chosen.name != header.sample_format:
        note = f"format {chosen.name} as chosen; the header says {header.sample_format}"
        header = header._replace(sample_format=chosen.name, notes=(*header.notes, note))
    return _assemble(path, header, name_facts, rate_hz, centre_hz, True)


def _assemble(
    path: Path, header: Header, name_facts: NameFacts, rate_hz: float | None, centre_hz: float | None, fixed: bool
) -> Recording:
    """A recording of one extent and one segment. fixed: the format is not from the bytes and may be doubted."""
    sample_format = FORMATS[header.sample_format]
    n_samples, rest = count_samples(path, header.n_bytes, sample_format.sample_bytes)
    if rate_hz is None:
        rate_hz = header.rate_hz or name_facts.rate_hz or 0.0
        if 0 < rate_hz < LEAST_RATE_HZ:
            rate_hz = check_rate(path, rate_hz)
    if centre_hz is None:
        centre_hz = name_facts.centre_hz if header.centre_hz is None else header.centre_hz
    rate_hz, centre_hz, real = as_complex(sample_format, rate_hz, centre_hz)
    recording = Recording(
        path,
        None,
        header.sample_format,
        rate_hz,
        n_samples,
        (Segment(0, centre_hz, header.time or name_facts.time),),
        (*header.notes, *rest, *real),
        (Extent(0, header.first_byte),),
    )
    return with_doubt(recording, "another --format may be right") if fixed else recording


def _raw_format(path: Path, size: int, name_facts: NameFacts) -> tuple[str, tuple[str, ...]]:
    """Format of a raw file by its name, or by its bytes where they contradict the name or the name is ambiguous."""
    declared: Sequence[str] = (name_facts.sample_format,) if name_facts.sample_format else suffix_formats(path.name)
    if not declared:
        expected = (
            "a SigMF recording, a WAV file, or a raw file with a suffix such as .cu8, .cs16, .cfile or a --format"
        )
        raise InputError(path, "format", repr(path.suffix[1:]), expected)
    bytes_ = np.memmap(path, np.uint8, mode="r")
    found = raw_statistics.detect(np.concatenate([bytes_[slice(*each)] for each in raw_statistics.pieces(size, 16)]))
    if len(declared) == 1:
        if found is None or found == declared[0] or not FORMATS[declared[0]].is_complex:
            return declared[0], ()
        note = f"{raw_statistics.describe(found, declared[0])}; read as {found}, --format {declared[0]} insists"
        return found, (note,)
    if found is None:
        expected = f"--format, one of {', '.join(declared)}: the bytes do not tell"
        raise InputError(path, "format", f"the suffix {path.suffix}", expected)
    return found, (f"format {found} by the look of the bytes: the suffix {path.suffix} does not tell, --format does",)
