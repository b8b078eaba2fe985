# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train pretrain`, `finetune` and `train-channels`: from a recipe and prepared data to a run directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from wavesfm_core.errors import ConfigurationError

from .field_help import field_help

if TYPE_CHECKING:
    from ..training.experiment import DeviceConfig
    from ..training.recipes import Recipe

console = Console()
OVERRIDE = "Instead of the recipe's. "

RecipeName = Annotated[str, typer.Argument(help="A recipe that ships, or a .yml file.")]
Data = Annotated[Path, typer.Option(help="Folder with TASK.h5 for each task, or one prepared file.")]
Out = Annotated[Path, typer.Option(help="Run directory; a sweep or several seeds get one folder each in it.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE of the recipe; may be repeated.")]
Size = Annotated[str | None, typer.Option(help=field_help("models.vit", "EncoderArgs", "size", OVERRIDE))]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=field_help("training.loop_args", "LoopArgs", "epochs", OVERRIDE)
        + " The warm-up is scaled alike, unless --set sets it.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="One run with this seed instead of the recipe's seeds.")]
Devices = Annotated[str, typer.Option(help=field_help("training.experiment", "DeviceConfig", "devices"))]
Accelerator = Annotated[str, typer.Option(help=field_help("training.experiment", "DeviceConfig", "accelerator"))]
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
    """Pre-train by masked wireless modelling. A stopped run is resumed."""
    from ..training.experiment import pretrain as run_pretraining

    config = _device_config(devices, accelerator)
    chosen = _recipe(recipe, size, epochs, seed, change)
    _run_each(chosen, out, config, lambda one, run: run_pretraining(one, data, run, pretrained, config, not fresh))


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
    """Learn a task: probe, last blocks, LoRA or all weights; or from scratch. A stopped run is resumed."""
    from ..training.experiment import finetune as run_finetuning
    from ..training.experiment import refuse_misfit
    from ..training.recipes import runs_of

    config = _device_config(devices, accelerator)
    chosen = _recipe(recipe, size, epochs, seed, change)
    if chosen.sweep and chosen.command == "finetune" and chosen.pretrained == (pretrained is not None):
        for _, one in runs_of(chosen):
            refuse_misfit(one, pretrained)
    _run_each(chosen, out, config, lambda one, run: run_finetuning(one, data, run, pretrained, config, not fresh))


def train_channels(
    recipe: RecipeName,
    train: Annotated[list[Path], typer.Option(help="File of `data channels`; several take turns.")],
    validation: Annotated[Path, typer.Option(help="Another file of `data channels`, which is not trained on.")],
    out: Out,
    covariances: Annotated[
        Path | None, typer.Option(help="File of `data covariances`; default: the average of the first --train.")
    ] = None,
    size: Size = None,
    epochs: Epochs = None,
    seed: Seed = None,
    change: Changes = None,
    devices: Devices = "1",
    accelerator: Accelerator = "auto",
    fresh: Fresh = False,
) -> None:
    """Train a channel estimator that starts as LMMSE. A stopped run is resumed."""
    from ..training.experiment import train_channels as run_training

    config = _device_config(devices, accelerator)

    def run_one(one: Recipe, run: Path) -> dict[str, Any]:
        return run_training(one, train, validation, run, covariances, config, not fresh)

    _run_each(_recipe(recipe, size, epochs, seed, change), out, config, run_one)


def _recipe(name: str, size: str | None, epochs: int | None, seed: int | None, changes: list[str] | None) -> Recipe:
    from ..training.recipes import read_recipe

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    changes = list(changes or [])
    if size is not None:
        changes.append(f"model.size={size}")
    recipe = read_recipe(name, changes, epochs)
    return recipe if seed is None else replace(recipe, seeds=(seed,))


def _run_each(recipe: Recipe, out: Path, config: DeviceConfig, run: Callable[[Recipe, Path], dict[str, Any]]) -> None:
    """Run every combination of the recipe's sweep and seeds."""
    from ..training.recipes import runs_of

    runs = runs_of(recipe)
    if len(runs) > 1 and config.devices != 1:
        raise ConfigurationError(recipe.name, "--devices", config.devices, f"1 with {len(runs)} runs, or one --seed")
    for suffix, one in runs:
        folder = out / suffix if suffix else out
        result = run(one, folder)
        best = "" if result.get("best") is None else f", best {result['best']:.4g} after epoch {result['best_epoch']}"
        console.print(f"{folder}: {result['epochs']} epochs{best}", highlight=False)


def _device_config(devices: str, accelerator: str) -> DeviceConfig:
    from ..training.experiment import DeviceConfig

    if devices == "auto":
        return DeviceConfig(devices, accelerator)
    try:
        return DeviceConfig(int(devices), accelerator)
    except ValueError:
        raise ConfigurationError("--devices", "value", devices, "a number, or auto") from None
