# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotations: valid SigMF, merged, sorted, nothing lost, nothing half written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import sigmf
import sigmf.validate
from wavesfm_core.errors import ConfigurationError, InputError
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
        written = annotate(recording, predictions)
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
            "core:freq_lower_edge": 99.5e6,
            "core:freq_upper_edge": 100.5e6,
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
    assert meta["annotations"][3]["core:freq_upper_edge"] == 201e6


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
        annotate(recording, [prediction(0, "a")])
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
        annotate(recording, [prediction(0, "a")])
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
            assert annotate(recording, [prediction(10, "b")], elsewhere) == elsewhere
        meta = json.loads(elsewhere.read_text())
        sigmf.validate.validate(meta)
        assert spans(meta) == [(10, 10, "b")]
        assert meta["global"]["core:dataset"] == raw.name
    assert beside.read_bytes() == before
    with open_recording(raw) as recording:  # named, but where it would go anyway: what is there stays
        annotate(recording, [prediction(10, "b", bundle_id="other@1")], beside)
    assert spans(json.loads(beside.read_text())) == [(0, 10, "a"), (10, 10, "b")]
