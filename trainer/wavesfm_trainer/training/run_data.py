# SPDX-License-Identifier: GPL-3.0-or-later
"""The prepared data of a run: which file, which part, which labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from wavesfm_core.errors import InputError

from ..data.cache import read_cache
from ..data.examples import Examples
from ..models.run_layout import CONFIG, read_config, weights_file
from .augmentation import Augmentation
from .batches import DeviceExamples
from .label_budget import choose_labels
from .recipes import Recipe

log = logging.getLogger(__name__)


def find_cache(data: Path, task: str) -> Path:
    """Find the prepared data of a task below a folder.

    Parameters
    ----------
    data : folder with TASK.h5 or a folder TASK of tile shards; or the prepared data themselves.
    task : name of the task.

    Raises
    ------
    InputError : there is neither.
    """
    if data.is_file() or (data / "cache.json").is_file() or (data / "train" / "cache.json").is_file():
        return data
    for path in (data / f"{task}.h5", data / task):
        if path.exists():
            return path
    raise InputError(data / f"{task}.h5", "file", "nothing", "prepared data (wavesfm-train data prepare)")


def find_test_cache(data: Path, run: Path) -> tuple[Path, str]:
    """Find the prepared data that a run is evaluated on.

    A pre-training has no test part, so it is evaluated on the validation part of its first data set.

    Returns
    -------
    The prepared data, and the part: "test" or "validation".

    Raises
    ------
    InputError : there are no such data, or the run's config.json names no task.
    """
    config = read_config(run)
    if config.get("command") == "pretrain":
        name = next(iter(config.get("data", {}).get("training", {})), "")
        return find_cache(data, name), "validation"
    task = str(config.get("task") or "")
    if not task and data.is_dir() and not (data / "cache.json").is_file():
        expected = "the task of the run, or one prepared file for --data"
        raise InputError(weights_file(run).with_name(CONFIG), "task", "nothing", expected)
    return find_cache(data, task), "test"


def read_pretraining_data(recipe: Recipe, data: Path) -> tuple[list[DeviceExamples], list[DeviceExamples]]:
    """Read all data sets of a pre-training recipe: training parts, and the validation parts that exist."""
    training, validation = [], []
    for name, use in recipe.data.items():
        cache = find_cache(data, name)
        examples = read_cache(cache, "train")
        if examples.note["task"] != name:  # a single file for --data is taken for every data set
            raise InputError(cache, "task", examples.note["task"], f"{name}, as the recipe has it")
        training.append(DeviceExamples(examples, name, for_rates(use.augmentation, examples), use.repeats))
        held_out = read_validation(cache)
        if held_out is not None:
            validation.append(DeviceExamples(held_out, name))
    return training, validation


def read_validation(cache: Path) -> Examples | None:
    """Read the validation part; None, with a warning, if the data have none."""
    try:
        return read_cache(cache, "validation")
    except InputError as error:
        if error.field != "split validation":
            raise
        log.warning("%s: no validation part, so that the last weights are kept", cache)
        return None


def labelled_examples(recipe: Recipe, name: str, examples: Examples) -> DeviceExamples:
    """Select the training examples of a fine-tuning that the recipe's label budget allows."""
    budget = recipe.labels
    rows = choose_labels(budget, examples.target, recipe.loop.seed, name)
    options = vars(budget) if budget.limits else None
    return DeviceExamples(examples, name, for_rates(recipe.augmentation, examples), indices=rows, subset=options)


def for_rates(augmentation: Augmentation, examples: Examples) -> Augmentation:
    """The augmentation without the hiding of rates if the data set has no rates."""
    return augmentation if examples.log10_rate is not None else replace(augmentation, rate_hidden=0.0)
