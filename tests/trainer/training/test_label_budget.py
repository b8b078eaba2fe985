# SPDX-License-Identifier: GPL-3.0-or-later
"""Few labels: which rows a budget allows."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.training.label_budget import LabelBudget, choose_labels

TARGET = np.repeat(np.arange(4), (50, 30, 10, 3))


def chosen(seed=0, target=TARGET, **options):
    return choose_labels(LabelBudget(**options), target, seed, "toy")


def test_all_labels_by_default():
    assert chosen() is None


def test_as_many_of_each_class_as_asked_for(caplog):
    rows = chosen(labels_per_class=5)
    assert np.bincount(TARGET[rows]).tolist() == [5, 5, 5, 3]
    assert len(set(rows)) == len(rows) and (np.diff(rows) > 0).all()
    assert "toy: class 3 has 3 examples, fewer than the 5 asked for" in caplog.text


def test_a_fraction_is_of_each_class_and_never_nothing():
    assert np.bincount(TARGET[chosen(label_fraction=0.1)]).tolist() == [5, 3, 1, 1]
    positions = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    assert len(chosen(target=positions, label_fraction=0.1)) == 20


def test_seed_and_budget_alone_decide():
    assert chosen(1, labels_per_class=5).tolist() == chosen(1, labels_per_class=5).tolist()
    assert chosen(1, labels_per_class=5).tolist() != chosen(2, labels_per_class=5).tolist()
    fixed = [chosen(seed, labels_per_class=5, label_seed=7).tolist() for seed in (1, 2)]
    assert fixed[0] == fixed[1] == chosen(7, labels_per_class=5).tolist()


def test_fewer_labels_are_a_part_of_more():
    assert set(chosen(labels_per_class=2)) < set(chosen(labels_per_class=5))
    assert set(chosen(label_fraction=0.1)) < set(chosen(label_fraction=0.5))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"labels_per_class": -1}, "labels_per_class: found -1"),
        ({"label_fraction": 0.0}, "label_fraction: found 0.0"),
        ({"label_fraction": 0.5, "labels_per_class": 2}, "label_fraction: found 0.5 with labels_per_class 2"),
    ],
)
def test_contradictions_are_named(options, found):
    with pytest.raises(ConfigurationError, match=found):
        LabelBudget(**options)


def test_a_task_without_classes_has_no_labels_per_class():
    with pytest.raises(ConfigurationError, match="labels_per_class: found 2, expected 0 for a task without classes"):
        chosen(target=np.zeros((5, 2), np.float32), labels_per_class=2)
