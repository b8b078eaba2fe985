# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers depend on (seed, step) only, not on how processes share the batch."""

from __future__ import annotations

import pytest
import torch
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models.step_random import StepRandom, require_step_random, set_step_random


def test_a_step_draws_the_same_again_and_others_differ():
    first = StepRandom(3, 7).rand(4, 5)
    assert first.shape == (4, 5)
    assert first.dtype == torch.float32
    assert torch.equal(first, StepRandom(3, 7).rand(4, 5))
    for other in (StepRandom(3, 8), StepRandom(4, 7), StepRandom(7, 3)):
        assert not torch.equal(first, other.rand(4, 5))


def test_calls_go_on_in_one_sequence():
    draws = StepRandom(0, 0)
    assert not torch.equal(draws.rand(4), draws.rand(4))


def test_global_randomness_neither_changes_nor_is_changed():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    drawn = StepRandom(0, 1).rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(StepRandom(0, 1).rand(3), drawn)


@pytest.mark.parametrize("method", ["rand", "randn"])
def test_processes_together_draw_what_one_would(method):
    one = StepRandom(5, 2)
    several = [StepRandom(5, 2, rank, 3) for rank in range(3)]
    for shape in ((), (4,), (2, 3)):  # and go on together
        parts = [getattr(draws, method)(2, *shape) for draws in several]
        assert torch.equal(torch.cat(parts), getattr(one, method)(6, *shape))


def test_draws_are_even():
    drawn = StepRandom(0, 0).rand(20000)
    assert (drawn.min() >= 0, drawn.max() < 1) == (True, True)
    assert torch.histc(drawn, 10, 0, 1) / 2000 == pytest.approx(torch.ones(10), abs=0.1)


def test_a_model_passes_its_random_numbers_to_every_part():
    class Part(torch.nn.Module):
        step_random = None

    model = torch.nn.Sequential(Part(), torch.nn.Sequential(Part()), torch.nn.Linear(1, 1))
    numbers = StepRandom(0, 0)
    set_step_random(model, numbers)
    assert model[0].step_random is numbers
    assert model[1][0].step_random is numbers
    assert not hasattr(model[2], "step_random")


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="StepRandom: rank: found 2, expected 0 to 1"):
        StepRandom(0, 0, rank=2, world=2)
    with pytest.raises(ConfigurationError, match="seed, step"):
        StepRandom(-1, 0)
    with pytest.raises(ConfigurationError, match=r"Encoder: step_random: found None, expected model\.set_step_random"):
        require_step_random(None, "Encoder")
