# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the training loop, and the error of a run that cannot go on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wavesfm_core.checks import require_rules
from wavesfm_core.errors import WavesfmError

PRECISIONS = ("32-true", "bf16-mixed")
OPTIMIZERS = ("adamw", "muon")
KEPT = ("best", "last")


class RunError(WavesfmError):
    """A run cannot go on: loss not finite, state of another run, damaged state, full disk."""


@dataclass(frozen=True)
class LoopArgs:
    """Options of the training loop: all that the weights depend on beside the data and the model."""

    epochs: int = 1
    """Passes over the training data."""
    batch_size: int = 256
    """Samples of one forward and backward pass, over all processes together."""
    accumulate: int = 1
    """Passes whose mean gradient makes one optimiser step. The last group of an epoch may be smaller."""
    lr: float = 1e-3
    """Learning rate after warm-up. Layer decay scales it down for each group of parameters."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up; may be a fraction. The schedule advances with each optimiser step."""
    weight_decay: float = 0.05
    """Weight decay; biases and norms have none."""
    layer_decay: float = 1.0
    """Factor on the learning rate from one block to the block before it; 1: off."""
    optimizer: str = "adamw"
    """"adamw" (fused), or "muon": torch.optim.Muon for the matrices of the blocks, AdamW for the rest."""
    clip: float = 0.0
    """Largest norm of the gradient; 0: off."""
    precision: str = "32-true"
    """One of PRECISIONS. float16 is missing, since it would need loss scaling and its state."""
    compile: bool = False
    """Compile the model with torch.compile."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are validated and kept; 0: off.

    It starts at 0.1 and grows as (1 + step) / (10 + step), so that the first weights are forgotten.
    """
    seed: int = 0
    """Seed of order, augmentation, masks and drop path."""
    batches_per_epoch: int = 0
    """End an epoch after so many batches; 0: off. The order differs from epoch to epoch."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch always has one."""
    patience: int = 0
    """Validations without improvement after which the run ends early; 0: off."""
    keep: str = "best"
    """Which weights weights.safetensors holds, one of KEPT."""
    save_every: int = 0
    """Also write a checkpoint every N optimiser steps; 0: at the end of an epoch only."""
    log_every: int = 20
    """Optimiser steps from one TensorBoard point to the next."""
    tensorboard: bool = True
    """Write TensorBoard files."""
    progress: bool = True
    """Show a progress bar on a terminal."""

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
        require_rules("LoopArgs", self, rules)


FREE_TO_CHANGE = ("save_every", "log_every", "tensorboard", "progress")
"""Options that may change when a run is resumed: the weights do not depend on them."""
