# SPDX-License-Identifier: GPL-3.0-or-later
"""Loss of a channel estimator: its error relative to that of LMMSE, so that every SNR counts alike in decibels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.errors import InputError

from ..models.channel_model import ChannelModel
from ..models.step_random import StepRandom
from .batches import Batch, Loaders, move
from .objectives import Reduce, ValidationBatch


class ChannelObjective:
    """Mean over the batch of |estimate - channel|^2 over the mean error of LMMSE at the slot's true noise.

    The error is computed in the modes at the pilots, each weighted by its power on the whole grid. That equals the
    error on the grid except for the part between the pilots that the modes cannot express, at a fraction of the cost.
    Validation is on the whole grid.

    Parameters
    ----------
    model : the estimator.
    covariances : source of the model's covariances, for the record.
    """

    betas = (0.9, 0.95)
    monitor, mode = "val_nmse_db", "min"

    def __init__(self, model: ChannelModel, covariances: str = "") -> None:
        self.model, self.covariances, self.progress = model, covariances, 0.0
        self.snrs_db: tuple[float, ...] = ()

    def prepare(
        self, loaders: Loaders, autocast: Callable[[], AbstractContextManager[Any]], device: torch.device
    ) -> None:
        for examples in loaders.all:
            self.model.spec.require(examples.spec, examples.name)
        snrs = {examples.args.validation_snr_db for examples in loaders.validation}
        if len(snrs) > 1:
            raise InputError(
                "validation", "validation_snr_db", f"{len(snrs)} different lists", "the same for all pools"
            )
        self.snrs_db = next(iter(snrs), ())
        move(loaders.all, device)

    def training_loss(self, batch: Batch, draws: StepRandom) -> Tensor:
        model = self.model
        model.set_step_random(draws)
        difference = model.coefficients(batch["tile"], batch["snr_db"]) - model.analyse(batch["pilots"])
        error = (difference.square().sum(dim=1) * model.spread_powers).sum(dim=(1, 2, 3)) * batch["power"]
        return (error / model.linear_error(batch["noise"])).mean()

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        return self.model.parameter_groups(lr, weight_decay, layer_decay)

    def validate(self, batches: Iterable[ValidationBatch], reduce: Reduce) -> dict[str, float]:
        """val_nmse_db_SNR: 10 log10(sum |estimate - h|^2 / sum |h|^2) on the whole grid at each SNR; val_nmse_db:
        their mean.
        """
        sums = torch.zeros(len(self.snrs_db), 2, dtype=torch.float64)
        for _, _, batch in batches:
            difference = self.model(batch["tile"], batch["snr_db"]) - batch["target"]
            energies = [x.square().flatten(1).sum(dim=1) * batch["power"] for x in (difference, batch["target"])]
            sums.index_add_(0, batch["at"].cpu(), torch.stack(energies, 1).double().cpu())
        sums = reduce(sums)
        nmse_db = (10 * torch.log10(sums[:, 0] / sums[:, 1])).tolist()
        figures = {f"val_nmse_db_{snr_db:g}": value for snr_db, value in zip(self.snrs_db, nmse_db)}
        return {self.monitor: sum(nmse_db) / len(nmse_db), **figures}

    def describe(self) -> dict[str, Any]:
        model = {"encoder": asdict(self.model.encoder_args), **self.model.config()}
        return {"kind": "channels", "model": model, "covariances": self.covariances}

    def extra(self, loaders: Loaders) -> dict[str, Any]:
        return {"head": to_dict(self.model.task_head), "preprocess": to_dict(self.model.preprocess)}
