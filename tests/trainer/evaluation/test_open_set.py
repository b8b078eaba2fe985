# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores of what is unknown, calibration, and weights read back from a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.heads import softmax
from wavesfm_trainer.data.tasks import read_task
from wavesfm_trainer.data.tile_dataset import write_shards
from wavesfm_trainer.evaluation import open_set
from wavesfm_trainer.evaluation.average import average_runs, save_half
from wavesfm_trainer.evaluation.calibrate import calibrate_run, choose
from wavesfm_trainer.evaluation.open_report import held_out_report, recordings_report, views_report
from wavesfm_trainer.evaluation.torch_engine import open_pipeline
from wavesfm_trainer.evaluation.trained_run import load_task_run
from wavesfm_trainer.export.import_bundle import import_bundle
from wavesfm_trainer.models import registry
from wavesfm_trainer.signals.outliers import HELD_OUT
from wavesfm_trainer.signals.views import view_dataset

MODEL = Path(__file__).parents[3] / "models" / "rf20-nano"


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(1)
    known, unknown = rng.integers(0, 10, 40) * 1.0, rng.integers(3, 13, 30) * 1.0
    pairs = [(u > k) + 0.5 * (u == k) for u in unknown for k in known]
    assert open_set.auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert open_set.auroc(known, known) == pytest.approx(0.5)
    assert np.isnan(open_set.auroc(known, np.array([])))


def test_false_positives_and_thresholds():
    known, unknown = np.arange(100.0), np.arange(90.0, 190.0)
    assert open_set.false_positives(known, unknown) == pytest.approx(0.05, abs=0.01)
    assert np.mean(known > open_set.threshold_for(known, 0.05)) <= 0.05


def test_scores_rank_an_unknown_logit():
    labels = ("a", "b", "unknown")
    scores = open_set.rejection_scores(np.array([[5.0, 0, 0], [0, 0, 5.0]]), labels)
    for values in scores.values():
        assert values[1] > values[0]


def test_the_temperature_that_scaled_the_logits_is_found():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20_000, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (p.cumsum(axis=1) > rng.random((len(p), 1))).argmax(axis=1)
    assert open_set.fit_temperature(logits * 3, label) == pytest.approx(3, rel=0.05)


def test_calibration_error_of_honest_and_of_boastful_confidence():
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.2, 1, 50_000)
    right = rng.random(50_000) < confidence
    assert open_set.calibration_error(confidence, right) < 0.01
    assert open_set.calibration_error(np.full(1000, 0.9), np.arange(1000) % 2 == 0) == pytest.approx(0.4, abs=0.01)


def test_distance_is_small_near_a_class():
    rng = np.random.default_rng(4)
    label = np.repeat([0, 1], 500)
    features = rng.normal(0, 1, (1000, 4)) + 6 * label[:, None]
    means, precision = open_set.class_statistics(features, label, 2)
    near = open_set.feature_distance(features, means, precision)
    far = open_set.feature_distance(features + np.array([12.0, -12, 12, -12]), means, precision)
    assert open_set.auroc(near, far) > 0.99


def test_a_bundle_gives_its_weights_back(tmp_path):
    labels = (*Bundle.open(MODEL).spec.head.labels, "another")
    path = import_bundle(MODEL, tmp_path / "w.safetensors", labels)
    read = registry.read(path)
    assert read.extra["head"]["labels"] == list(labels)
    assert read.state["head.weight"].shape[0] == len(labels)
    assert not read.state["head.weight"][-1].any()


def test_the_open_task_has_the_classes_and_unknown():
    assert read_task("rf20-open").labels == (*read_task("rf20").labels, "unknown")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The shipped weights as a run with a label for the unknown, and some tiles of views and of held-out families."""
    root = tmp_path_factory.mktemp("open")
    (root / "run").mkdir()
    import_bundle(MODEL, root / "run" / "weights.safetensors", read_task("rf20-open").labels)
    spec = SpectrogramSpec()
    for name, count in (("zoom", 24), ("held-out", 8)):
        write_shards(root / name, view_dataset(name, 5, 40_960, spec.min_samples), spec, count)
    return root


def test_calibration_goes_into_the_head_and_is_taken_off_again_when_training_goes_on(run):
    made = calibrate_run(run / "run", run / "zoom")
    head = load_task_run(run / "run").head
    assert (head.temperature, head.unknown_from) == (made.temperature, made.unknown_from)
    assert head.temperature > 0
    assert 0 < head.unknown_from <= 1
    assert made.error_after <= made.error_before + 0.05


def test_at_most_the_share_asked_for_is_rejected():
    rng = np.random.default_rng(6)
    label = rng.integers(0, 3, 4000)
    logits = rng.normal(0, 1, (4000, 3)) + 4 * np.eye(3)[label]
    head = HeadSpec("classification", labels=("a", "b", "unknown"))
    made = choose(logits, label, np.full(4000, 20.0), head, rejected=0.03)
    p = softmax(logits / made.temperature)
    known = label != 2
    rejected = (p.argmax(1) == 2) | (p[:, 2] >= made.unknown_from)
    assert rejected[known].mean() == pytest.approx(made.rejected)
    assert made.rejected <= 0.031
    assert choose(logits, label, np.full(4000, 20.0), HeadSpec("classification", labels=("a", "b", "c"))).rejected == 0


def test_the_report_counts_families_and_views(run):
    pipeline = open_pipeline(run / "run", "cpu")
    views = views_report(pipeline, run / "zoom")
    assert views["n_tiles"] == 24
    assert 0 <= views["calibration_error"] <= 1
    report = held_out_report(pipeline, run / "zoom", run / "held-out")
    assert set(report["by_family"]) <= set(HELD_OUT)
    assert set(report["scores"]) == {"probability", "confidence", "energy", "margin"}


def test_a_recording_is_seen_whole_and_zoomed(run, tmp_path):
    rng = np.random.default_rng(7)
    iq = 0.02 * (rng.standard_normal(100_000) + 1j * rng.standard_normal(100_000))
    iq[30_000:60_000] += np.exp(2j * np.pi * (0.2 * np.arange(30_000) + 2 * np.sin(0.05 * np.arange(30_000))))
    iq.astype(np.complex64).tofile(tmp_path / "one.cf32")
    (tmp_path / "MANIFEST.csv").write_text("file,label,sample_rate_hz,format\none.cf32,sat_gmsk,1000000,cf32_le\n")
    report = recordings_report(open_pipeline(run / "run", "cpu"), tmp_path / "MANIFEST.csv")
    kinds = [entry["kind"] for entry in report["files"]]
    assert kinds == ["whole", "zoom"]
    assert {entry["label"] for entry in report["files"]} == {"unknown"}


def test_the_mean_of_runs_and_halves(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    record = registry.read(run / "run" / "weights.safetensors")
    moved = {name: tensor + 1 for name, tensor in record.state.items()}
    registry.save(other / "weights.safetensors", registry.load(record.where), record.extra, moved)
    path = average_runs([run / "run", other], tmp_path / "mean")
    mean = registry.read(path).state
    assert all(np.allclose(mean[name], record.state[name] + 0.5, atol=1e-5) for name in mean)
    half = save_half(path, tmp_path / "half.safetensors")
    assert half.stat().st_size < 0.55 * path.stat().st_size
    again = registry.read(half).state
    assert np.allclose(again["head.weight"], mean["head.weight"], atol=2e-3)
    with pytest.raises(ConfigurationError, match="two or more"):
        average_runs([other], tmp_path / "one")
