# SPDX-License-Identifier: GPL-3.0-or-later
"""Models as files: safetensors with the args as JSON in the metadata, so that `load(path)` needs nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.errors import BundleError, ConfigurationError, WavesfmError

from .vit import EncoderArgs

FORMAT = "wavesfm-weights 1"
KINDS = ("masked_autoencoder", "task_model", "channel_model")


class WeightsError(WavesfmError):
    """A weights file that is truncated, of another model, or of another shape."""


@dataclass(frozen=True)
class Weights:
    """A weights file in memory.

    where: its path; kind: one of KINDS; config: "encoder" (EncoderArgs as a dict) and what the kind needs; state:
    float32 tensors by name; extra: what the writer noted beside (JSON).
    """

    where: str
    kind: str
    config: dict[str, Any]
    state: Mapping[str, Tensor]
    extra: dict[str, Any]


def config_of(args: Any) -> dict[str, Any]:
    """A dataclass of args as plain types for JSON."""
    return dataclasses.asdict(args)


def encoder_args(weights: Weights) -> EncoderArgs:
    """EncoderArgs of the file."""
    return args_of(EncoderArgs, weights.config.get("encoder"), weights.where)


def check_state(
    expected: Mapping[str, torch.Size], found: Mapping[str, tuple[torch.Size, torch.dtype | None]], where: str
) -> None:
    """WeightsError for the first tensor that is missing, unknown, of another shape, or not float32."""
    for name, shape in expected.items():
        if name not in found:
            raise WeightsError(where, name, "nothing", f"a tensor of {_size(shape)}")
        if found[name][0] != shape:
            raise WeightsError(where, name, _size(found[name][0]), _size(shape))
        if found[name][1] != torch.float32:
            raise WeightsError(where, name, found[name][1] or "another type", "torch.float32")
    for name in found:
        if name not in expected:
            raise WeightsError(where, name, f"a tensor of {_size(found[name][0])}", "none of this name")


def check_finite(state: Mapping[str, Tensor], where: str | Path) -> None:
    """WeightsError for the first tensor that has a value that is not finite."""
    for name, tensor in state.items():
        if count := int((~torch.isfinite(tensor)).sum()):
            raise WeightsError(where, name, f"{count} values that are not finite", "finite numbers")


def args_of(cls: type, values: Any, where: str | Path) -> Any:
    try:
        return from_dict(cls, values, str(where))
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None
    except ConfigurationError as error:
        raise WeightsError(where, f"{error.where}.{error.field}", error.found, error.expected) from None


def json_of(note: Mapping[str, str], name: str, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(note.get(name, ""))
    except ValueError as error:
        raise WeightsError(where, name, f"no JSON ({error})", "an object") from None
    if not isinstance(value, dict):
        raise WeightsError(where, name, type(value).__name__, "an object")
    return value


def dtype_of(name: str) -> torch.dtype | None:
    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}.get(name)


def _size(shape: torch.Size) -> str:
    return "x".join(str(n) for n in shape) or "a scalar"
