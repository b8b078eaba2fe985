# SPDX-License-Identifier: GPL-3.0-or-later
"""Initial values of parameters and their optimiser groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


def initialise(module: nn.Module) -> None:
    """Initialise weights in place: Xavier for matrices, zero for biases, normal with deviation 0.02 for tokens.

    References
    ----------
    He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.split(".")[-1] in ("cls", "mask_token"):
            nn.init.normal_(parameter, std=0.02)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float, scale_of: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Optimiser groups of the trainable parameters; vectors and tokens have no weight decay.

    Parameters
    ----------
    named : parameters by name.
    lr : learning rate.
    weight_decay : of matrices.
    scale_of : factor of a parameter's learning rate, by its name.

    Returns
    -------
    Groups with params, names, lr, lr_scale (for a schedule that sets lr) and weight_decay.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim < 2 or name.split(".")[-1] in ("cls", "mask_token", "unknown")
        key = (scale_of(name), 0.0 if plain else weight_decay)
        new = {"params": [], "names": [], "lr": lr * key[0], "lr_scale": key[0], "weight_decay": key[1]}
        group = groups.setdefault(key, new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
