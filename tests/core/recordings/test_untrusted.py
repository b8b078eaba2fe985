# SPDX-License-Identifier: GPL-3.0-or-later
"""Any bytes under any name are read or refused with InputError; never another exception, never much memory."""

from __future__ import annotations

import io
import json
import resource
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.sigmf_recording import check_hash

META: dict[str, Any] = {
    "global": {"core:datatype": "ci16_le", "core:version": "1.2.0", "core:sample_rate": 1e6, "core:sha512": "0" * 128},
    "captures": [{"core:sample_start": 0, "core:frequency": 1e8, "core:datetime": "2024-06-05T12:00:00Z"}],
    "annotations": [{"core:sample_start": 0, "core:sample_count": 4}],
}


def wav() -> bytes:
    body = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 2_000_000, 8_000_000, 4, 16)
    body += b"auxi" + struct.pack("<I8H8H9I96s", 164, *(1,) * 16, *(7,) * 9, b"") + b"data" + struct.pack("<I", 4000)
    return b"RIFF" + struct.pack("<I", len(body) + 4004) + b"WAVE" + body + bytes(4000)


def rf64() -> bytes:
    return b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, 1, 4000, 1000, 0) + wav()[12:]


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, content in (("x.sigmf-meta", json.dumps(META).encode()), ("x.sigmf-data", bytes(4000))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def sdriq() -> bytes:
    head = struct.pack("<IQQII", 2_400_000, 433_920_000, 1, 16, 0)
    return head + struct.pack("<I", zlib.crc32(head)) + bytes(4000)


SEEDS = {
    "x.wav": wav(),
    "x64.wav": rf64(),
    "x.sigmf": archive(),
    "x.sdriq": sdriq(),
    "x.sigmf-meta": json.dumps(META).encode(),
}


def read(path: Path) -> None:
    """Open and read a few samples."""
    try:
        with open_recording(path) as recording, np.errstate(all="ignore"):
            assert recording.n_samples > 0
            next(recording.blocks(1000))
            next(recording.blocks(1000, max(recording.n_samples - 5, 0)))
            check_hash(recording)
    except InputError:
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SEEDS)))
    content = bytearray(SEEDS[name])
    for place in data.draw(st.lists(st.integers(0, min(len(content), 1200) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "x.sigmf-data").write_bytes(bytes(4000))
    (tmp_path / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    read(tmp_path / name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["x.wav", "x.sigmf", "x.sdriq", "x.sigmf-meta", "x.C16", "x.raw", "x.dat", "x.cf32"]),
    start=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"RF64\0\0\0\0WAVE", b"{", b"\xef\xbb\xbf{"]),
    content=st.binary(max_size=3000),
)
def test_random_bytes(tmp_path: Path, name: str, start: bytes, content: bytes) -> None:
    (tmp_path / "x.TXT").write_bytes(content)
    (tmp_path / name).write_bytes(start + content)
    read(tmp_path / name)


NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.none(), st.booleans())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    field=st.sampled_from(
        ["core:sample_rate", "core:offset", "core:num_channels", "core:trailing_bytes", "core:dataset", "core:datatype"]
    ),
    capture=st.sampled_from(
        ["core:sample_start", "core:header_bytes", "core:frequency", "core:datetime", "core:sample_rate"]
    ),
    values=st.tuples(NUMBERS, NUMBERS),
)
def test_any_values_in_metadata(tmp_path: Path, field: str, capture: str, values: tuple[Any, Any]) -> None:
    meta = json.loads(json.dumps(META))
    meta["global"] |= {"core:dataset": "x.bin", field: values[0]}
    meta["captures"][0][capture] = values[1]
    (tmp_path / "x.bin").write_bytes(bytes(4000))
    (tmp_path / "x.sigmf-meta").write_text(json.dumps(meta))
    read(tmp_path / "x.sigmf-meta")


@pytest.mark.parametrize("name", ["x.wav", "x.sigmf", "x.sigmf-meta", "x.raw"])
def test_a_huge_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    """100 GB of zeros behind a header; the file is sparse."""
    path = tmp_path / name
    path.write_bytes(b"" if name == "x.raw" else SEEDS[name])
    with path.open("r+b") as file:
        file.truncate(100 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kB


def test_an_archive_header_that_asks_for_memory(tmp_path: Path) -> None:
    """A pax header of 90 GB in a sparse file."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 90 << 30
    path = tmp_path / "x.sigmf"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as file:
        file.truncate(100 << 30)
    with pytest.raises(InputError, match="archive: found no tar"):
        open_recording(path)
