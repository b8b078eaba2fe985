# SPDX-License-Identifier: GPL-3.0-or-later
"""SigMF recordings: datatypes, captures, offsets, headers, channels, times, archives, and every refusal."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Segment
from wavesfm_core.recordings.sample_formats import FORMATS, SIGMF_DATATYPES
from wavesfm_core.recordings.sigmf_recording import check_hash, read_datetime
from wavesfm_core.types import StreamTime


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


def samples(path: Path, **options: Any) -> np.ndarray:
    with open_recording(path, **options) as recording:
        return np.concatenate(list(recording.blocks(7)))


def numbers(values: np.ndarray) -> list[int]:
    """cs8 samples as the integers of their I values."""
    return np.rint(values.real * 128).astype(int).tolist()


@pytest.mark.parametrize("datatype", SIGMF_DATATYPES)
@pytest.mark.parametrize("name", ["rec.sigmf-meta", "rec.sigmf-data", "rec"])
def test_every_datatype_by_every_name(tmp_path: Path, datatype: str, name: str) -> None:
    raw = np.random.default_rng(1).bytes(1600)
    write_sigmf(tmp_path, raw, datatype)
    with open_recording(tmp_path / name) as recording, np.errstate(all="ignore"):
        assert recording.sample_format == SIGMF_DATATYPES[datatype]
        assert recording.path == tmp_path / "rec.sigmf-data"
        real = datatype.startswith("r")
        assert recording.rate_hz == (0.5e6 if real else 1e6)
        assert recording.centre_hz == 433.92e6 + (0.25e6 if real else 0.0)
        if not real:
            expected = FORMATS[recording.sample_format].complex64(np.frombuffer(raw, np.uint8))
            np.testing.assert_array_equal(np.concatenate(list(recording.blocks(7))), expected)
    assert open_recording(tmp_path / name, rate_hz=5e3).rate_hz == (2.5e3 if real else 5e3)


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
    "datatype none": ({"fields": {"core:datatype": "cf32"}}, "core:datatype: found 'cf32', expected one of"),
    "version": ({"fields": {"core:version": 1}}, "global.core:version"),
    "channels": ({"fields": {"core:num_channels": 1000}}, "core:num_channels: found 1000, expected 1 to 256"),
    "elsewhere": ({"fields": {"core:dataset": "../secret"}}, "core:dataset: found '../secret'"),
    "rate": ({"fields": {"core:sample_rate": -5}}, "core:sample_rate"),
    "rate without unit": ({"fields": {"core:sample_rate": 4}}, "sample rate: found 4, expected a number of Hz of 1000"),
    "no captures": ({"captures": None}, "captures: found nothing of the kind"),
    "capture": ({"captures": [{"core:frequency": 1.0}]}, r"captures\.0"),
    "order": ({"captures": [{"core:sample_start": 9}, {"core:sample_start": 1}]}, "incorrect sample start ordering"),
    "metadata only": ({"fields": {"core:metadata_only": True}}, "core:metadata_only: found True"),
}


@pytest.mark.parametrize("case", WRONG_META)
def test_wrong_sigmf_field_is_named(tmp_path: Path, case: str) -> None:
    changes, message = WRONG_META[case]
    meta = write_sigmf(tmp_path, bytes(40), **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_recording(meta)
    assert caught.value.where == str(meta)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"global": {}}', '{"global": NaN}', '{"global": 1e999}', "\xff"])
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


def test_another_format_than_the_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"core:datatype: found 'ci8', expected cu8, the chosen format"):
        open_recording(write_sigmf(tmp_path, bytes(40)), sample_format="cu8")


def test_an_incomplete_last_sample_is_left_out_and_noted(tmp_path: Path) -> None:
    recording = open_recording(write_sigmf(tmp_path, bytes(41)))
    assert recording.n_samples == 20
    assert recording.notes == ("the last 1 bytes are no whole sample of 2 bytes: left out",)


def test_captures_past_the_data_are_left_out_and_noted(tmp_path: Path) -> None:
    captures = [{"core:sample_start": 0, "core:frequency": 1e9}, {"core:sample_start": 20}, {"core:sample_start": 30}]
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=captures))
    assert recording.segments == (Segment(0, 1e9, None),)
    assert recording.notes == ("2 captures begin at sample 20, past the last of the 20 samples: left out",)


def test_unsorted_annotations_and_a_byte_order_mark_are_noted(tmp_path: Path) -> None:
    annotations = [{"core:sample_start": 10}, {"core:sample_start": 5}]
    meta = write_sigmf(tmp_path, bytes(40), annotations=annotations)
    meta.write_bytes(b"\xef\xbb\xbf" + meta.read_bytes())
    recording = open_recording(meta)
    assert recording.metadata is not None
    assert [each["core:sample_start"] for each in recording.metadata["annotations"]] == [5, 10]
    assert [note.partition(":")[0] for note in recording.notes] == [
        "the metadata begins with a byte order mark, which JSON does not allow",
        "the annotations are not in order",
    ]


@pytest.mark.parametrize(
    ("text", "time", "note"),
    [
        ("2024-06-05T12:00:00.123456789Z", StreamTime(1717588800, 0.123456789), None),
        ("1969-12-31T23:59:59.75Z", StreamTime(-1, 0.75), None),
        ("1969-12-31T23:00:00Z", StreamTime(-3600, 0.0), None),
        ("2016-12-31T23:59:60.5Z", StreamTime(1483228800, 0.5), "leap second"),
        ("2024-06-05 14:00:00,5+02:00", StreamTime(1717588800, 0.5), None),
        ("2024-06-05", StreamTime(1717545600, 0.0), None),
        ("2024-06-05T12:00:61Z", None, "61 seconds"),
        ("yesterday", None, "no ISO 8601"),
        ("0001-01-01T00:00:00+14:00", StreamTime(-62135647200, 0.0), None),
        (None, None, None),
    ],
)
def test_times(text: str | None, time: StreamTime | None, note: str | None) -> None:
    found, said = read_datetime(text)
    assert (found is None) == (time is None)
    if found is not None and time is not None:
        assert found.full_s == time.full_s
        assert found.frac_s == pytest.approx(time.frac_s, abs=1e-12)
    assert (said is None) if note is None else (said is not None and note in said)


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "1969-12-31T23:00:00Z"])
def test_a_time_never_refuses_a_recording(tmp_path: Path, text: str) -> None:
    captures = [{"core:sample_start": 0, "core:datetime": text}]
    assert open_recording(write_sigmf(tmp_path, bytes(40), captures=captures)).time is not None


def test_the_offset_of_a_split_recording(tmp_path: Path) -> None:
    captures = [{"core:sample_start": 1000, "core:frequency": 1e9}, {"core:sample_start": 1005, "core:frequency": 2e9}]
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=captures, fields={"core:offset": 1000}))
    assert recording.segments == (Segment(0, 1e9, None), Segment(5, 2e9, None))
    assert recording.notes == ()
    captures = [{"core:sample_start": 0, "core:frequency": 1e9}]
    recording = open_recording(write_sigmf(tmp_path, bytes(40), captures=captures, fields={"core:offset": 1000}))
    assert recording.segments == (Segment(0, 1e9, None),)
    assert recording.notes == ("captures count from the file's first sample and not from core:offset 1000",)


def test_header_and_trailing_bytes(tmp_path: Path) -> None:
    counting = np.repeat(np.arange(20, dtype="i1"), 2).tobytes()
    (tmp_path / "x.bin").write_bytes(b"H" * 3 + counting[:10] + b"h" * 5 + counting[10:] + b"T" * 7)
    captures = [
        {"core:sample_start": 0, "core:header_bytes": 3},
        {"core:sample_start": 2, "core:frequency": 1e9},
        {"core:sample_start": 5, "core:header_bytes": 5},
    ]
    fields = {"core:dataset": "x.bin", "core:trailing_bytes": 7}
    meta = write_sigmf(tmp_path, b"", captures=captures, fields=fields)
    (tmp_path / "rec.sigmf-data").unlink()
    with open_recording(meta) as recording:
        assert recording.n_samples == 20
        assert [numbers(block) for block in recording.blocks(6)] == [
            [0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17], [18, 19],
        ]  # fmt: skip
        assert numbers(np.concatenate(list(recording.blocks(100, 4, 6)))) == [4, 5]


def test_more_header_bytes_than_the_file_has(tmp_path: Path) -> None:
    captures = [{"core:sample_start": 0, "core:header_bytes": 1 << 60}]
    (tmp_path / "x.bin").write_bytes(bytes(40))
    meta = write_sigmf(tmp_path, bytes(1), captures=captures, fields={"core:dataset": "x.bin"})
    with pytest.raises(InputError, match=r"x.bin: size: found 0 bytes, expected samples of 2 bytes"):
        open_recording(meta)


def test_channels(tmp_path: Path) -> None:
    frames = np.stack([np.arange(10), np.arange(10) + 50, np.arange(10) - 90], axis=1)
    raw = np.repeat(frames.astype("i1").reshape(-1), 2).tobytes()
    meta = write_sigmf(tmp_path, raw, fields={"core:num_channels": 3})
    for channel in range(3):
        assert numbers(samples(meta, channel=channel)) == frames[:, channel].tolist()
    with open_recording(meta) as recording:
        assert recording.n_samples == 10
        assert recording.notes == ("channel 0 of 3 is read: --channel chooses another",)
    with pytest.raises(InputError, match=r"channel: found 3, expected 0 to 2, by core:num_channels"):
        open_recording(meta, channel=3)


def test_a_rate_in_the_captures(tmp_path: Path) -> None:
    def with_rates(*rates: float) -> Any:
        captures = [{"core:sample_start": i, "core:sample_rate": rate} for i, rate in enumerate(rates)]
        meta = write_sigmf(tmp_path, bytes(40), captures=captures)
        values = json.loads(meta.read_text())
        del values["global"]["core:sample_rate"]
        meta.write_text(json.dumps(values))
        return open_recording(meta)

    assert with_rates(2e6, 2e6).rate_hz == 2e6
    different = with_rates(1e6, 2e6)
    assert different.rate_hz == 0.0
    assert different.notes == ("the captures have different core:sample_rate: the rate is taken as unknown",)


def test_the_hash(tmp_path: Path) -> None:
    raw = np.random.default_rng(1).bytes(3_000_000)
    right = hashlib.sha512(raw).hexdigest()
    for stated, wrong in ((right, False), (right.upper(), False), (right[::-1], True)):
        meta = write_sigmf(tmp_path, raw, fields={"core:sha512": stated})
        with open_recording(meta) as recording:
            assert (check_hash(recording) is not None) == wrong
    with open_recording(write_sigmf(tmp_path, raw)) as recording:
        assert check_hash(recording) is None


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            (path.parent / "member").write_bytes(content)
            archive.add(path.parent / "member", name)
    return path


def archived(tmp_path: Path, raw: bytes, **changes: Any) -> dict[str, bytes]:
    meta = write_sigmf(tmp_path, raw, **changes)
    return {"rec/rec.sigmf-meta": meta.read_bytes(), "rec/rec.sigmf-data": raw}


def test_an_archive(tmp_path: Path) -> None:
    raw = np.repeat(np.arange(100, dtype="i1"), 2).tobytes()
    stated = {"core:sha512": hashlib.sha512(raw).hexdigest()}
    path = write_archive(tmp_path / "x.sigmf", archived(tmp_path, raw, fields=stated))
    with open_recording(path) as recording:
        assert (recording.path, recording.meta_path) == (path, None)
        assert (recording.n_samples, recording.rate_hz, recording.centre_hz) == (100, 1e6, 433.92e6)
        assert numbers(np.concatenate(list(recording.blocks(9)))) == list(range(100))
        assert check_hash(recording) is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["member", "rec.sigmf-data", "rec.sigmf-meta", "x.sigmf"]


def test_an_archive_of_the_library(tmp_path: Path) -> None:
    import sigmf

    raw = np.arange(1000, dtype="<c8").tobytes()
    signal = sigmf.fromfile(write_sigmf(tmp_path, raw, "cf32_le"))
    signal.archive(tmp_path / "made.sigmf")
    np.testing.assert_array_equal(samples(tmp_path / "made.sigmf"), np.arange(1000))


WRONG_ARCHIVES = {
    "no tar": (lambda members, path: path.write_bytes(b"no archive" * 100), "archive: found no tar"),
    "no metadata": (lambda members, path: write_archive(path, {"a": b"1"}), r"one named \*.sigmf-meta"),
    "no samples": (
        lambda members, path: write_archive(path, dict(list(members.items())[:1])),
        "no samples for rec/rec",
    ),
    "compressed": (lambda members, path: tarfile.open(path, "w:gz").close(), "archive: found no tar"),
}


@pytest.mark.parametrize("case", WRONG_ARCHIVES)
def test_wrong_archives(tmp_path: Path, case: str) -> None:
    make, message = WRONG_ARCHIVES[case]
    make(archived(tmp_path, bytes(40)), tmp_path / "x.sigmf")
    with pytest.raises(InputError, match=message):
        open_recording(tmp_path / "x.sigmf")


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(100))
    members = archived(tmp_path, bytes(40))
    with tarfile.open(tmp_path / "x.sigmf", "w") as archive:
        (tmp_path / "member").write_bytes(members["rec/rec.sigmf-meta"])
        archive.add(tmp_path / "member", "rec/rec.sigmf-meta")
        link = tarfile.TarInfo("rec/rec.sigmf-data")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    with pytest.raises(InputError, match="no samples for"):
        open_recording(tmp_path / "x.sigmf")


def test_several_recordings_in_an_archive_are_noted(tmp_path: Path) -> None:
    members = archived(tmp_path, bytes(40))
    again = {name.replace("rec.", "two."): content for name, content in members.items()}
    with open_recording(write_archive(tmp_path / "x.sigmf", members | again)) as recording:
        assert recording.notes == ("the archive holds 2 recordings: rec/rec.sigmf-meta is read",)
