# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights rounded to float16 before the export, so that torch computes with exactly what the file stores."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from wavesfm_core.bundle.bundle import bundle_inputs
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.pilot_grid import observe
from wavesfm_core.preprocess.tile import prepare

from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask, task_spec
from ..models.channel_model import ChannelModel
from .golden_inputs import generated_grids

HALF_FROM = 1024
"""Fewest elements of a tensor that is rounded; smaller ones (biases, norms) stay in float32."""
COST_LIMIT_DB = 0.05
"""Most that rounding may add to a channel estimator's error."""
SLOTS_TRIED = 16


def round_weights(trained: TrainedTask) -> None:
    """Round the large weights of a model to float16 in place.

    Raises
    ------
    ConfigurationError
        For a weight beyond float16's range, and for a channel estimator whose error would grow by more than
        COST_LIMIT_DB at 20 dB, relative to the error that LMMSE has there.
    """
    model = trained.model
    if not isinstance(model, ChannelModel):
        halve_weights(model)
        return
    spec = task_spec(trained, "half weights")
    grids = generated_grids(model.spec, SLOTS_TRIED, snrs_db=(20.0,))
    tiles = np.stack([prepare(grid, trained.preprocess) for grid in grids])
    inputs = bundle_inputs(spec, tiles, np.zeros(len(tiles)), observe(np.stack(grids), model.spec).snr_db)
    engine = TorchEngine(model, trained.output)
    before = engine.run(inputs)[trained.output]
    halve_weights(model)
    change = float(np.sum(np.square(engine.run(inputs)[trained.output] - before)) / np.sum(np.square(before)))
    cost_db = 10 * math.log10(1 + change / float(model.linear_error(torch.tensor([0.01]))))
    if cost_db > COST_LIMIT_DB:
        expected = f"at most {COST_LIMIT_DB} dB: leave the weights in float32"
        raise ConfigurationError("export", "half_weights", f"{cost_db:.2g} dB more error at 20 dB", expected)


@torch.no_grad()
def halve_weights(model: nn.Module) -> None:
    """Round the large weights to float16 in place. Raises ConfigurationError for one that float16 cannot hold."""
    for name, parameter in model.named_parameters():
        if parameter.numel() < HALF_FROM:
            continue
        if (largest := float(parameter.abs().max())) > torch.finfo(torch.float16).max:
            raise ConfigurationError(name, "half_weights", f"a weight of {largest:.3g}", "values in float16's range")
        parameter.copy_(parameter.half().float())
