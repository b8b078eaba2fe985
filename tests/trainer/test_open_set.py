# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores of what is unknown, calibration, and weights read back from a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle import Bundle
from wavesfm_trainer import open_set, weights
from wavesfm_trainer.import_bundle import import_bundle
from wavesfm_trainer.tasks import read_task

MODEL = Path(__file__).parents[2] / "models" / "rf20-nano"


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
    read = weights.read(path)
    assert read.extra["head"]["labels"] == list(labels)
    assert read.state["head.weight"].shape[0] == len(labels)
    assert not read.state["head.weight"][-1].any()


def test_the_open_task_has_the_classes_and_unknown():
    assert read_task("rf20-open").labels == (*read_task("rf20").labels, "unknown")
