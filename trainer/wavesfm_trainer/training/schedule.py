# SPDX-License-Identifier: GPL-3.0-or-later
"""Learning rates by optimiser step, optimisers, and averaged weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError

from .loop_args import LoopArgs

_BLOCK_MATRIX = re.compile(r"(^|\.)\w*blocks\.\d+\.(?!.*lora)")


def lr_factor(step: int, warmup_steps: int, total_steps: int, lowest: float) -> float:
    """Factor on the learning rate: linear warm-up to 1, then a cosine to `lowest`.

    The first step has 1 / warmup_steps, not 0, which would change nothing. The last step has `lowest`.

    Parameters
    ----------
    step : optimiser step, 0 to total_steps - 1.
    warmup_steps, total_steps : lengths of the warm-up and of the run.
    lowest : factor at the end.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizers(
    model: nn.Module, groups: list[dict[str, Any]], args: LoopArgs, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """Fused AdamW, preceded by Muon if asked for; each group keeps its learning rate as "peak_lr".

    Parameters
    ----------
    model : its trainable parameters must be in exactly one group each.
    groups : {"params", "lr", "weight_decay"} each, from the objective's parameter_groups.
    args : choice of the optimiser.
    betas : of AdamW.

    Raises
    ------
    ConfigurationError : names a parameter that is in no group or in several.

    References
    ----------
    Muon: K. Jordan et al., 2024, here scaled to the update size of AdamW. It takes the matrices of the blocks,
    except those
    of LoRA adapters.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    _check_groups(names, groups)
    chosen = {i for i, name in names.items() if _BLOCK_MATRIX.search(name)} if args.optimizer == "muon" else set()
    matrices: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for group in groups:
        same = {"lr": group["lr"], "peak_lr": group["lr"], "weight_decay": group["weight_decay"]}
        taken = [p for p in group["params"] if id(p) in chosen and p.ndim == 2]
        left = [p for p in group["params"] if not (id(p) in chosen and p.ndim == 2)]
        matrices += [{"params": taken, **same}] if taken else []
        rest += [{"params": left, **same}] if left else []
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=args.lr, adjust_lr_fn="match_rms_adamw"))
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=args.lr, betas=betas, fused=True))
    return optimizers


def _check_groups(names: Mapping[int, str], groups: list[dict[str, Any]]) -> None:
    seen: set[int] = set()
    for parameter in (p for group in groups for p in group["params"]):
        if id(parameter) in seen or id(parameter) not in names:
            found = names.get(id(parameter), "one that is frozen or not of the model")
            raise ConfigurationError("optimiser", "parameter groups", found, "every parameter that trains, once")
        seen.add(id(parameter))
    if missing := [name for i, name in names.items() if i not in seen]:
        raise ConfigurationError(
            "optimiser", "parameter groups", f"no {missing[0]}", "every parameter that trains, once"
        )
    if not names:
        raise ConfigurationError("optimiser", "parameters that train", "none", "one or more")


def set_lr(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's learning rate from its peak."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * factor


class AveragedWeights:
    """Exponential moving average of the trainable parameters, in float32.

    Parameters
    ----------
    model : its parameters are averaged.
    decay : see LoopArgs.ema_decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        present = [p.detach().float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), present, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages into the model for the duration of the block."""
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(current)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
