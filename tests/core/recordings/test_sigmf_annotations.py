# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotations: valid SigMF, merged, sorted, nothing lost, nothing half written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigmf
import sigmf.validate
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.recordings.findings import find_runs
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.sigmf_annotations import annotate
from wavesfm_core.types import NOISE, Prediction


def prediction(start: int, label: str, confidence: float = 0.5, **changes: Any) -> Prediction:
    fields = {
        "label": label,
        "confidence": None if label == NOISE else confidence,
        "probabilities": {},
        "start_sample": start,
        "n_samples": 10,
        "rate_hz": 1e6,
        "centre_hz": 100e6,
        "time": None,
        "partial": False,
        "latency_s": None,
        "bundle_id": "m@1",
    }
    return Prediction(**{**fields, **changes})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "g1_100M_1M.cs8"
    path.write_bytes(bytes(200))
    return path


def annotated(path: Path, predictions: list[Prediction], **options: Any) -> dict[str, Any]:
    with open_recording(path, **options) as recording:
        written = annotate(recording, find_runs(predictions))
    meta = json.loads(written.read_text())
    sigmf.validate.validate(meta)
    return meta


def spans(meta: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(a["core:sample_start"], a["core:sample_count"], a["core:label"]) for a in meta["annotations"]]


def test_a_raw_recording_gets_metadata_that_names_it(raw: Path) -> None:
    meta = annotated(raw, [prediction(0, "a", 0.25)])
    assert meta["global"] == {
        "core:datatype": "ci8",
        "core:version": sigmf.__specification__,
        "core:dataset": "g1_100M_1M.cs8",
        "core:sample_rate": 1e6,
    }
    assert meta["captures"] == [{"core:sample_start": 0, "core:frequency": 100e6}]
    assert meta["annotations"] == [
        {
            "core:sample_start": 0,
            "core:sample_count": 10,
            "core:label": "a",
            "core:comment": "confidence 0.250, mean of 1 tile",
            "core:generator": "wavesfm m@1",
            "core:freq_lower_edge": 99.6e6,
            "core:freq_upper_edge": 100.4e6,
        }
    ]


def test_the_written_pair_is_a_recording_for_both_readers(raw: Path) -> None:
    annotated(raw, [prediction(0, "a")])
    with open_recording(raw.parent / "g1_100M_1M.sigmf-meta") as recording:
        assert (recording.n_samples, recording.rate_hz, recording.centre_hz) == (100, 1e6, 100e6)
    signal = sigmf.fromfile(raw.parent / "g1_100M_1M.sigmf-meta")
    assert signal.sample_count == 100
    assert signal.get_annotations(5)[0]["core:label"] == "a"


def test_equal_labels_that_follow_one_another_are_merged(raw: Path) -> None:
    labels = ["a", "a", "b", "a", NOISE, "a", "unknown", "unknown"]
    meta = annotated(raw, [prediction(10 * i, label, 0.1 * i) for i, label in enumerate(labels)])
    assert spans(meta) == [(0, 20, "a"), (20, 10, "b"), (30, 10, "a"), (50, 10, "a"), (60, 20, "unknown")]
    assert meta["annotations"][0]["core:comment"] == "confidence 0.050, mean of 2 tiles"


def test_a_gap_a_retune_or_another_rate_is_not_merged(raw: Path) -> None:
    predictions = [
        prediction(0, "a"),
        prediction(11, "a"),
        prediction(21, "a", centre_hz=200e6),
        prediction(31, "a", centre_hz=200e6, rate_hz=2e6),
    ]
    meta = annotated(raw, predictions)
    assert [start for start, _, _ in spans(meta)] == [0, 11, 21, 31]
    assert meta["annotations"][3]["core:freq_upper_edge"] == 200.8e6


@pytest.mark.parametrize("unknown", [{"centre_hz": None}, {"rate_hz": 0.0}])
def test_no_edges_without_rate_and_centre(raw: Path, unknown: dict[str, Any]) -> None:
    (annotation,) = annotated(raw, [prediction(0, "a", **unknown)])["annotations"]
    assert "core:freq_lower_edge" not in annotation
    assert "core:freq_upper_edge" not in annotation


def test_nothing_found_is_valid_too(raw: Path) -> None:
    assert annotated(raw, [prediction(0, NOISE)])["annotations"] == []


def existing(directory: Path) -> Path:
    meta = {
        "global": {
            "core:datatype": "cu8",
            "core:version": "1.0.0",
            "core:author": "someone \u00e9",
            "my:field": {"deep": [1, 2]},
            "core:extensions": [{"name": "my", "version": "1.0.0", "optional": True}],
        },
        "captures": [{"core:sample_start": 0, "core:frequency": 1e6, "my:gain": 7}],
        "annotations": [
            {"core:sample_start": 0, "core:sample_count": 3, "core:label": "theirs"},
            {"core:sample_start": 15, "core:label": "later"},
        ],
    }
    (directory / "r.sigmf-data").write_bytes(bytes(200))
    (directory / "r.sigmf-meta").write_text(json.dumps(meta))
    return directory / "r.sigmf-meta"


def test_existing_metadata_keeps_everything(tmp_path: Path) -> None:
    path = existing(tmp_path)
    before = json.loads(path.read_text())
    after = annotated(path, [prediction(0, "a"), prediction(10, "b"), prediction(20, "c")])
    assert {k: after[k] for k in ("global", "captures")} == {k: before[k] for k in ("global", "captures")}
    labels = [a["core:label"] for a in after["annotations"]]
    assert labels == ["theirs", "a", "b", "later", "c"]
    assert [a for a in after["annotations"] if "core:generator" not in a] == before["annotations"]
    assert sorted(os.listdir(tmp_path)) == ["r.sigmf-data", "r.sigmf-meta"]


def test_a_second_run_replaces_its_own_and_keeps_those_of_another_model(raw: Path) -> None:
    annotated(raw, [prediction(0, "old")])
    annotated(raw, [prediction(0, "other", bundle_id="m@2")])
    assert spans(annotated(raw, [prediction(0, "new")])) == [(0, 10, "other"), (0, 10, "new")]


def test_metadata_of_another_recording_is_not_touched(raw: Path) -> None:
    annotated(raw, [prediction(0, "a")])
    before = (raw.parent / "g1_100M_1M.sigmf-meta").read_bytes()
    twin = raw.with_suffix(".cu8")
    twin.write_bytes(bytes(200))
    with (
        open_recording(twin) as recording,
        pytest.raises(InputError, match=r"core:dataset: found 'g1_100M_1M.cs8', expected 'g1_100M_1M.cu8'"),
    ):
        annotate(recording, find_runs([prediction(0, "a")]))
    assert (raw.parent / "g1_100M_1M.sigmf-meta").read_bytes() == before


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = existing(tmp_path)
    before = path.read_bytes()

    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with (
        open_recording(path) as recording,
        pytest.raises(ConfigurationError, match=r"r.sigmf-meta: file: found Permission denied"),
    ):
        annotate(recording, find_runs([prediction(0, "a")]))
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["r.sigmf-data", "r.sigmf-meta"]


def test_metadata_elsewhere_leaves_the_recordings_own_alone(raw: Path, tmp_path: Path) -> None:
    beside = raw.with_name("g1_100M_1M.sigmf-meta")
    annotated(raw, [prediction(0, "a")])
    before = beside.read_bytes()
    elsewhere = tmp_path / "elsewhere" / beside.name
    elsewhere.parent.mkdir()
    elsewhere.write_text("something old")
    for path in (raw, beside):
        with open_recording(path) as recording:
            assert annotate(recording, find_runs([prediction(10, "b")]), elsewhere) == elsewhere
        meta = json.loads(elsewhere.read_text())
        sigmf.validate.validate(meta)
        assert spans(meta) == [(10, 10, "b")]
        assert meta["global"]["core:dataset"] == raw.name
    assert beside.read_bytes() == before
    with open_recording(raw) as recording:  # named, but where it would go anyway: what is there stays
        annotate(recording, find_runs([prediction(10, "b", bundle_id="other@1")]), beside)
    assert spans(json.loads(beside.read_text())) == [(0, 10, "a"), (10, 10, "b")]


def test_a_run_without_a_finding_takes_the_earlier_ones_away(raw: Path) -> None:
    annotated(raw, [prediction(0, "a")])
    assert annotated(raw, [prediction(0, NOISE)])["annotations"] == []


def test_viewers_find_the_samples_under_the_name_of_the_metadata(raw: Path) -> None:
    annotated(raw, [prediction(0, "a")])
    link = raw.with_suffix(".sigmf-data")
    assert (link.is_symlink(), os.readlink(link)) == (True, raw.name)
    annotated(raw, [prediction(0, "b")])  # again
    assert link.samefile(raw)


def test_a_file_in_the_place_of_the_link_stays(raw: Path) -> None:
    raw.with_suffix(".sigmf-data").write_bytes(b"other")
    annotated(raw, [prediction(0, "a")])
    assert raw.with_suffix(".sigmf-data").read_bytes() == b"other"


def test_links_and_modes_stay(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    target = existing(tmp_path / "archive")
    target.chmod(0o600)
    for name in ("r.sigmf-meta", "r.sigmf-data"):
        (tmp_path / name).symlink_to(tmp_path / "archive" / name)
    meta = annotated(tmp_path / "r.sigmf-meta", [prediction(0, "a")])
    assert (tmp_path / "r.sigmf-meta").is_symlink()
    assert json.loads(target.read_text()) == meta
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path / "archive")) == ["r.sigmf-data", "r.sigmf-meta"]


def test_elsewhere_gets_a_link_to_the_samples(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").mkdir()
    path = existing(tmp_path / "mine")
    with open_recording(path) as recording:
        annotate(recording, find_runs([prediction(0, "a")]), tmp_path / "out" / "named.sigmf-meta")
    assert (tmp_path / "out" / "named.sigmf-data").samefile(tmp_path / "mine" / "r.sigmf-data")
    with open_recording(tmp_path / "out" / "named") as recording:
        assert recording.n_samples == 100


def test_another_recording_in_the_place_of_the_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.sigmf-data").write_bytes(b"other")
    with (
        open_recording(existing(tmp_path)) as recording,
        pytest.raises(ConfigurationError, match=r"r.sigmf-data: file: found another recording"),
    ):
        annotate(recording, find_runs([prediction(0, "a")]), tmp_path / "out" / "r.sigmf-meta")
    assert not (tmp_path / "out" / "r.sigmf-meta").exists()


def test_the_offset_of_a_split_recording(tmp_path: Path) -> None:
    path = existing(tmp_path)
    meta = json.loads(path.read_text())
    meta["global"]["core:offset"] = 1000
    meta["captures"][0]["core:sample_start"] = 1000
    meta["annotations"] = []
    path.write_text(json.dumps(meta))
    assert spans(annotated(path, [prediction(20, "a")])) == [(1020, 10, "a")]


def test_a_recording_with_a_header_says_where_its_samples_are(tmp_path: Path) -> None:
    from scipy.io import wavfile

    values = np.random.default_rng(1).integers(-9000, 9000, (50, 2)).astype("<i2")
    wavfile.write(tmp_path / "baseband_100000000Hz_1-2-3_1-1-2024.wav", 1_000_000, values)
    (path,) = tmp_path.glob("*.wav")
    with path.open("ab") as file:
        file.write(b"LIST" + bytes(7))
    meta = annotated(path, [prediction(0, "a")])
    assert meta["captures"] == [{"core:sample_start": 0, "core:frequency": 100e6, "core:header_bytes": 44}]
    assert meta["global"]["core:trailing_bytes"] == 11
    assert not path.with_suffix(".sigmf-data").exists()  # viewers would take the header for samples
    with open_recording(path) as one, open_recording(path.with_suffix(".sigmf-meta")) as other:
        assert (other.n_samples, other.rate_hz, other.centre_hz) == (50, 1e6, 100e6)
        np.testing.assert_array_equal(next(one.blocks()), next(other.blocks()))


def test_an_archive_gets_metadata_beside_it(tmp_path: Path) -> None:
    signal = sigmf.fromfile(existing(tmp_path))
    signal.archive(tmp_path / "made.sigmf")
    meta = annotated(tmp_path / "made.sigmf", [prediction(20, "a")])
    assert [annotation["core:label"] for annotation in meta["annotations"]] == ["theirs", "later", "a"]
    with open_recording(tmp_path / "made.sigmf-meta") as recording:
        assert (recording.n_samples, recording.centre_hz) == (100, 1e6)


def test_a_real_recording_is_annotated_in_its_own_samples(tmp_path: Path) -> None:
    path = tmp_path / "x.rs16"
    path.write_bytes(bytes(400))
    meta = annotated(path, [prediction(20, "a")], rate_hz=2e6, centre_hz=100e6)
    assert spans(meta) == [(40, 20, "a")]
    assert (meta["global"]["core:datatype"], meta["global"]["core:sample_rate"]) == ("ri16_le", 2e6)
    assert meta["captures"][0]["core:frequency"] == 100e6
    with open_recording(path.with_suffix(".sigmf-meta")) as recording:
        assert (recording.rate_hz, recording.centre_hz, recording.n_samples) == (1e6, 100.5e6, 100)


def test_24_bits_have_no_datatype(tmp_path: Path) -> None:
    path = tmp_path / "x.cs24"
    path.write_bytes(bytes(600))
    with open_recording(path) as recording, pytest.raises(InputError, match=r"format: found samples of 24 bits"):
        annotate(recording, [])


def test_a_guess_is_marked(raw: Path) -> None:
    (annotation,) = annotated(raw, [prediction(0, "a", rate_note="unknown")])["annotations"]
    assert annotation["core:comment"] == "confidence 0.500, mean of 1 tile; sample rate unknown"
