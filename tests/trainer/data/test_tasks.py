# SPDX-License-Identifier: GPL-3.0-or-later
"""Task files: those in the package are read, and errors name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.data.readers.registry import READERS
from wavesfm_trainer.data.tasks import read_task, task_names
from wavesfm_trainer.signals import LABELS

GOOD = {
    "name": "toy",
    "kind": "classification",
    "reader": "rf_images",
    "channels": 1,
    "labels": "[a, b]",
}


def task_file(directory: Path, **changes: object) -> Path:
    lines = [f"{key}: {value}" for key, value in {**GOOD, **changes}.items() if value is not None]
    path = directory / "toy.yml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", task_names())
def test_every_task_that_ships_reads_and_has_a_reader(name: str) -> None:
    task = read_task(name)
    assert task.name == name
    assert task.reader in {*READERS, "tiles"}
    assert task.loss


def test_the_papers_tasks_ship() -> None:
    four = {"human-activity": 6, "rf-classification": 20, "positioning": 3, "channel-estimation": 16}
    for name, size in four.items():
        task = read_task(name)
        answer = task.labels or task.axes or task.grid[:1]
        assert (len(answer) if name != "channel-estimation" else answer[0]) == size
    assert {read_task(n).kind for n in ("rf-spectrograms", "wifi-csi", "csi-5g")} == {"pretraining"}
    assert read_task("human-activity").labels == ("run", "walk", "fall", "box", "circle", "clean")
    assert read_task("rf20").labels == LABELS


def test_where_a_random_split_leaks_the_group_split_is_the_default() -> None:
    assert read_task("positioning").split == "group"
    assert read_task("wifi-csi").split == "group"
    assert read_task("csi-5g").split == "group"
    assert read_task("human-activity").split == "published"


def test_a_file_reads(tmp_path: Path) -> None:
    task = read_task(task_file(tmp_path, shares="[0.5, 0.25, 0.25]", options="{scene: indoor}"))
    assert task.labels == ("a", "b")
    assert task.shares == (0.5, 0.25, 0.25)
    assert task.options == {"scene": "indoor"}
    assert task.loss == "cross_entropy"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lables": "[a, b]"}, "lables"),
        ({"kind": "segmentation"}, "kind"),
        ({"kind": None}, "kind"),
        ({"channels": "one"}, "channels"),
        ({"channels": 0}, "channels"),
        ({"labels": "[a, a]"}, "labels"),
        ({"labels": "[a]"}, "labels"),
        ({"labels": None}, "labels"),
        ({"axes": "[x, y]"}, "axes"),
        ({"kind": "position"}, "labels"),
        ({"grid": "[4, 2]"}, "grid"),
        ({"loss": "mse"}, "loss"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"metrics": "[mse]"}, "metrics"),
        ({"split": "stratified"}, "split"),
        ({"shares": "[0.5, 0.5, 0.5]"}, "shares"),
        ({"shares": "[0.0, 0.5, 0.5]"}, "shares"),
        ({"range": "[1.0, 0.0]"}, "range"),
        ({"bounds": "[0.0]"}, "bounds"),
        ({"decibel_floor": -1.0}, "decibel_floor"),
        ({"pooling": "max"}, "pooling"),
        ({"options": "[1]"}, "options"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, changes: dict[str, object], field: str) -> None:
    path = task_file(tmp_path, **changes)
    with pytest.raises(ConfigurationError) as caught:
        read_task(path)
    assert caught.value.field == field
    assert caught.value.where == str(path)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- a\n- b", "!!python/object:os.system {}", ""])
def test_a_file_that_is_no_task(tmp_path: Path, text: str) -> None:
    path = tmp_path / "toy.yml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        read_task(path)


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="positioning"):
        read_task("no-such-task")
