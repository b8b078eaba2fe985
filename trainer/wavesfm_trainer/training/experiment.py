# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recipe and prepared data to a run: data, model and objective are put together and trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.hashing import file_sha256

from ..data.cache import read_cache
from ..data.channel_pool import ChannelPool
from ..data.tasks import read_task
from ..models import registry, weights
from ..models.channel_model import ChannelModel
from ..models.mae import MaskedAutoencoder
from ..models.pretrained import continue_pretraining
from ..models.run_layout import read_config, weights_file
from . import task_setup
from .batches import DeviceExamples, Loaders
from .channel_batches import ChannelExamples
from .channel_objective import ChannelObjective
from .fit import fit
from .objectives import Objective, PretrainObjective
from .recipes import Recipe, key_of
from .run_data import find_cache, labelled_examples, read_pretraining_data, read_validation

Result = TypeVar("Result")
log = logging.getLogger(__name__)
COVARIANCE_BATCH = 128
"""Channels that are averaged at a time."""


@dataclass(frozen=True)
class DeviceConfig:
    """Devices of a run."""

    devices: int | str = 1
    """Devices of this host: a number or auto; torchrun overrides it."""
    accelerator: str = "auto"
    """Kind of device: auto, cpu, cuda or mps."""


def _named_by_key(run: Callable[..., Result]) -> Callable[..., Result]:
    """Name recipe and key in the errors about options that only show where an option is used."""

    @wraps(run)
    def wrapped(recipe: Recipe, *arguments: Any, **options: Any) -> Result:
        try:
            return run(recipe, *arguments, **options)
        except ConfigurationError as error:
            if (key := key_of(error)) is None:
                raise
            raise ConfigurationError(recipe.name, key, error.found, error.expected) from None

    return wrapped


refuse_misfit = _named_by_key(task_setup.refuse_misfit)


@_named_by_key
def pretrain(
    recipe: Recipe,
    data: Path,
    out: Path,
    pretrained: Path | None = None,
    device_config: DeviceConfig | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Masked wireless modelling on all data sets of the recipe.

    Parameters
    ----------
    recipe : of command pretrain.
    data : folder with the prepared data of each data set, see `run_data.find_cache`.
    out : run directory.
    pretrained : run or weights file of a pre-training to go on from, with a new optimiser and schedule.
    device_config : devices; None: one, of the best kind.
    resume : see `fit`.

    Returns
    -------
    See `fit`.

    Raises
    ------
    ConfigurationError, InputError, WeightsError : before the first step.
    RunError : the run cannot go on.
    """
    _require_command(recipe, "pretrain")
    training, validation = read_pretraining_data(recipe, data)
    channels = {int(examples.host["image"].shape[1]) for examples in training}
    start = None if pretrained is None else registry.read(weights_file(pretrained))
    if start is not None:
        channels |= set(weights.encoder_args(start).channels)  # layers of other channel counts stay as they are
    torch.manual_seed(recipe.loop.seed)
    args = replace(recipe.model, channels=tuple(sorted(channels)))
    model = MaskedAutoencoder(args, recipe.masking.ratio, recipe.masking.cls_in_pretraining)
    if start is not None:
        new = continue_pretraining(model, start)
        log.info("%s: all tensors taken, new: %s", pretrained, ", ".join(new) or "none")
    objective = PretrainObjective(model, recipe.loop.seed)
    return _fit(recipe, objective, Loaders(training, validation), out, device_config, resume, _start_record(pretrained))


@_named_by_key
def finetune(
    recipe: Recipe,
    data: Path,
    out: Path,
    pretrained: Path | None = None,
    device_config: DeviceConfig | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Learn the recipe's task.

    Parameters
    ----------
    recipe : of command finetune.
    pretrained : run or weights file of a pre-training, or of a fine-tuning to go on from. A fine-tuned head is taken
        too if task and labels are the same.
    data, out, device_config, resume : see `pretrain`.

    Returns
    -------
    See `fit`.

    Raises
    ------
    See `pretrain`.
    """
    _require_command(recipe, "finetune")
    if recipe.pretrained != (pretrained is not None):
        expected = "a run or a weights file" if recipe.pretrained else "nothing: the recipe starts from scratch"
        raise ConfigurationError(recipe.name, "--pretrained", pretrained or "nothing", expected)
    task = read_task(recipe.task)
    cache = find_cache(data, task.name)
    examples, held_out = read_cache(cache, "train"), read_validation(cache)
    head = task_setup.head_of(task, examples.note, cache)
    torch.manual_seed(recipe.loop.seed)
    objective = task_setup.make_objective(recipe, task, head, examples.image.shape[1], pretrained)
    validation = [] if held_out is None else [DeviceExamples(held_out, task.name)]
    loaders = Loaders([labelled_examples(recipe, task.name, examples)], validation)
    record = {"task": task.name, "method": recipe.method.trainable}
    if Path(recipe.task).suffix in (".yml", ".yaml"):
        record["task_file"] = str(Path(recipe.task).resolve())
    return _fit(recipe, objective, loaders, out, device_config, resume, record | _start_record(pretrained))


@_named_by_key
def train_channels(
    recipe: Recipe,
    training: Sequence[Path],
    validation: Path,
    out: Path,
    covariances: Path | None = None,
    device_config: DeviceConfig | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Learn to estimate channels from pools of them (`data channels`), starting from LMMSE.

    Parameters
    ----------
    recipe : of command train-channels.
    training : pools of one numerology, whose batches take turns.
    validation : another pool.
    covariances : file of `data covariances`; None: the average of the first training pool.
    out, device_config, resume : see `pretrain`.

    Returns
    -------
    See `fit`.

    Raises
    ------
    InputError : pools of different numerologies, or a validation that is the same draw as a training pool.
    """
    _require_command(recipe, "train-channels")
    pools, held_out = [ChannelPool(path) for path in training], ChannelPool(validation)
    for pool in [*pools[1:], held_out]:
        pools[0].spec.require(pool.spec, str(pool.path))
    if any((pool.seed, pool.scenario) == (held_out.seed, held_out.scenario) for pool in pools):
        found = f"{held_out.seed}, as of a training"
        raise InputError(held_out.path, "seed", found, "channels that are not trained on")
    source = "the first training pool"
    if covariances is None:
        known = Covariances.learn(pools[0].batches(COVARIANCE_BATCH))
    else:
        known, source = Covariances.load(covariances), file_sha256(covariances)
    torch.manual_seed(recipe.loop.seed)
    objective = ChannelObjective(ChannelModel.of(recipe.modes, pools[0].spec, recipe.model, known), source)
    slots = recipe.slots
    checked = ChannelExamples(
        held_out, held_out.path.stem, slots, recipe.loop.seed, grids=True, count=slots.validation_slots
    )
    loaders = Loaders([ChannelExamples(pool, pool.path.stem, slots) for pool in pools], [checked])
    return _fit(recipe, objective, loaders, out, device_config, resume, {"method": "all"})


def name_of(pretrained: Path) -> str:
    """Name of pre-trained weights in a report: the run's name, or the file's."""
    return str(read_config(pretrained).get("name") or pretrained.stem)


def _start_record(pretrained: Path | None) -> dict[str, str]:
    """Fields of config.json about the weights that a run starts from."""
    if pretrained is None:
        return {}
    return {"pretrained": name_of(pretrained), "pretrained_sha256": file_sha256(weights_file(pretrained))}


def _require_command(recipe: Recipe, command: str) -> None:
    if recipe.command != command:
        raise ConfigurationError(recipe.name, "command", recipe.command, f"a recipe for {command}")


def _fit(
    recipe: Recipe,
    objective: Objective,
    loaders: Loaders,
    out: Path,
    device_config: DeviceConfig | None,
    resume: bool,
    record: dict[str, str],
) -> dict[str, Any]:
    devices = device_config or DeviceConfig()
    config = {"name": recipe.name, "command": recipe.command, "recipe": recipe.name, "task": recipe.task, **record}
    accelerator = devices.accelerator
    return fit(objective, loaders, recipe.loop, out, resume, devices.devices, accelerator=accelerator, config=config)
