# SPDX-License-Identifier: GPL-3.0-or-later
"""The losses against their equations, written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.loop_toys import LABELS, examples, finetuning, loop_args
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.training import DeviceExamples, Loaders, losses


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    return rng.normal(size=(10, 4)).astype(np.float32), rng.integers(4, size=10)


def test_smoothed_cross_entropy_is_equation_17(scores):
    logits, target = scores
    y = np.eye(4)[target]
    expected = -np.mean(((y * 0.8 + 0.2 / 4) * np.log(softmax(logits))).sum(1))
    found = losses.cross_entropy(torch.tensor(logits), torch.tensor(target), smoothing=0.2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_weighted_cross_entropy_is_equation_18_divided_by_the_batch_size(scores):
    logits, target = scores
    beta = np.array([0.1, 5.0, 1.0, 2.0])
    expected = -np.mean(beta[target] * np.log(softmax(logits))[np.arange(10), target])
    weights = torch.tensor(beta, dtype=torch.float32)
    found = losses.cross_entropy(torch.tensor(logits), torch.tensor(target), class_weights=weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(found) != pytest.approx(expected * 10 / beta[target].sum(), rel=1e-3)  # torch's own mean


def test_class_weights_are_one_over_the_share():
    target = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    weights = losses.class_weights(target, LABELS).numpy()
    np.testing.assert_allclose(weights / weights[0], [1, 2, 6], rtol=1e-6)
    assert weights[target].mean() == pytest.approx(1)


def test_a_class_without_examples_is_named():
    with pytest.raises(InputError, match="toy: class 'bright': found no example"):
        losses.class_weights(np.array([0, 1, 1]), LABELS, "toy")


def test_class_weights_reach_the_loss_through_a_subset(tmp_path):
    """The authors' weights were set on a data set and lost in its subset: here they are the subset's own."""
    made = examples(24)
    rows = np.array([0, 3, 6, 9, 12, 15, 1, 4, 2])  # 6 of "dark", 2 of "grey", 1 of "bright"
    args = loop_args()
    objective, _ = finetuning(args, class_weights=True)
    subset = DeviceExamples(made, "toy", indices=rows)
    objective.prepare(Loaders([subset]), torch.no_grad, torch.device("cpu"))
    np.testing.assert_allclose(objective.class_weights, [0.5, 1.5, 3.0])
    batch = subset.batch(torch.arange(9))
    assert batch["target"].tolist() == [0] * 6 + [1] * 2 + [2]
    assert batch["index"].tolist() == rows.tolist()
    logits = torch.randn(9, 3)
    expected = -np.mean(
        np.repeat([0.5, 1.5, 3.0], [6, 2, 1]) * np.log(softmax(logits.numpy()))[range(9), batch["target"]]
    )
    assert float(objective.loss(logits, batch)) == pytest.approx(expected, rel=1e-5)


def test_squared_error_is_equation_19():
    predicted, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert float(losses.squared_error(predicted, target)) == pytest.approx((1 + 4 + 9) / 2)
    assert float(losses.squared_error(predicted, target, "mean")) == pytest.approx((1 + 4 + 9) / 4)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ConfigurationError, match=r"predicted: found \(4, 1\), expected \(4, 2\)"):
        losses.squared_error(torch.zeros(4, 1), torch.zeros(4, 2))


def test_the_weight_of_an_snr_is_equation_20_above_its_floor():
    snr = torch.linspace(-10, 20, 31)
    expected = 10.6 * np.exp(0.226 * snr.numpy()) - 0.764
    np.testing.assert_allclose(losses.snr_weight(snr), expected, rtol=1e-5)
    ratio = losses.snr_weight(torch.tensor([20.0, -10.0]))
    assert float(ratio[0] / ratio[1]) == pytest.approx(2843, rel=1e-3)  # and not 100, as the paper says of it


def test_the_weight_is_never_negative():
    """As printed, a larger error at -20 dB would make the loss smaller."""
    low = torch.tensor([-11.7, -15.0, -20.0, -100.0])
    assert (10.6 * torch.exp(0.226 * low) - 0.764 < 0).all()
    assert losses.snr_weight(low).tolist() == pytest.approx([losses.SNR_WEIGHT_FLOOR] * 4)
    weight = losses.snr_weight(torch.linspace(-30, 20, 200))
    assert (weight.diff() >= 0).all()


def test_snr_weighted_error_is_equation_21():
    predicted, target = torch.zeros(2, 2, 1, 3), torch.ones(2, 2, 1, 3)
    snr = torch.tensor([0.0, 10.0])
    expected = np.mean((10.6 * np.exp(0.226 * snr.numpy()) - 0.764) * 6)
    assert float(losses.snr_weighted_squared_error(predicted, target, snr)) == pytest.approx(expected, rel=1e-5)


def test_an_unknown_snr_is_refused_before_training():
    objective, loaders = finetuning(loop_args(), "channel")
    loaders.training[0].host["snr_db"][3] = float("nan")
    with pytest.raises(InputError, match="toy: snr_db: found 1 that are not finite"):
        objective.prepare(loaders, torch.no_grad, torch.device("cpu"))
