# SPDX-License-Identifier: GPL-3.0-or-later
"""The format of a weights file: safetensors whose metadata holds the model's arguments as JSON."""

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
    """A weights file is truncated, of another model, or of another shape."""


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file."""

    where: str
    """Path of the file."""
    kind: str
    """Class of the model, one of KINDS."""
    config: dict[str, Any]
    """Arguments of the model: "encoder" (EncoderArgs as a dict) and what the kind adds."""
    state: Mapping[str, Tensor]
    """Tensors by name, float32; those of a file in float16 are widened."""
    extra: dict[str, Any]
    """JSON values that the writer added, for example labels."""


def config_of(args: Any) -> dict[str, Any]:
    """A dataclass of arguments as plain types for JSON."""
    return dataclasses.asdict(args)


def encoder_args(weights: Weights) -> EncoderArgs:
    """The encoder's arguments of a weights file.

    Raises
    ------
    WeightsError : an argument is missing, unknown or invalid.
    """
    args: EncoderArgs = args_of(EncoderArgs, weights.config.get("encoder"), weights.where)
    return args


def check_state(
    expected: Mapping[str, torch.Size],
    found: Mapping[str, tuple[torch.Size, torch.dtype | None]],
    where: str,
    types: tuple[torch.dtype, ...] = (torch.float32,),
) -> None:
    """Compare tensors with those of a model.

    Parameters
    ----------
    expected : shapes of the model's tensors by name.
    found : shapes and dtypes of the tensors by name; dtype None for one that torch lacks.
    where : file, for the error.
    types : dtypes that are allowed.

    Raises
    ------
    WeightsError : the first tensor that is missing, unknown, of another shape, or of another dtype.
    """
    for name, shape in expected.items():
        if name not in found:
            raise WeightsError(where, name, "nothing", f"a tensor of {shape_text(shape)}")
        if found[name][0] != shape:
            raise WeightsError(where, name, shape_text(found[name][0]), shape_text(shape))
        if found[name][1] not in types:
            expected_type = " or ".join(map(str, types))
            raise WeightsError(where, name, found[name][1] or "another type", expected_type)
    for name in found:
        if name not in expected:
            raise WeightsError(where, name, f"a tensor of {shape_text(found[name][0])}", "none of this name")


def check_finite(state: Mapping[str, Tensor], where: str | Path) -> None:
    """WeightsError for the first tensor that has a value that is not finite."""
    for name, tensor in state.items():
        if count := int((~torch.isfinite(tensor)).sum()):
            raise WeightsError(where, name, f"{count} values that are not finite", "finite numbers")


def args_of(cls: type, values: Any, where: str | Path) -> Any:
    """A dataclass of arguments from JSON values; raises WeightsError naming the field."""
    try:
        return from_dict(cls, values, str(where))
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None
    except ConfigurationError as error:
        raise WeightsError(where, f"{error.where}.{error.field}", error.found, error.expected) from None


def json_of(metadata: Mapping[str, str], name: str, where: Path) -> dict[str, Any]:
    """The JSON object in one metadata entry; raises WeightsError for anything else."""
    try:
        value = json.loads(metadata.get(name, ""))
    except (ValueError, RecursionError) as error:
        raise WeightsError(where, name, f"invalid JSON ({error})", "an object") from None
    if not isinstance(value, dict):
        raise WeightsError(where, name, type(value).__name__, "an object")
    return value


def dtype_of(name: str) -> torch.dtype | None:
    """The torch dtype of a safetensors dtype name; None for one that no weights file may hold."""
    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}.get(name)


def shape_text(shape: torch.Size) -> str:
    """A shape for an error message, such as 32x64."""
    return "x".join(str(n) for n in shape) or "a scalar"
