# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop: options, data on the device, objectives, and `fit`."""

from __future__ import annotations

from .augmentation import Augmentation
from .batches import DeviceExamples, Loaders
from .fit import fit
from .loop_args import LoopArgs, RunError
from .objectives import FinetuneArgs, FinetuneObjective, Objective, PretrainObjective

__all__ = [
    "Augmentation",
    "DeviceExamples",
    "FinetuneArgs",
    "FinetuneObjective",
    "Loaders",
    "LoopArgs",
    "Objective",
    "PretrainObjective",
    "RunError",
    "fit",
]
