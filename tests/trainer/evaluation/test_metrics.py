# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of merit from integer labels."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.data.tile_dataset import Tiles
from wavesfm_trainer.evaluation import metrics
from wavesfm_trainer.evaluation.evaluate_tiles import synthetic_report, tile_logits
from wavesfm_trainer.evaluation.metrics import class_accuracy, confusion_matrix, format_confusion, mean_class_accuracy

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
    sources = [SimpleNamespace(name=name, source=name) for name in ("tile", "log10_rate")]
    bundle = SimpleNamespace(preprocess=spec, inputs=sources, outputs=[SimpleNamespace(name="logits")])
    pipeline = SimpleNamespace(engine=Spy(), bundle=SimpleNamespace(spec=bundle))
    logits = tile_logits(pipeline, tiles([0] * 7, [0.0] * 7, [448] * 7), batch_tiles=3)
    assert np.allclose(logits.ravel(), (np.arange(7) / 255 - 0.5) / 0.25, atol=1e-6)


def test_the_authors_count_absent_classes_as_zero():
    assert mean_class_accuracy(LABEL, PREDICTED, 4, absent="zero") == pytest.approx((0.75 + 0.5 + 0) / 4)
    with pytest.raises(ConfigurationError, match="mean_class_accuracy: absent: found 'skip'"):
        mean_class_accuracy(LABEL, PREDICTED, 4, absent="skip")


def test_top_accuracy_by_hand_and_nothing_for_ties_or_nan():
    logits = np.array([[4.0, 3, 2, 1], [1, 2, 3, 4], [1, 1, 1, 1], [math.nan] * 4])
    label = np.array([2, 0, 1, 3])
    assert metrics.top_accuracy(logits, label, 3) == 0.25
    assert metrics.top_accuracy(logits[:2], label[:2], 2) == 0.0
    assert metrics.top_accuracy(logits[:2], label[:2], 4) == 1.0


def test_macro_f1_by_hand():
    # class 0: TP 3, FP 1, FN 1; class 1: TP 1, FP 0, FN 1; class 3: TP 0; class 2 has no samples
    expected = (6 / 8 + 2 / 3 + 0) / 3
    assert metrics.macro_f1(confusion_matrix(LABEL, PREDICTED, 4)) == pytest.approx(expected)


def test_position_metrics_by_hand():
    target = np.zeros((4, 2), np.float32)
    predicted = np.array([[3, 4], [0, 1], [0, -1], [1, 0]], np.float32)  # 5, 1, 1, 1 m off
    found = metrics.position_metrics(predicted, target, ("x", "y"))
    assert found["mean_error_m"] == 2.0
    assert found["std_error_m"] == pytest.approx(math.sqrt(3))  # of the population
    assert (found["median_error_m"], found["p75_error_m"]) == (1.0, 2.0)
    assert found["p90_error_m"] == pytest.approx(3.8)
    assert (found["absolute_error_x_m"], found["bias_x_m"]) == (1.0, 1.0)
    assert (found["absolute_error_y_m"], found["bias_y_m"]) == (1.5, 1.0)


def test_channel_errors_are_of_complex_coefficients_whatever_the_layout():
    rng = np.random.default_rng(1)
    h, guess = (rng.normal(size=(3, 2, 4, 10)).astype(np.float32) for _ in range(2))
    as_complex = [x[:, 0] + 1j * x[:, 1] for x in (guess, h)]
    error, power = metrics.channel_errors(guess, h)
    assert np.allclose(error, np.mean(np.abs(as_complex[0] - as_complex[1]) ** 2, axis=(1, 2)), rtol=1e-6)
    assert np.allclose((error, power), metrics.channel_errors(*as_complex), rtol=1e-6)
    assert np.allclose(power, np.mean(np.abs(as_complex[1]) ** 2, axis=(1, 2)), rtol=1e-6)


def test_channel_metrics_weigh_by_power():
    found = metrics.channel_metrics(np.array([1.0, 1.0]), np.array([1.0, 199.0]))
    assert found == {"mse": 1.0, "nmse_db": pytest.approx(-20.0)}


def test_over_snr_bins_around_multiples_and_leaves_the_unknown_out():
    snr = np.array([-10.0, -9.1, -8.9, 0.0, math.nan, math.inf])
    curve = metrics.over_snr(np.array([1.0, 3, 5, 0.1, 7, 7]), np.array([2.0, 2, 5, 1, 1, 1]), snr)
    assert curve.snr_db.tolist() == [-10, -8, 0]
    assert curve.n.tolist() == [2, 1, 1]
    assert curve.mse.tolist() == [2.0, 5.0, 0.1]
    assert curve.nmse_db == pytest.approx([0.0, 0.0, -10.0])


def test_epochs_to_convergence():
    epochs = np.array([1, 2, 3, 4, 5])
    accuracy = np.array([0.5, 0.895, math.nan, 0.90, 0.90])
    assert metrics.best_epoch(epochs, accuracy, "max") == 4
    assert metrics.converged_epoch(epochs, accuracy, "max") == 2
    assert metrics.converged_epoch(epochs, accuracy, "max", tolerance=0.001) == 4
    assert metrics.best_epoch(epochs, accuracy, "min") == 1
    with pytest.raises(ConfigurationError, match="values: found 5 without a finite one"):
        metrics.best_epoch(epochs, np.full(5, math.nan), "min")
    with pytest.raises(ConfigurationError, match="mode: found 'best'"):
        metrics.best_epoch(epochs, accuracy, "best")


def test_seed_interval_is_students():
    found = metrics.seed_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n, found.std) == (2.0, 3, 1.0)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2)
    alone = metrics.seed_interval([0.5])
    assert alone.mean == 0.5
    assert math.isnan(alone.low) and math.isnan(alone.half) and math.isnan(alone.std)


def test_difference_interval_is_welchs():
    a, b = [1.0, 2.0, 3.0], [2.0, 6.0, 4.0, 4.0]
    found = metrics.difference_interval(a, b)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert math.isnan(metrics.difference_interval([1.0], b).low)
    assert metrics.difference_interval([1.0, 1.0], [2.0, 2.0]).half == 0


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean_and_repeats():
    x = np.random.default_rng(2).normal(5, 2, 400)
    found = metrics.bootstrap_interval(lambda i: float(x[i].mean()), len(x))
    assert found.half == pytest.approx(1.96 * x.std() / 20, rel=0.1)
    assert found == metrics.bootstrap_interval(lambda i: float(x[i].mean()), len(x))


def test_bootstrap_over_groups_is_wider_because_their_samples_agree():
    rng = np.random.default_rng(3)
    groups = np.repeat(["a", "b", "c", "d", "e", "f", "g", "h"], 50)
    x = np.repeat(rng.normal(size=8), 50) + rng.normal(scale=0.1, size=400)
    over_samples = metrics.bootstrap_interval(lambda i: float(x[i].mean()), 400)
    over_groups = metrics.bootstrap_interval(lambda i: float(x[i].mean()), 400, groups)
    assert over_groups.half > 4 * over_samples.half
    one = metrics.bootstrap_interval(lambda i: float(x[i].mean()), 400, np.zeros(400, int))
    assert math.isnan(one.low) and one.mean == pytest.approx(x.mean())
