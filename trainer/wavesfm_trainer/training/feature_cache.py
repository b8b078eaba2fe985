# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs of the frozen blocks, computed once and kept on the device in place of the images."""

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
    """Bytes that the features of all examples take, from the size of one example's."""
    device = next(model.parameters()).device
    tile = torch.zeros(1, *sets[0].host["image"].shape[1:], device=device)
    features = model.prefix(tile, torch.zeros(1, 1, device=device))
    return features[0].numel() * dtype.itemsize * sum(len(e) for e in sets)


def cache_prefix(
    model: TaskModel,
    sets: list[DeviceExamples],
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 64,
) -> None:
    """Compute the output of the frozen blocks for every example, and keep it on the device in place of the images.

    Parameters
    ----------
    model : with frozen leading blocks.
    sets : data sets; their `features` are set.
    autocast : context of the computation.
    device : where the features stay.
    dtype : of the features.
    batch_size : examples at a time.

    Raises
    ------
    ConfigurationError : the features do not fit into the device's memory.
    RunError : a feature is not finite in dtype (float16 ends at 65504).
    """
    names = ", ".join(e.name for e in sets)
    refuse_too_large(prefix_bytes(model, sets, dtype), device, f"{names}: features of the frozen blocks")
    was_training = model.training
    model.eval()
    for examples in sets:
        examples.to(torch.device("cpu"))  # images go to the device batch by batch
        features: Tensor | None = None
        with autocast():
            for start in range(0, len(examples), batch_size):
                batch = examples.batch(torch.arange(start, min(len(examples), start + batch_size)))
                rate = batch["log10_rate"].to(device) if "log10_rate" in batch else None
                computed = model.prefix(batch["tile"].to(device), rate).to(dtype)
                if features is None:
                    features = torch.empty(len(examples), *computed.shape[1:], dtype=dtype, device=device)
                features[start : start + len(computed)] = computed
        if not bool(torch.isfinite(features).all()):
            raise RunError(examples.name, "features", "values that are not finite", f"values in the range of {dtype}")
        examples.features = features
        examples.to(device, without_images=True)
    model.train(was_training)
