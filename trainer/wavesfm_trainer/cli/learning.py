# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train pretrain`, `finetune` and `train-channels`: a recipe, prepared data, a run directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from wavesfm_core.errors import ConfigurationError

console = Console()

RecipeName = Annotated[str, typer.Argument(help="A recipe that ships, or a .yml file.")]
Data = Annotated[Path, typer.Option(help="Folder with TASK.h5 for each task, or one prepared file.")]
Out = Annotated[Path, typer.Option(help="Run directory; a sweep or several seeds get one folder each in it.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE of the recipe; may be repeated.")]
Size = Annotated[str | None, typer.Option(help="Model size instead of the recipe's: nano, small, paper.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Instead of the recipe's; a warm-up that --set does not set is scaled alike.")
]
Seed = Annotated[int | None, typer.Option(help="One run with this seed instead of the recipe's seeds.")]
Devices = Annotated[str, typer.Option(help="Devices of this host: a number or auto; torchrun overrides it.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, cuda, mps")]
Fresh = Annotated[bool, typer.Option(help="Refuse a directory that holds a run instead of resuming it.")]


def pretrain(
    recipe: RecipeName,
    data: Data,
    out: Out,
    pretrained: Annotated[
        Path | None, typer.Option(help="Run directory or weights of a pre-training to go on from.")
    ] = None,
    size: Size = None,
    epochs: Epochs = None,
    seed: Seed = None,
    change: Changes = None,
    devices: Devices = "1",
    accelerator: Accelerator = "auto",
    fresh: Fresh = False,
) -> None:
    """Masked wireless modelling, as a recipe says; a run that was stopped goes on where it was."""
    from ..training.experiment import Where
    from ..training.experiment import pretrain as run_pretraining

    where = Where(_devices(devices), accelerator)
    read = _recipe(recipe, size, epochs, seed, change)
    _each(read, out, where, lambda one, folder: run_pretraining(one, data, folder, pretrained, where, not fresh))


def finetune(
    recipe: RecipeName,
    data: Data,
    out: Out,
    pretrained: Annotated[Path | None, typer.Option(help="Run directory or weights of a pre-training.")] = None,
    size: Size = None,
    epochs: Epochs = None,
    seed: Seed = None,
    change: Changes = None,
    devices: Devices = "1",
    accelerator: Accelerator = "auto",
    fresh: Fresh = False,
) -> None:
    """Learn a task, as a recipe says: probe, last blocks, LoRA, all, or from scratch."""
    from ..training.experiment import Where, refuse_misfit
    from ..training.experiment import finetune as run_finetuning
    from ..training.recipes import runs_of

    where = Where(_devices(devices), accelerator)
    read = _recipe(recipe, size, epochs, seed, change)
    if read.sweep and read.command == "finetune" and read.pretrained == (pretrained is not None):
        for _, one in runs_of(read):
            refuse_misfit(one, pretrained)
    _each(read, out, where, lambda one, folder: run_finetuning(one, data, folder, pretrained, where, not fresh))


def train_channels(
    recipe: RecipeName,
    train: Annotated[list[Path], typer.Option(help="A file of `data channels`; may be repeated, and they take turns.")],
    validation: Annotated[Path, typer.Option(help="Another, whose slots are not trained on.")],
    out: Out,
    covariances: Annotated[
        Path | None, typer.Option(help="Of `data covariances`; left out: the average of the first --train.")
    ] = None,
    size: Size = None,
    epochs: Epochs = None,
    seed: Seed = None,
    change: Changes = None,
    devices: Devices = "1",
    accelerator: Accelerator = "auto",
    fresh: Fresh = False,
) -> None:
    """Learn to estimate channels better than LMMSE, from which it starts; a run that was stopped goes on."""
    from ..training.experiment import Where
    from ..training.experiment import train_channels as run_training

    where = Where(_devices(devices), accelerator)
    read = _recipe(recipe, size, epochs, seed, change)
    _each(
        read,
        out,
        where,
        lambda one, folder: run_training(one, train, validation, folder, covariances, where, not fresh),
    )


def _recipe(name: str, size: str | None, epochs: int | None, seed: int | None, changes: list[str] | None) -> Any:
    from ..training.recipes import read_recipe

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    changes = list(changes or [])
    if size is not None:
        changes.append(f"model.size={size}")
    recipe = read_recipe(name, changes, epochs)
    return recipe if seed is None else replace(recipe, seeds=(seed,))


def _each(recipe: Any, out: Path, where: Any, run: Callable[[Any, Path], dict[str, Any]]) -> None:
    from ..training.recipes import runs_of

    runs = runs_of(recipe)
    if len(runs) > 1 and where.devices != 1:
        raise ConfigurationError(recipe.name, "--devices", where.devices, f"1 with {len(runs)} runs, or one --seed")
    for suffix, one in runs:
        folder = out / suffix if suffix else out
        result = run(one, folder)
        best = "" if result.get("best") is None else f", best {result['best']:.4g} after epoch {result['best_epoch']}"
        console.print(f"{folder}: {result['epochs']} epochs{best}", highlight=False)


def _devices(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError("--devices", "value", text, "a number, or auto") from None
