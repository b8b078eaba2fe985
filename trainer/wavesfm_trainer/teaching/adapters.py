# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA adapters on the encoder, trained with the project's training loop from the head that was fitted first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import HeadSpec, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.checks import require_rules

from ..data.examples import Examples
from ..models import registry
from ..models.run_layout import WEIGHTS
from ..models.task_model import TaskModel
from ..training.batches import DeviceExamples, Loaders
from ..training.fit import fit
from ..training.loop_args import LoopArgs
from ..training.objectives import FinetuneArgs, FinetuneObjective
from .encoder import Start
from .heads import LinearHead
from .views import Views


@dataclass(frozen=True)
class AdapterOptions:
    """Training of the adapters."""

    rank: int = 8
    """Rank of an adapter."""
    alpha: float = 1.0
    """Factor on x A B."""
    steps: int = 120
    """Optimiser steps, about."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    batch: int = 32
    """Tiles of a step."""

    def __post_init__(self) -> None:
        rules = {name: (getattr(self, name) > 0, "above 0") for name in ("rank", "alpha", "steps", "lr", "batch")}
        require_rules("adapters", self, rules)


def fit_adapters(
    start: Start,
    head: LinearHead,
    spec: SpectrogramSpec,
    views: Views,
    label: NDArray[np.int64],
    labels: Sequence[str],
    options: AdapterOptions,
    seed: int,
) -> TaskModel:
    """Train adapters and head on tiles.

    Parameters
    ----------
    start : the encoder.
    head : the head's first weights.
    spec : of the tiles.
    views : the tiles.
    label : [N], index of the label of each tile.
    labels : names of the labels.
    options : of the training.
    seed : of order and adapters.

    Returns
    -------
    The model with its adapters merged, in eval mode.
    """
    torch.manual_seed(seed)
    args = replace(
        start.model.task_args, n_outputs=len(labels), trainable="lora", lora_rank=options.rank, lora_alpha=options.alpha
    )
    model = TaskModel(start.model.encoder_args, args)
    state = model.state_dict()
    plain = start.model.encoder.state_dict()
    for name, tensor in plain.items():
        state[_adapted("encoder." + name, state)].copy_(tensor)
    state["head.weight"].copy_(torch.from_numpy(head.weight.astype(np.float32)))
    state["head.bias"].copy_(torch.from_numpy(head.bias.astype(np.float32)))
    model.pretrained = True
    rates = views.log10_rate
    examples = Examples(views.picture[:, None], label, rates, None, spec, {"preprocess": to_dict(spec)})
    objective = FinetuneObjective(model, HeadSpec("classification", tuple(labels)), FinetuneArgs(class_weights=True))
    per_epoch = -(-len(label) // options.batch)
    epochs = max(1, round(options.steps / per_epoch))
    loop = LoopArgs(
        epochs=epochs, batch_size=options.batch, lr=options.lr, min_lr=options.lr / 100, warmup_epochs=0.1 * epochs,
        precision="bf16-mixed", keep="last", tensorboard=False, progress=False, clip=1.0, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        fit(objective, Loaders([DeviceExamples(examples, "boxes")]), loop, run, accelerator="cpu")
        trained = registry.load(run / WEIGHTS)
    trained.merge()
    return trained.eval()


def _adapted(name: str, state: dict[str, torch.Tensor]) -> str:
    """Name of a tensor in a model with adapters, which keep the projection that they adapt as qkv.qkv."""
    return name if name in state else name.replace(".qkv.", ".qkv.qkv.")
