"""Figures of merit from integer labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from wavesfm_core.spec import SpectrogramSpec
from wavesfm_trainer.evaluation import predict_tiles, synthetic_report
from wavesfm_trainer.metrics import class_accuracy, confusion_matrix, format_confusion, mean_class_accuracy
from wavesfm_trainer.tiles import Tiles

LABEL = np.array([0, 0, 0, 0, 1, 1, 3])
PREDICTED = np.array([0, 0, 0, 2, 1, 3, 0])


def test_confusion_counts_truth_by_prediction():
    confusion = confusion_matrix(LABEL, PREDICTED, 4)
    assert confusion.tolist() == [[3, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_an_absent_class_counts_neither_way():
    accuracy = class_accuracy(confusion_matrix(LABEL, PREDICTED, 4))
    assert accuracy[[0, 1, 3]].tolist() == [0.75, 0.5, 0.0]
    assert math.isnan(accuracy[2])
    assert mean_class_accuracy(LABEL, PREDICTED, 4) == pytest.approx((0.75 + 0.5 + 0) / 3)


def test_every_class_has_the_same_weight():
    label = np.array([0] * 99 + [1])
    assert mean_class_accuracy(label, np.zeros(100, int), 2) == 0.5


def test_format_leaves_absent_classes_out():
    lines = format_confusion(confusion_matrix(LABEL, PREDICTED, 4), ("ais", "dab", "gsm", "wifi")).splitlines()
    assert lines[0].split() == ["0", "1", "2", "3"]
    assert [line.split() for line in lines[1:]] == [
        ["0", "ais", "3", ".", "1", "."],
        ["1", "dab", ".", "1", ".", "1"],
        ["3", "wifi", "1", ".", ".", "."],
    ]
    assert len({len(line) for line in lines}) == 1


def tiles(label, snr_db, rows):
    n = len(label)
    picture = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    return Tiles(picture, np.array(label), np.full(n, 6.0, np.float32), np.array(snr_db), np.array(rows, np.int32))


def test_report_splits_by_snr_and_length():
    data = tiles([0, 0, 1, 1], [12.0, -3.0, 15.0, 22.0], [448, 448, 100, 448])
    logits = np.eye(2)[[0, 1, 0, 1]]
    report = synthetic_report(logits, data, ("a", "b"), 448)
    assert report["n_tiles"] == 4
    assert report["mean_class_accuracy"] == 0.5
    assert report["mean_class_accuracy_10db"] == 0.75  # a 1 of 1, b 1 of 2
    assert report["mean_class_accuracy_10db_full_tiles"] == 1.0
    assert report["mean_class_accuracy_10db_partial"] == 0.0
    assert report["by_snr_db"]["-5..0"] == 0.0
    assert report["by_snr_db"]["30..61"] is None  # no such tiles: JSON has no NaN
    assert report["class_accuracy_10db"] == {"a": 1.0, "b": 0.5}
    assert report["confusion_10db"] == [[1, 0], [1, 1]]


def test_predictions_are_of_standardised_tiles_in_order():
    class Spy:
        description, relative_tolerance = "spy", 0.0

        def run(self, inputs):
            assert inputs["tile"].dtype == np.float32
            assert inputs["log10_rate"].shape == (len(inputs["tile"]), 1)
            return {"logits": inputs["tile"][:, 0, 0, :1]}

    spec = SpectrogramSpec(mean=0.5, std=0.25)
    logits = predict_tiles(Spy(), tiles([0] * 7, [0.0] * 7, [448] * 7), spec, batch=3)
    assert np.allclose(logits.ravel(), (np.arange(7) / 255 - 0.5) / 0.25, atol=1e-6)
