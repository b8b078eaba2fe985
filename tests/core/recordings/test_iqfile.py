# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw recordings: every sample format, names, parts, and every refusal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Segment
from wavesfm_core.recordings.sample_formats import FORMATS, SUFFIXES

COMPLEX = sorted(name for name, each in FORMATS.items() if each.is_complex)


def oracle(raw: bytes, name: str) -> np.ndarray:
    """What samples of a complex format are, written again: big integers of Python and one division."""
    order: Any = "big" if name.endswith("be") else "little"
    kind, each = name[1], int("".join(filter(str.isdigit, name.replace("24in32", "32")))) // 8
    if kind == "f":
        values = np.frombuffer(raw, f"{'>' if order == 'big' else '<'}f{each}").astype("f4").astype("f8")
    else:
        numbers = [int.from_bytes(raw[i : i + each], order, signed=kind == "s") for i in range(0, len(raw), each)]
        half = 2.0 ** ((24 if "24in32" in name else 8 * each) - 1)
        values = np.array([n / half if kind == "s" else (n - half + 0.5) / (half - 0.5) for n in numbers])
    return np.ascontiguousarray(values).view(np.complex128)


def read(path: Path, block_samples: int = 1 << 18, **options: Any) -> np.ndarray:
    with open_recording(path, **options) as recording:
        blocks = list(recording.blocks(block_samples))
        assert all(block.dtype == np.complex64 and block.ndim == 1 for block in blocks)
        assert all(0 < len(block) <= block_samples for block in blocks)
        assert sum(map(len, blocks)) == recording.n_samples
    return np.concatenate(blocks)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(
    sample_format=st.sampled_from(COMPLEX),
    raw=st.binary(min_size=48, max_size=480),
    block_samples=st.integers(1, 60),
    suffix=st.booleans(),
)
def test_any_bytes(tmp_path: Path, sample_format: str, raw: bytes, block_samples: int, suffix: bool) -> None:
    raw = raw[: len(raw) // 48 * 48]
    path = tmp_path / ("x." + (sample_format if suffix else "bin"))
    path.write_bytes(raw)
    with np.errstate(all="ignore"):
        got = read(path, block_samples, sample_format=None if suffix else sample_format)
        expected = oracle(raw, sample_format)
        for part in (np.real, np.imag):
            np.testing.assert_allclose(part(got), part(expected), rtol=1e-6, atol=1e-7)


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(sample_format=st.sampled_from(COMPLEX), size=st.integers(0, 40))
def test_any_size(tmp_path: Path, sample_format: str, size: int) -> None:
    path = tmp_path / f"x.{sample_format}"
    path.write_bytes(bytes(size))
    each = FORMATS[sample_format].sample_bytes
    if size >= each:
        with open_recording(path) as recording:
            assert recording.n_samples == size // each
            assert (f"the last {size % each} bytes are no whole sample" in " ".join(recording.notes)) == (
                size % each > 0
            )
            assert sum(map(len, recording.blocks(3))) == size // each
        return
    with pytest.raises(InputError) as caught:
        open_recording(path)
    assert caught.value.where == str(path)
    assert caught.value.found == f"{size} bytes"
    assert "samples" in caught.value.expected


def test_a_part_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "x.cs8"
    path.write_bytes(np.arange(100, dtype="i1").tobytes())
    with open_recording(path) as recording:
        parts = np.concatenate(list(recording.blocks(7, start=3, stop=29)))
    np.testing.assert_array_equal(parts, (np.arange(6, 58, 2) + 1j * np.arange(7, 58, 2)) / 128)


def test_the_part_of_a_recording_is_read_by_default(tmp_path: Path) -> None:
    path = tmp_path / "x_1M_1M.cs8"
    path.write_bytes(np.arange(100, dtype="i1").tobytes())
    with open_recording(path) as recording:
        everything = np.concatenate(list(recording.blocks()))
        part = recording.part(10, 5)
        assert (part.start_sample, part.stop_sample, part.n_samples) == (10, 15, 50)
        np.testing.assert_array_equal(np.concatenate(list(part.blocks(2))), everything[10:15])
        assert recording.part(48, 100).stop_sample == 50
        for start, length in ((50, None), (0, 0), (-1, 5)):
            with pytest.raises(InputError, match=r"part: found samples .*, expected within the 50 samples"):
                recording.part(start, length)


def test_a_closed_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.cs8").write_bytes(b"1234")
    with open_recording(tmp_path / "x.cs8") as recording:
        pass
    with pytest.raises(InputError, match=r"closed file"):
        next(recording.blocks())


def test_blocks_outlive_the_recording(tmp_path: Path) -> None:
    (tmp_path / "x.cf32").write_bytes(np.array([1 + 2j], "<c8").tobytes())
    with open_recording(tmp_path / "x.cf32") as recording:
        (block,) = recording.blocks()
    block += 1
    assert block[0] == 2 + 2j
    assert read(tmp_path / "x.cf32")[0] == 1 + 2j


@pytest.mark.parametrize(
    ("name", "rate_hz", "centre_hz"),
    [
        ("g001_433.92M_250k.cu8", 250e3, 433.92e6),
        ("modes1_1090M_2M.cu8", 2e6, 1090e6),
        ("x_2.4G_1.5M.cu8", 1.5e6, 2.4e9),
        ("f1890_s19.2_bw20.cu8", 0.0, None),
        ("250k.cu8", 0.0, None),
        ("g_868M_1024K.cu8", 1024e3, 868e6),
        ("x_433920000Hz_250000sps.cu8", 250e3, 433.92e6),
        ("x_433.92M_250k.cs16 (1).cu8", 250e3, 433.92e6),
        ("x_433.92M_250k.cu8 (1)", 250e3, 433.92e6),
        ("x_48000Hz.cu8", 0.0, None),
    ],
)
def test_names_tell_frequency_and_rate(tmp_path: Path, name: str, rate_hz: float, centre_hz: float | None) -> None:
    (tmp_path / name).write_bytes(b"12")
    recording = open_recording(tmp_path / name)
    assert (recording.rate_hz, recording.centre_hz, recording.time) == (rate_hz, centre_hz, None)
    chosen = open_recording(tmp_path / name, rate_hz=1e6, centre_hz=5e6)
    assert (chosen.rate_hz, chosen.centre_hz, chosen.segments) == (1e6, 5e6, (Segment(0, 5e6, None),))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no.cu8: file: found nothing, expected a recording"):
        open_recording(tmp_path / "no.cu8")
    with pytest.raises(InputError, match=r"a directory"):
        open_recording(tmp_path)


def test_a_pipe_or_a_device_has_no_length(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.cu8")
    for path in (tmp_path / "x.cu8", Path("/dev/zero")):
        with pytest.raises(InputError, match=r"file: found a pipe or a device, expected a file, whose length is known"):
            open_recording(path, sample_format="cu8")


@pytest.mark.parametrize("name", ["x.iq", "x", "x.mp3", "x.dat"])
def test_a_name_that_does_not_tell_the_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(InputError, match=r"format: found .*--format"):
        open_recording(tmp_path / name)
    assert open_recording(tmp_path / name, sample_format="cs16").n_samples == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix(tmp_path: Path, suffix: str) -> None:
    """With bytes of that format, where the suffix alone does not tell."""
    rng = np.random.default_rng(3)
    name = SUFFIXES[suffix][0]
    values = rng.normal(0, 0.1, 40_000)
    kind, size = FORMATS[name].kind, FORMATS[name].value_bytes
    if kind == "f" or FORMATS[name].bits == 24 or FORMATS[name].full_scale_bits:
        raw = values.astype(f"f{size}").tobytes() if kind == "f" else rng.bytes(48_000)
    else:
        scale = 2.0 ** (FORMATS[name].bits - 1)
        raw = (
            np.rint(values * scale + (scale if kind == "u" else 0))
            .astype(f"{'u' if kind == 'u' else 'i'}{size}")
            .tobytes()
        )
    if FORMATS[name].big_endian and FORMATS[name].bits != 24:
        raw = np.frombuffer(raw, f"u{size}").byteswap().tobytes()
    path = tmp_path / f"x.{suffix.upper()}"
    path.write_bytes(raw)
    with open_recording(path) as recording:
        assert recording.sample_format == name
        assert any("by the look of the bytes" in note for note in recording.notes) == (len(SUFFIXES[suffix]) > 1)
        assert not any("look like" in note for note in recording.notes)


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"format: found 'mp3', expected one of cu8, "):
        open_recording(tmp_path / "x.cu8", sample_format="mp3")


def test_a_channel_of_a_raw_file(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"channel: found 1, expected 0"):
        open_recording(tmp_path / "x.cu8", channel=1)


@pytest.mark.parametrize("rate_hz", [-1.0, 4.0, 999.0, float("nan"), float("inf"), "fast"])
def test_wrong_rate(tmp_path: Path, rate_hz: Any) -> None:
    (tmp_path / "x.cu8").write_bytes(b"12")
    with pytest.raises(InputError, match=r"sample rate: found"):
        open_recording(tmp_path / "x.cu8", rate_hz=rate_hz)


def test_wrong_centre(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"12")
    with pytest.raises(InputError, match=r"centre frequency: found nan"):
        open_recording(tmp_path / "x.cu8", centre_hz=float("nan"))
