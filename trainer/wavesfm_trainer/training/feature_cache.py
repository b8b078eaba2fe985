# SPDX-License-Identifier: GPL-3.0-or-later
"""What the frozen blocks make of the data, computed once and kept on the device in place of the images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..models.task_model import TaskModel
from .batches import DeviceExamples, refuse_too_large
from .loop_args import RunError

FEATURE_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def prefix_bytes(model: TaskModel, sets: list[DeviceExamples], dtype: torch.dtype) -> int:
    """Bytes that the features of all examples take, found from one example."""
    device = next(model.parameters()).device
    tile = torch.zeros(1, *sets[0].host["image"].shape[1:], device=device)
    one = model.prefix(tile, torch.zeros(1, 1, device=device))
    return one[0].numel() * dtype.itemsize * sum(len(e) for e in sets)


def cache_prefix(
    model: TaskModel,
    sets: list[DeviceExamples],
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 64,
) -> None:
    """Compute what the frozen blocks make of every example, once, and keep that on the device in place of the images.

    Raises ConfigurationError when it does not fit, RunError when a feature leaves the range of dtype (float16:
    65504).
    """
    names = ", ".join(e.name for e in sets)
    refuse_too_large(prefix_bytes(model, sets, dtype), device, f"{names}: features of the frozen blocks")
    was_training = model.training
    model.eval()
    for examples in sets:
        examples.to(torch.device("cpu"))  # the images go through batch by batch and never lie on the device as a whole
        features: Tensor | None = None
        with autocast():
            for start in range(0, len(examples), batch_size):
                batch = examples.batch(torch.arange(start, min(len(examples), start + batch_size)))
                rate = batch["log10_rate"].to(device) if "log10_rate" in batch else None
                made = model.prefix(batch["tile"].to(device), rate).to(dtype)
                if features is None:
                    features = torch.empty(len(examples), *made.shape[1:], dtype=dtype, device=device)
                features[start : start + len(made)] = made
        if not bool(torch.isfinite(features).all()):
            raise RunError(examples.name, "features", "values that are not finite", f"values in the range of {dtype}")
        examples.features = features
        examples.to(device, without_images=True)
    model.train(was_training)
