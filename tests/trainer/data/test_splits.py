# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits: repeatable, three-way, with undivided groups and an error for a side that lacks a class."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.splits import groups_on_two_sides, split_examples
from wavesfm_trainer.data.tasks import Task

NOTHING = np.zeros((1, 2, 2), np.float32)
CLASSES = Task("toy", "classification", "rf_images", 1, labels=("a", "b", "c"))
PLACES = Task("toy", "position", "nr_positioning", 1, axes=("x", "y"))


def raws(labels: list[int], groups: list[str] | None = None, published: list[str] | None = None) -> list[Raw]:
    groups, published = groups or [""] * len(labels), published or [""] * len(labels)
    return [Raw(NOTHING, t, f"file{i}", g, p) for i, (t, g, p) in enumerate(zip(labels, groups, published))]


def test_random_has_the_shares_in_every_class() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    sides = split_examples(raws(labels), CLASSES, "random", 1)
    for label, (train, validation, test) in {0: (70, 10, 20), 1: (35, 5, 10), 2: (7, 1, 2)}.items():
        counts = np.bincount(sides[np.array(labels) == label], minlength=3)
        np.testing.assert_allclose(counts, (train, validation, test), atol=1)


def test_the_seed_decides_and_nothing_else() -> None:
    examples = raws([0, 1, 2] * 40)
    first = split_examples(examples, CLASSES, "random", 1)
    np.testing.assert_array_equal(first, split_examples(examples, CLASSES, "random", 1))
    assert (first != split_examples(examples, CLASSES, "random", 2)).any()


def snr_files(n_positions: int) -> list[Raw]:
    """As the positioning set is: every position at three SNRs (facts: defect D7, leakage)."""
    return [
        Raw(NOTHING, np.array([i, 0.0]), f"snr{snr}[{i}]", f"{i}") for snr in (10, 20, 50) for i in range(n_positions)
    ]


def test_no_position_is_on_two_sides() -> None:
    examples = snr_files(50)
    sides = split_examples(examples, PLACES, "group", 3)
    assert groups_on_two_sides(examples, sides) == 0
    np.testing.assert_allclose(np.bincount(sides) / 150, (0.7, 0.1, 0.2), atol=0.03)
    assert (sides[:50] == sides[50:100]).all() and (sides[:50] == sides[100:]).all()


def test_a_random_split_that_leaks_says_so(caplog: pytest.LogCaptureFixture) -> None:
    examples = snr_files(50)
    with caplog.at_level(logging.WARNING):
        sides = split_examples(examples, PLACES, "random", 3)
    assert groups_on_two_sides(examples, sides) > 0
    assert "lie on two sides" in caplog.text


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
)
def test_groups_stay_whole_whatever_they_are(pairs: list[tuple[int, int]], seed: int) -> None:
    examples = raws([label for label, _ in pairs], [f"g{group}" for _, group in pairs])
    try:
        sides = split_examples(examples, CLASSES, "group", seed)
    except InputError as error:
        assert error.field in ("train", "validation", "test")
        return
    assert groups_on_two_sides(examples, sides) == 0
    for side in range(3):
        assert {e.target for e, s in zip(examples, sides) if s == side} == {0, 1, 2}


def test_published_test_part_stays_the_test() -> None:
    """Defect D7: the authors' test split is their validation split; here validation comes out of training."""
    published = (["train"] * 20 + ["test"] * 10) * 3
    labels = [0] * 30 + [1] * 30 + [2] * 30
    sides = split_examples(raws(labels, None, published), CLASSES, "published", 0)
    assert all((side == 2) == (part == "test") for side, part in zip(sides, published))
    assert np.bincount(sides).tolist() in ([52, 8, 30], [53, 7, 30], [51, 9, 30], [54, 6, 30])


def test_published_validation_keeps_groups_whole() -> None:
    published = ["train"] * 60 + ["test"] * 30
    groups = [f"p{i // 5}" for i in range(60)] + [f"q{i}" for i in range(30)]
    examples = raws([i % 3 for i in range(90)], groups, published)
    task = Task("toy", "pretraining", "ntu_fi_humanid", 1)
    sides = split_examples(examples, task, "published", 0)
    assert groups_on_two_sides(examples, sides) == 0
    assert (sides == 1).sum() > 0


def test_an_example_of_no_published_part_is_named() -> None:
    with pytest.raises(InputError, match="file1: published split"):
        split_examples(raws([0, 1, 2], None, ["train", "", "test"]), CLASSES, "published", 0)


def test_an_example_without_group_is_named() -> None:
    with pytest.raises(InputError, match="file2: group"):
        split_examples(raws([0, 1, 2], ["p", "p", ""]), CLASSES, "group", 0)


def test_an_empty_class_is_named() -> None:
    with pytest.raises(InputError, match="no example of c"):
        split_examples(raws([0, 1] * 20), CLASSES, "random", 0)


def test_a_class_that_the_published_test_lacks_is_named() -> None:
    labels = [0, 1, 2] * 20
    published = ["test" if i > 40 and label != 1 else "train" for i, label in enumerate(labels)]
    with pytest.raises(InputError, match="test: found no example of b"):
        split_examples(raws(labels, None, published), CLASSES, "published", 0)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(InputError, match="validation"):
        split_examples(raws([0, 1, 2] * 10, ["p", "q"] * 15), CLASSES, "group", 0)


def test_no_examples_and_an_unknown_method() -> None:
    with pytest.raises(InputError, match="examples"):
        split_examples([], CLASSES, "random", 0)
    with pytest.raises(ConfigurationError, match="stratified"):
        split_examples(raws([0, 1, 2]), CLASSES, "stratified", 0)


@pytest.mark.parametrize("label", [3, -1, None])
def test_a_label_outside_the_list(label: int | None) -> None:
    with pytest.raises(InputError, match="file1: label"):
        split_examples([Raw(NOTHING, 0, "file0"), Raw(NOTHING, label, "file1")], CLASSES, "random", 0)
