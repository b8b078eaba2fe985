# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings: every format, every refusal, and what names and metadata tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import SAMPLE_BYTES, Segment, open_recording
from wavesfm_core.types import StreamTime

# what a sample is, written again
ORACLE = {
    "cu8": lambda raw: (np.frombuffer(raw, "u1").astype("f8") - 127.5) / 127.5,
    "cs8": lambda raw: np.frombuffer(raw, "i1").astype("f8") / 128,
    "cs16": lambda raw: np.frombuffer(raw, "<i2").astype("f8") / 32768,
    "cf32": lambda raw: np.frombuffer(raw, "<f4").astype("f8"),
}
DATATYPES = {"cu8": "cu8", "cs8": "ci8", "cs16": "ci16_le", "cf32": "cf32_le"}


def oracle(raw: bytes, sample_format: str) -> np.ndarray:
    return np.ascontiguousarray(ORACLE[sample_format](raw)).view(np.complex128)


def read(path: Path, block_samples: int = 1 << 18, **options: Any) -> np.ndarray:
    with open_recording(path, **options) as recording:
        blocks = list(recording.blocks(block_samples))
        assert all(block.dtype == np.complex64 and block.ndim == 1 for block in blocks)
        assert all(0 < len(block) <= block_samples for block in blocks)
        assert sum(map(len, blocks)) == recording.n_samples
    return np.concatenate(blocks)


def write_sigmf(directory: Path, raw: bytes, datatype: str = "ci8", **changes: Any) -> Path:
    meta = {
        "global": {"core:datatype": datatype, "core:version": "1.2.0", "core:sample_rate": 1e6},
        "captures": [{"core:sample_start": 0, "core:frequency": 433.92e6}],
        "annotations": [],
    }
    meta["global"].update(changes.pop("fields", {}))
    meta.update(changes)
    (directory / "rec.sigmf-data").write_bytes(raw)
    (directory / "rec.sigmf-meta").write_text(json.dumps(meta))
    return directory / "rec.sigmf-meta"


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(
    sample_format=st.sampled_from(sorted(SAMPLE_BYTES)),
    raw=st.binary(min_size=8, max_size=400),
    block_samples=st.integers(1, 60),
    suffix=st.booleans(),
)
def test_any_bytes(tmp_path: Path, sample_format: str, raw: bytes, block_samples: int, suffix: bool) -> None:
    raw = raw[: len(raw) // 8 * 8]
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
@given(sample_format=st.sampled_from(sorted(SAMPLE_BYTES)), size=st.integers(0, 40))
def test_any_size(tmp_path: Path, sample_format: str, size: int) -> None:
    path = tmp_path / f"x.{sample_format}"
    path.write_bytes(bytes(size))
    each = SAMPLE_BYTES[sample_format]
    if size and size % each == 0:
        with open_recording(path) as recording:
            assert recording.n_samples == size // each
        return
    with pytest.raises(InputError) as caught:
        open_recording(path)
    assert caught.value.where == str(path)
    assert caught.value.found == f"{size} bytes"
    assert f"{each} bytes" in caught.value.expected


def test_a_part_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "x.cs8"
    path.write_bytes(np.arange(100, dtype="i1").tobytes())
    with open_recording(path) as recording:
        parts = np.concatenate(list(recording.blocks(7, start=3, stop=29)))
    np.testing.assert_array_equal(parts, (np.arange(6, 58, 2) + 1j * np.arange(7, 58, 2)) / 128)


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
    ],
)
def test_names_tell_frequency_and_rate(tmp_path: Path, name: str, rate_hz: float, centre_hz: float | None) -> None:
    (tmp_path / name).write_bytes(b"12")
    recording = open_recording(tmp_path / name)
    assert (recording.rate_hz, recording.centre_hz, recording.time) == (rate_hz, centre_hz, None)
    told = open_recording(tmp_path / name, rate_hz=1e6, centre_hz=5e6)
    assert (told.rate_hz, told.centre_hz, told.segments) == (1e6, 5e6, (Segment(0, 5e6, None),))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no.cu8: file: found nothing, expected a recording"):
        open_recording(tmp_path / "no.cu8")
    with pytest.raises(InputError, match=r"a directory"):
        open_recording(tmp_path)


@pytest.mark.parametrize("name", ["x.iq", "x", "x.wav", "x.sigmf"])
def test_a_name_that_does_not_tell_the_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(InputError, match=r"format: found '.*', expected .*cu8, cs8, cs16, cf32"):
        open_recording(tmp_path / name)
    assert open_recording(tmp_path / name, sample_format="cs16").n_samples == 1


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"format: found 'cf64'"):
        open_recording(tmp_path / "x.cu8", sample_format="cf64")


@pytest.mark.parametrize("rate_hz", [-1.0, float("nan"), float("inf"), "fast"])
def test_wrong_rate(tmp_path: Path, rate_hz: Any) -> None:
    (tmp_path / "x.cu8").write_bytes(b"12")
    with pytest.raises(InputError, match=r"sample rate: found"):
        open_recording(tmp_path / "x.cu8", rate_hz=rate_hz)


def test_wrong_centre(tmp_path: Path) -> None:
    (tmp_path / "x.cu8").write_bytes(b"12")
    with pytest.raises(InputError, match=r"centre frequency: found nan"):
        open_recording(tmp_path / "x.cu8", centre_hz=float("nan"))


@pytest.mark.parametrize("sample_format", sorted(SAMPLE_BYTES))
@pytest.mark.parametrize("name", ["rec.sigmf-meta", "rec.sigmf-data", "rec"])
def test_sigmf(tmp_path: Path, sample_format: str, name: str) -> None:
    raw = np.arange(64, dtype="u1").tobytes()
    write_sigmf(tmp_path, raw, DATATYPES[sample_format])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(read(tmp_path / name), oracle(raw, sample_format), rtol=1e-6, atol=1e-7)
    recording = open_recording(tmp_path / name)
    assert (recording.rate_hz, recording.centre_hz) == (1e6, 433.92e6)
    assert recording.path == tmp_path / "rec.sigmf-data"
    assert open_recording(tmp_path / name, rate_hz=5.0).rate_hz == 5.0


def test_sigmf_segments(tmp_path: Path) -> None:
    captures = [
        {"core:sample_start": 0, "core:frequency": 1e9, "core:datetime": "2024-05-01T12:00:00.25Z"},
        {"core:sample_start": 5, "core:frequency": 2e9},
        {"core:sample_start": 9, "core:datetime": "1970-01-01T00:00:10+00:00"},
    ]
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=captures))
    assert recording.segments == (
        Segment(0, 1e9, StreamTime(1714564800, 0.25)),
        Segment(5, 2e9, None),
        Segment(9, None, StreamTime(10, 0.0)),
    )
    assert recording.time == StreamTime(1714564800, 0.25)


def test_sigmf_without_or_with_a_late_capture(tmp_path: Path) -> None:
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=[]))
    assert recording.segments == (Segment(0, None, None),)
    late = [{"core:sample_start": 4, "core:frequency": 1e9}]
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=late))
    assert recording.segments == (Segment(0, None, None), Segment(4, 1e9, None))


def test_sigmf_of_a_file_with_another_name(tmp_path: Path) -> None:
    meta = write_sigmf(tmp_path, bytes(40), fields={"core:dataset": "capture.bin"})
    (tmp_path / "capture.bin").write_bytes(bytes(6))
    assert open_recording(meta).n_samples == 3


WRONG_META = {
    "datatype be": ({"fields": {"core:datatype": "cf32_be"}}, "core:datatype: found 'cf32_be', expected one of"),
    "datatype real": ({"fields": {"core:datatype": "rf32_le"}}, "core:datatype: found 'rf32_le'"),
    "datatype none": ({"fields": {"core:datatype": "cf32"}}, "core:datatype: found 'cf32', expected one of"),
    "version": ({"fields": {"core:version": 1}}, "global.core:version"),
    "channels": ({"fields": {"core:num_channels": 2}}, "core:num_channels: found 2, expected 1"),
    "elsewhere": ({"fields": {"core:dataset": "../secret"}}, "core:dataset: found '../secret'"),
    "rate": ({"fields": {"core:sample_rate": -5}}, "core:sample_rate"),
    "no captures": ({"captures": None}, "captures: found nothing of the kind"),
    "capture": ({"captures": [{"core:frequency": 1.0}]}, r"captures\.0"),
    "beyond": ({"captures": [{"core:sample_start": 20}]}, r"captures\[0\].core:sample_start: found 20"),
    "order": ({"captures": [{"core:sample_start": 9}, {"core:sample_start": 1}]}, "incorrect sample start ordering"),
    "header": ({"captures": [{"core:sample_start": 0, "core:header_bytes": 4}]}, "core:header_bytes: found 4"),
}


@pytest.mark.parametrize("case", WRONG_META)
def test_wrong_sigmf_field_is_named(tmp_path: Path, case: str) -> None:
    changes, message = WRONG_META[case]
    meta = write_sigmf(tmp_path, bytes(40), **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_recording(meta)
    assert caught.value.where == str(meta)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"global": {}}', '{"global": NaN}', "\xff"])
def test_metadata_that_is_none(tmp_path: Path, text: str) -> None:
    meta = write_sigmf(tmp_path, bytes(40))
    meta.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=r"rec.sigmf-meta"):
        open_recording(meta)


def test_sigmf_without_its_samples_or_metadata(tmp_path: Path) -> None:
    meta = write_sigmf(tmp_path, bytes(40))
    (tmp_path / "rec.sigmf-data").unlink()
    with pytest.raises(InputError, match=r"rec.sigmf-data: file: found nothing"):
        open_recording(meta)
    (tmp_path / "lone.sigmf-data").write_bytes(bytes(4))
    with pytest.raises(InputError, match=r"lone.sigmf-meta: file: found nothing"):
        open_recording(tmp_path / "lone.sigmf-data")


def test_sigmf_with_odd_bytes_or_another_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rec.sigmf-data: size: found 41 bytes"):
        open_recording(write_sigmf(tmp_path, bytes(41)))
    with pytest.raises(InputError, match=r"core:datatype: found 'ci8', expected cu8, the format given"):
        open_recording(write_sigmf(tmp_path, bytes(40)), sample_format="cu8")
