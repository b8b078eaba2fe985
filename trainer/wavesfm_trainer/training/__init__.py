"""The training loop: options, data on the device, objectives, and `fit`."""

from __future__ import annotations

from .args import LoopArgs, RunError
from .augment import Augmentation
from .batches import DeviceExamples, Loaders
from .fit import fit
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
