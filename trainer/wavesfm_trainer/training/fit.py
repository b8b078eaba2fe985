# SPDX-License-Identifier: GPL-3.0-or-later
"""`fit`: one run on the devices of this host, or of several hosts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from wavesfm_core.errors import ConfigurationError

from .batches import Loaders
from .loop_args import LoopArgs
from .objectives import Objective
from .training_loop import TrainingLoop


def fit(
    objective: Objective,
    loaders: Loaders,
    args: LoopArgs,
    run_dir: Path | str,
    resume: bool = True,
    devices: int | str = 1,
    *,
    accelerator: str = "auto",
    num_nodes: int = 1,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model, or continue its training.

    With more than one device, Fabric starts the calling script again for each further process.

    Parameters
    ----------
    objective : model and loss. Build the model after torch.manual_seed(args.seed) if the run is to be repeatable.
    loaders : training and validation data.
    args : options of the loop.
    run_dir : gets config.json, metrics.csv, split.json, tensorboard/, state/ and weights.safetensors.
    resume : continue a run of the same options, model and data. A finished run returns at once, or continues if
        `args.epochs` is larger than before. False refuses a directory that holds a run.
    devices : devices of this host; under torchrun its environment decides.
    accelerator : kind of device, as lightning.fabric names it.
    num_nodes : hosts.
    config : further fields of config.json (name, command, recipe, task, method, pretrained).

    Returns
    -------
    run, epochs, steps, best_epoch, best (value of the monitored figure), watched (its name), and the last row.

    Raises
    ------
    ConfigurationError, InputError : before the first step.
    RunError : the run cannot go on.
    """
    fabric = make_fabric(args, devices, accelerator, num_nodes, _has_unused_parameters(objective))
    fabric.launch()
    return TrainingLoop(fabric, objective, loaders, args, Path(run_dir), resume, dict(config or {})).run()


def make_fabric(args: LoopArgs, devices: int | str, accelerator: str, num_nodes: int, unused: bool) -> Fabric:
    """Fabric for the devices asked for, or for torchrun's; DDP if there are several processes.

    Parameters
    ----------
    args : for the precision.
    devices, accelerator, num_nodes : see `fit`.
    unused : a step may leave parameters without a gradient.

    Raises
    ------
    ConfigurationError : there is no such device.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        devices, num_nodes = local, world // local
    if devices == "auto":
        devices = max(1, torch.cuda.device_count()) if accelerator in ("auto", "cuda", "gpu") else 1
    if not isinstance(devices, int) or devices < 1 or num_nodes < 1:
        raise ConfigurationError("fit", "devices, num_nodes", (devices, num_nodes), "1 or more, or 'auto' devices")
    several = devices * num_nodes > 1
    strategy = DDPStrategy(find_unused_parameters=unused) if several else "auto"
    try:
        return Fabric(
            accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy, precision=args.precision
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        found = f"{accelerator} ({' '.join(str(error).split())[:120]})"
        raise ConfigurationError("fit", "accelerator", found, "auto, cpu, or a kind that this host has") from None


def _has_unused_parameters(objective: Objective) -> bool:
    """A batch of one modality uses one of several patch embeddings."""
    encoder = getattr(objective.model, "encoder", None)
    return encoder is None or len(encoder.args.channels) > 1
