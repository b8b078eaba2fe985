# SPDX-License-Identifier: GPL-3.0-or-later
"""Randomness of a training step that depends on (seed, step) only: exact resume needs no generator state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError


class Draws:
    """Random numbers of one step, the same for one process as for several that share its batch.

    seed: of the run; step: of the micro-batch within the run (what is drawn twice must be different numbers); rank,
    world: this process and how many there are; device: where the numbers are made and stay (each kind of device has a
    generator of its own, so a GPU draws other numbers than a CPU).

    Each call goes on in the same sequence, so the order of calls within a step is part of the result. Every process
    draws for the whole batch of n * world rows and keeps rows rank * n to (rank + 1) * n: what one process of n * world
    rows would have drawn.
    """

    def __init__(self, seed: int, step: int, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        if seed < 0 or step < 0:
            raise ConfigurationError("Draws", "seed, step", (seed, step), "0 or more")
        if not 0 <= rank < world:
            raise ConfigurationError("Draws", "rank", rank, f"0 to {world - 1} (world - 1)")
        self.rank, self.world, self.device = rank, world, torch.device(device)
        # One well-mixed word of (seed, step): the CPU's generator takes only 32 bits of what it is seeded with.
        word = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
        self._generator = torch.Generator(self.device).manual_seed(word)

    def rand(self, n: int, *shape: int) -> Tensor:
        """This process' rows, float32 [n, *shape], even in [0, 1)."""
        return self._rows(torch.rand(n * self.world, *shape, generator=self._generator, device=self.device), n)

    def randn(self, n: int, *shape: int) -> Tensor:
        """This process' rows, float32 [n, *shape], normal with variance 1."""
        return self._rows(torch.randn(n * self.world, *shape, generator=self._generator, device=self.device), n)

    def _rows(self, whole: Tensor, n: int) -> Tensor:
        return whole if self.world == 1 else whole[self.rank * n : (self.rank + 1) * n]


def set_draws(model: nn.Module, draws: Draws | None) -> None:
    """Hand `draws` to every module of `model` that has an attribute of that name."""
    for module in model.modules():
        if hasattr(module, "draws"):
            module.draws = draws


def needed(draws: Draws | None, where: str) -> Draws:
    """`draws`, or ConfigurationError when nobody handed any out: torch's own generator would not survive a resume."""
    if draws is None:
        raise ConfigurationError(where, "draws", None, "model.set_draws(Draws(seed, step)) before a training step")
    return draws
