# SPDX-License-Identifier: GPL-3.0-or-later
"""Model and objective of a fine-tuning, from its recipe, task and data."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from wavesfm_core.bundle.spec import HeadSpec, from_dict
from wavesfm_core.errors import ConfigurationError, InputError

from ..data.tasks import Task, read_task
from ..models import registry, weights
from ..models.pretrained import load_pretrained
from ..models.run_layout import weights_file
from ..models.task_model import OUTPUTS, TaskArgs, TaskModel
from .objectives import FinetuneArgs, FinetuneObjective
from .recipes import Recipe

log = logging.getLogger(__name__)


def make_objective(recipe: Recipe, task: Task, head: HeadSpec, channels: int, start: Path | None) -> FinetuneObjective:
    """Build the model of a fine-tuning and its objective.

    Parameters
    ----------
    recipe : of the fine-tuning.
    task : the task to learn.
    head : meaning of the model's outputs.
    channels : channel count of the tiles.
    start : run or weights file to start from; None: from scratch.
    """
    args = _task_args(recipe, task, head)
    if start is None:
        model = TaskModel(replace(recipe.model, channels=(channels,)), args)
    else:
        model = _from_weights(recipe, task, head, args, channels, start)
    objective = FinetuneObjective(model, head, _learning(recipe, task))
    if recipe.method.decoder_into_head:
        objective.start = {"decoder_into_head": True}
    return objective


def refuse_misfit(recipe: Recipe, start: Path | None) -> None:
    """Raise ConfigurationError if the recipe's method or loss does not suit its model or task; reads no data.

    Called for every run of a sweep before the first one is trained.
    """
    task = read_task(recipe.task)
    n = len(task.axes)
    note = {
        "kind": task.kind,
        "task": task.name,
        "labels": task.labels,
        "target_low": [0.0] * n,
        "target_high": [1.0] * n,
    }
    head = head_of(task, note, Path(recipe.name))
    encoder = recipe.model
    if start is not None:
        checkpoint = registry.read(weights_file(start))
        encoder = weights.encoder_args(checkpoint)
        _require_decoder(recipe, task, checkpoint)
    with torch.device("meta"):
        FinetuneObjective(TaskModel(encoder, _task_args(recipe, task, head)), head, _learning(recipe, task))


def head_of(task: Task, note: dict[str, Any], where: Path) -> HeadSpec:
    """Meaning of a task's outputs for prepared data.

    Parameters
    ----------
    task : the task.
    note : record of the prepared data.
    where : the prepared data, for messages.

    Raises
    ------
    InputError : the data are another task's.
    """
    if note["kind"] != task.kind:
        raise InputError(where, "kind", note["kind"], f"{task.kind}, as task {task.name} has it")
    if task.kind == "classification":
        if tuple(note["labels"]) != task.labels:
            raise InputError(where, "labels", note["labels"], f"{list(task.labels)}, those of task {task.name}")
        return HeadSpec("classification", labels=task.labels)
    if note["task"] != task.name:  # without labels, the name alone tells tasks apart
        raise InputError(where, "task", note["task"], f"{task.name}, as the recipe has it")
    if task.kind == "position":
        n = len(task.axes)
        low, high = tuple(note["target_low"][:n]), tuple(note["target_high"][:n])
        return HeadSpec("position", axes=task.axes, low_m=low, high_m=high)
    if task.kind == "channel":
        return HeadSpec("channel", grid=task.grid)
    raise ConfigurationError(task.name, "kind", task.kind, "a task to learn, not one to pre-train on")


def _learning(recipe: Recipe, task: Task) -> FinetuneArgs:
    """The recipe's options; those that it leaves open are the task's."""
    options = recipe.learning
    return replace(
        options,
        loss=options.loss or task.loss,
        label_smoothing=task.label_smoothing if options.label_smoothing is None else options.label_smoothing,
        class_weights=task.class_weights if options.class_weights is None else options.class_weights,
    )


def _task_args(recipe: Recipe, task: Task, head: HeadSpec) -> TaskArgs:
    method = vars(recipe.method) | {"pooling": recipe.method.pooling or task.pooling}
    del method["decoder_into_head"]  # where the weights come from, not what the model is
    grid = task.grid if task.head == "block" else ()
    n_outputs = 0 if grid else int(head.output_shape[0])
    return TaskArgs(head=task.head, n_outputs=n_outputs, grid=grid, output=OUTPUTS[task.kind], **method)


def _from_weights(recipe: Recipe, task: Task, head: HeadSpec, args: TaskArgs, channels: int, start: Path) -> TaskModel:
    checkpoint = registry.read(weights_file(start))
    _require_decoder(recipe, task, checkpoint)
    encoder = weights.encoder_args(checkpoint)
    model = TaskModel(replace(encoder, channels=(channels,), drop_path=recipe.model.drop_path), args)
    from_decoder = recipe.method.decoder_into_head
    loaded = load_pretrained(model, checkpoint, from_decoder, head=not from_decoder and _head_in(checkpoint) == head)
    log.info("%s: %d tensors taken, new: %s", start, len(loaded.taken), ", ".join(loaded.new) or "none")
    return model


def _head_in(checkpoint: weights.Weights) -> HeadSpec | None:
    """Meaning of a fine-tuned model's outputs before calibration; None for a pre-training."""
    if "head" not in checkpoint.extra:
        return None
    head = from_dict(HeadSpec, checkpoint.extra["head"], checkpoint.where)
    return replace(head, threshold=0.0, temperature=1.0, unknown_from=1.0)


def _require_decoder(recipe: Recipe, task: Task, checkpoint: weights.Weights) -> None:
    """Refuse decoder_into_head without a block head or without a decoder."""
    if not recipe.method.decoder_into_head:
        return
    if task.head != "block":
        expected = f"false for task {task.name}, whose head is linear"
        raise ConfigurationError("TaskArgs", "decoder_into_head", True, expected)
    if checkpoint.kind != "masked_autoencoder":
        found = f"true with {checkpoint.where}, which has no decoder"
        raise ConfigurationError("TaskArgs", "decoder_into_head", found, "the weights of a pre-training")
