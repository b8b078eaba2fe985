# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers of a training step as a function of (seed, step): an exact resume needs no generator state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError


class StepRandom:
    """Random numbers of one step, equal for one process and for several that share its batch.

    Calls continue one sequence, so their order within a step is part of the result. Every process draws for the whole
    batch of n * world rows and keeps rows rank * n to (rank + 1) * n.

    Parameters
    ----------
    seed : of the run, 0 or more.
    step : index of the micro-batch within the run, 0 or more.
    rank : index of this process, 0 to world - 1.
    world : number of processes.
    device : device of the tensors. A GPU's generator differs from the CPU's.

    Raises
    ------
    ConfigurationError : a negative seed or step, or a rank outside the world.
    """

    def __init__(self, seed: int, step: int, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        if seed < 0 or step < 0:
            raise ConfigurationError("StepRandom", "seed, step", (seed, step), "0 or more")
        if not 0 <= rank < world:
            raise ConfigurationError("StepRandom", "rank", rank, f"0 to {world - 1} (world - 1)")
        self.rank, self.world, self.device = rank, world, torch.device(device)
        # One well-mixed word of (seed, step): the CPU's generator uses only 32 bits of its seed.
        word = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
        self._generator = torch.Generator(self.device).manual_seed(word)

    def rand(self, n: int, *shape: int) -> Tensor:
        """This process's rows, float32 [n, *shape], uniform in [0, 1)."""
        return self._rows(torch.rand(n * self.world, *shape, generator=self._generator, device=self.device), n)

    def randn(self, n: int, *shape: int) -> Tensor:
        """This process's rows, float32 [n, *shape], normal with variance 1."""
        return self._rows(torch.randn(n * self.world, *shape, generator=self._generator, device=self.device), n)

    def _rows(self, whole: Tensor, n: int) -> Tensor:
        return whole if self.world == 1 else whole[self.rank * n : (self.rank + 1) * n]


def set_step_random(model: nn.Module, step_random: StepRandom | None) -> None:
    """Set the attribute `step_random` of every module of `model` that has one."""
    for module in model.modules():
        if hasattr(module, "step_random"):
            module.step_random = step_random


def require_step_random(step_random: StepRandom | None, where: str) -> StepRandom:
    """`step_random` unless it is None.

    Raises
    ------
    ConfigurationError : it is None. torch's global generator is no substitute, since a resumed run would differ.
    """
    if step_random is None:
        expected = "model.set_step_random(StepRandom(seed, step)) before a training step"
        raise ConfigurationError(where, "step_random", None, expected)
    return step_random
