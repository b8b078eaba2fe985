# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard input and named pipes: the samples of the same bytes in a file, in pieces of any size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.iqstream import IQStream, is_stream
from wavesfm_core.recordings.sample_formats import FORMATS

RAW = np.random.default_rng(3).bytes(48 * 700)


class Pieces:
    """A pipe that gives what it has: pieces of the sizes in turn."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    def read1(self, count: int) -> bytes:
        size = min(count, self.sizes[0])
        self.sizes = [*self.sizes[1:], self.sizes[0]]
        piece, self.data = self.data[:size], self.data[size:]
        return piece


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(data: bytes, *sizes: int) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Pieces(data, list(sizes or (1 << 20,)))))

    return put


def expected(tmp_path: Path, raw: bytes, name: str) -> np.ndarray:
    (tmp_path / "file").write_bytes(raw)
    with open_recording(tmp_path / "file", sample_format=name) as recording, np.errstate(all="ignore"):
        return np.concatenate(list(recording.blocks()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    block=st.sampled_from([64, 333, 1 << 18]),
)
def test_any_pieces(tmp_path: Path, stdin: Callable[..., None], name: str, sizes: list[int], block: int) -> None:
    stdin(RAW, *sizes)
    with IQStream("-", sample_format=name) as stream, np.errstate(all="ignore"):
        found = np.concatenate(list(stream.blocks(block)))
    np.testing.assert_array_equal(found, expected(tmp_path, RAW, name))


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "rtl_433.92M_250k.cu8"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(RAW + b"\1"))
    writer.start()
    assert is_stream(path)
    with IQStream(path) as stream:
        assert (stream.rate_hz, stream.segments[0].centre_hz, stream.sample_format) == (250e3, 433.92e6, "cu8")
        found = np.concatenate(list(stream.blocks(1000)))
        assert stream.notes == ("the last 1 bytes are no whole sample: left out",)
    writer.join()
    np.testing.assert_array_equal(found, expected(tmp_path, RAW, "cu8"))


def test_a_part_of_a_stream(tmp_path: Path, stdin: Callable[..., None]) -> None:
    whole = expected(tmp_path, RAW, "cs8")
    stdin(RAW, 777)
    with IQStream("-", sample_format="cs8", start=1000, length=3000) as stream:
        assert (stream.segments[0].start_sample, stream.stop_sample) == (1000, 4000)
        np.testing.assert_array_equal(np.concatenate(list(stream.blocks(500))), whole[1000:4000])
    stdin(RAW, 777)
    with IQStream("-", sample_format="cs8", start=len(whole)) as stream:
        assert list(stream.blocks()) == []


def test_an_endless_stream_is_read_as_far_as_asked() -> None:
    def endless(count: int) -> Iterator[Any]:
        with IQStream("/dev/zero", sample_format="cs16", length=count) as stream:
            yield from stream.blocks(1000)

    assert sum(map(len, endless(12_345))) == 12_345


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "format: found none, expected --format, one of cu8"),
        ({"sample_format": "mp3"}, "format: found 'mp3'"),
        ({"sample_format": "cu8", "rate_hz": 4.0}, "sample rate: found 4.0"),
    ],
)
def test_wrong_options(stdin: Callable[..., None], options: dict[str, Any], message: str) -> None:
    stdin(b"")
    with pytest.raises(InputError, match=f"standard input: {message}"):
        IQStream("-", **options)


def test_a_wav_header_is_no_sample(stdin: Callable[..., None]) -> None:
    stdin(b"RIFF" + RAW)
    with IQStream("-", sample_format="cs16") as stream, pytest.raises(InputError, match="format: found a WAV header"):
        next(stream.blocks())


def test_bytes_of_another_format_are_doubted(stdin: Callable[..., None]) -> None:
    stdin(np.random.default_rng(1).normal(size=20_000).astype("<f4").tobytes())
    with IQStream("-", sample_format="cs16") as stream:
        list(stream.blocks(100))
        assert "look like cf32 and not like cs16" in stream.notes[0]
        assert "another --format may be right" in stream.notes[0]


def test_files_and_folders_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"12")
    assert not is_stream(tmp_path / "x.cu8")
    assert not is_stream(tmp_path)
    assert not is_stream(tmp_path / "missing")
    assert is_stream("-")
    with pytest.raises(InputError, match="missing: file: found No such file"):
        IQStream(tmp_path / "missing", sample_format="cu8")
