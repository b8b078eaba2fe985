# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the loop, and what the loop says when a run cannot go on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wavesfm_core.errors import ConfigurationError, WavesfmError

PRECISIONS = ("32-true", "bf16-mixed")
OPTIMIZERS = ("adamw", "muon")
KEPT = ("best", "last")


class RunError(WavesfmError):
    """A run that cannot go on: a loss that is not finite, the state of another run, a damaged state, a full disk."""


@dataclass(frozen=True)
class LoopArgs:
    """Options of a run of the loop; everything that its weights depend on beside the data and the model.

    epochs: passes over the training data. batch_size: samples of one forward and backward pass over all processes
        together; accumulate: passes whose mean gradient makes one optimiser step (the last group of an epoch may be
        smaller and counts by its own size).
    lr: after warm-up, of the whole model (layer decay scales it down per group); min_lr: at the end of the cosine;
        warmup_epochs: of linear warm-up, may be a fraction. The schedule goes by optimiser steps.
    weight_decay: not for biases and norms; layer_decay: factor from one block to the one before it, 1 is off.
    optimizer: "adamw" (fused), or "muon": torch.optim.Muon for the matrices of the blocks beside AdamW for the rest.
    clip: largest norm of the gradient, 0 is off. precision: one of PRECISIONS (float16 would need loss scaling and
        its state).
    compile: torch.compile of the model. ema_decay: of the averaged weights that are validated and kept, 0 is off; it
        starts at 0.1 and grows as (1 + step) / (10 + step), so that the first weights are forgotten.
    seed: of order, augmentation, masks and drop path. batches_per_epoch: ends an epoch early, 0 is off (another order
        each).
    validate_every: epochs from one validation to the next (the last epoch always has one); patience: validations
        without improvement after which the run ends early, 0 is off. keep: which weights weights.safetensors holds.
    save_every: optimiser steps from one kept state to the next, beside the one at each epoch's end, 0 is off.
    log_every: optimiser steps from one TensorBoard point to the next; tensorboard, progress: whether they are written
        and shown.
    """

    epochs: int = 1
    batch_size: int = 256
    accumulate: int = 1
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup_epochs: float = 0.0
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    optimizer: str = "adamw"
    clip: float = 0.0
    precision: str = "32-true"
    compile: bool = False
    ema_decay: float = 0.0
    seed: int = 0
    batches_per_epoch: int = 0
    validate_every: int = 1
    patience: int = 0
    keep: str = "best"
    save_every: int = 0
    log_every: int = 20
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "accumulate": (self.accumulate >= 1, "1 or more"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "min_lr": (0 <= self.min_lr <= self.lr, f"0 to lr ({self.lr})"),
            "warmup_epochs": (0 <= self.warmup_epochs < self.epochs, f"0 to below epochs ({self.epochs})"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "layer_decay": (0 < self.layer_decay <= 1, "above 0 and up to 1"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "clip": (0 <= self.clip < math.inf, "0 (off) or more"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "ema_decay": (0 <= self.ema_decay < 1, "0 (off) to below 1"),
            "seed": (0 <= self.seed < 2**31, "0 to 2^31 - 1"),
            "batches_per_epoch": (self.batches_per_epoch >= 0, "0 (all) or more"),
            "validate_every": (self.validate_every >= 1, "1 or more"),
            "patience": (self.patience >= 0, "0 (off) or more"),
            "keep": (self.keep in KEPT, f"one of {', '.join(KEPT)}"),
            "save_every": (self.save_every >= 0, "0 (off) or more"),
            "log_every": (self.log_every >= 1, "1 or more"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigurationError("LoopArgs", name, getattr(self, name), expected)


# What may differ between a run and its resumption: the weights do not depend on it.
FREE_TO_CHANGE = ("save_every", "log_every", "tensorboard", "progress")
