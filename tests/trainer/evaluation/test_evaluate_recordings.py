# SPDX-License-Identifier: GPL-3.0-or-later
"""Real recordings: which rows of a manifest count, and how verdicts are scored."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from wavesfm_core.errors import InputError
from wavesfm_core.pipeline import Pipeline
from wavesfm_trainer.evaluation.evaluate_recordings import (
    IQ_FORMATS,
    TASK_FILE,
    ManifestRow,
    Verdict,
    judge,
    read_manifest,
    score,
)
from wavesfm_trainer.signals import LABELS

MANIFEST = """file,label,sample_rate_hz,format,notes
a/one.cu8,adsb_modes,2000000,cu8,"a, b"
two.cs16,wifi_11n_ofdm20,20000000,cs16_le,
three.cf32,lte_tdd,,cf32_le,no rate
four.dat,walk,,intel5300_bfee_dat,
five.cs16,sat_gmsk,48000,cs16_le,unknown to the task
six.cs8,ook_ask_remote,250000,cs8,
seven.wav,noise,250000,wav,not IQ
"""


def write(path, text=MANIFEST):
    path.write_text(text)
    return path


def test_rows_of_iq_whose_label_the_task_knows(tmp_path):
    rows = read_manifest(write(tmp_path / "manifest.csv"))
    assert rows == [
        ManifestRow(tmp_path / "a/one.cu8", "ads-b", 2e6, "cu8"),
        ManifestRow(tmp_path / "two.cs16", "wifi", 20e6, "cs16"),
        ManifestRow(tmp_path / "three.cf32", "cellular", 0.0, "cf32"),
        ManifestRow(tmp_path / "six.cs8", "ook-ism", 250e3, "cs8"),
    ]


def test_another_task_maps_labels_otherwise(tmp_path):
    task = tmp_path / "task.yml"
    task.write_text("recordings:\n  walk*: walking\n  sat_?msk: satellite\n")
    rows = read_manifest(write(tmp_path / "manifest.csv"), task)
    assert [(row.label, row.path.name) for row in rows] == [("satellite", "five.cs16")]


def test_a_manifest_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: file: found nothing"):
        read_manifest(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"columns: found .*'path'.*expected file, label"):
        read_manifest(write(tmp_path / "manifest.csv", "path,label\nx,noise\n"))


def test_the_task_maps_to_labels_of_the_generator():
    task = yaml.safe_load(TASK_FILE.read_text())
    assert set(task["recordings"].values()) <= set(LABELS)


def test_the_task_covers_the_shared_recordings(shared_data: Path):
    manifest = next((p for p in sorted(shared_data.iterdir()) if p.name.lower() == "manifest.csv"), None)
    if manifest is None:
        pytest.skip(f"no manifest.csv in {shared_data}")
    with manifest.open(newline="") as file:
        listed = [entry for entry in csv.DictReader(file) if entry["format"] in IQ_FORMATS]
    found = {row.path for row in read_manifest(manifest)}
    missed = {entry["label"] for entry in listed if shared_data / entry["file"] not in found}
    assert missed == {"sat_gmsk", "analog_tv_secam", "dmr_unconfirmed"}  # no class of the task, or not confirmed
    assert {row.label for row in read_manifest(manifest)} >= {
        "ads-b",
        "cellular",
        "wifi",
        "ook-ism",
        "fsk-ism",
        "noise",
    }


def verdict(label, found):
    return Verdict(ManifestRow(Path("x"), label, 1e6, "cu8"), found, 0.9, 3, 0)


@pytest.mark.parametrize(
    ("label", "found", "right"),
    [
        ("wifi", "wifi", True),
        ("wifi", "noise", False),
        ("noise", "noise", True),
        ("noise", "wifi", False),
    ],
)
def test_a_verdict_is_right_when_the_label_is(label, found, right):
    assert verdict(label, found).right is right


def test_the_score_is_a_mean_over_classes():
    verdicts = [verdict("wifi", "wifi")] * 9 + [verdict("wifi", "lora"), verdict("ads-b", "dmr")]
    mean, per_class = score(verdicts)
    assert mean == pytest.approx((0.9 + 0.0) / 2)
    assert per_class == {"wifi": (9, 10), "ads-b": (0, 1)}
    assert np.isnan(score([])[0])


@pytest.mark.parametrize(("cycles", "label"), [(-0.2, "left"), (0.3, "right")])
def test_a_recording_is_judged_as_the_command_line_does(fake_bundle, tone, tmp_path, cycles, label):
    tone(cycles, 5000).tofile(tmp_path / "tone.cf32")
    pipeline = Pipeline.open(fake_bundle, device="onnxruntime")
    judged = judge(pipeline, ManifestRow(tmp_path / "tone.cf32", label, 1e6, "cf32"))
    assert judged.right
    assert (judged.found, judged.n_tiles, judged.n_gated) == (label, 3, 0)
    assert 0.5 < judged.confidence <= 1


def test_a_recording_of_noise_is_mostly_held_back(fake_bundle, tone, tmp_path):
    tone(0.0, 20 * 2048, snr_db=-200).tofile(tmp_path / "noise.cf32")
    judged = judge(
        Pipeline.open(fake_bundle, device="onnxruntime", gate_db=30),
        ManifestRow(tmp_path / "noise.cf32", "noise", 1e6, "cf32"),
    )
    assert (judged.found, judged.right, judged.n_tiles) == ("noise", True, 20)
    assert judged.n_gated > 10
