# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights files to models and back: which class a file builds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.errors import ConfigurationError

from .vit import EncoderArgs
from .weights import (
    FORMAT,
    KINDS,
    Weights,
    WeightsError,
    args_of,
    check_finite,
    check_state,
    config_of,
    dtype_of,
    json_of,
)


def save(
    path: str | Path,
    model: nn.Module,
    extra: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a MaskedAutoencoder, TaskModel or ChannelModel, atomically: a kill or a full disk leaves what was there.

    extra: plain types to be kept beside (e.g. labels, a recipe's name). state: other tensors of the same names, such as
    a moving average. WeightsError when they do not fit the model or the file cannot be written.
    """
    own, state = model.state_dict(), model.state_dict() if state is None else state
    check_state({k: v.shape for k, v in own.items()}, {k: (v.shape, v.dtype) for k, v in state.items()}, str(path))
    kind = _kind(model)
    args = model.args if kind == "masked_autoencoder" else model.encoder_args
    config = {"encoder": config_of(args)} | model.config()
    note = {"format": FORMAT, "kind": kind, "config": json.dumps(config), "extra": json.dumps(dict(extra or {}))}
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata=note)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(path, "file", f"not written ({error})", "a place to write to") from None
    finally:
        part.unlink(missing_ok=True)


def read(path: str | Path) -> Weights:
    """The file at `path`, checked against its args before tensors are allocated; WeightsError names what is wrong."""
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            note = file.metadata() or {}
            if note.get("format") != FORMAT or note.get("kind") not in KINDS:
                found = f"{note.get('format', 'nothing')}, {note.get('kind', 'no kind')}"
                raise WeightsError(path, "metadata", found, f"{FORMAT} of {' or '.join(KINDS)}")
            config, extra = (json_of(note, name, path) for name in ("config", "extra"))
            model = _build(note["kind"], config, path)
            shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found_shapes = {n: (torch.Size(s.get_shape()), dtype_of(s.get_dtype())) for n, s in shapes.items()}
            check_state({n: t.shape for n, t in model.state_dict().items()}, found_shapes, str(path))
            state = {name: file.get_tensor(name) for name in shapes}
            check_finite(state, path)
    except FileNotFoundError:
        raise WeightsError(path, "file", "nothing", "a weights file (.safetensors)") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(path, "file", f"truncated or no safetensors ({error})", "a weights file") from None
    return Weights(str(path), note["kind"], config, state, extra)


def load(path: str | Path) -> nn.Module:
    """The model in the file at `path`, on the CPU, in eval mode: a MaskedAutoencoder, a TaskModel or a ChannelModel."""
    weights = read(path)
    model = _build(weights.kind, weights.config, weights.where)
    model.load_state_dict(weights.state, strict=True, assign=True)
    return model.eval()


def _kind(model: nn.Module) -> str:
    from .channel_model import ChannelModel  # see _build

    if isinstance(model, ChannelModel):
        return "channel_model"
    return "masked_autoencoder" if hasattr(model, "mask_ratio") else "task_model"


def _build(kind: str, config: dict[str, Any], where: str | Path) -> nn.Module:
    """The model of a config on the meta device: no memory and no time for weights that are about to be replaced."""
    from .channel_model import ChannelModel, ModeArgs
    from .mae import MaskedAutoencoder  # all import this module
    from .task_model import TaskArgs, TaskModel

    args = args_of(EncoderArgs, config.get("encoder"), where)
    expected = {"encoder", *_CONFIGS[kind]}
    if set(config) != expected:
        raise WeightsError(where, "config", sorted(config), f"{sorted(expected)}")
    try:
        with torch.device("meta"):
            if kind == "masked_autoencoder":
                return MaskedAutoencoder(args, config["mask_ratio"], config["cls_in_pretraining"])
            if kind == "channel_model":
                modes, spec = (args_of(c, config[n], where) for c, n in ((ModeArgs, "modes"), (OFDMSpec, "numerology")))
                return ChannelModel(modes, spec, args, config["held"])
            model = TaskModel(args, args_of(TaskArgs, config["task"], where))
    except (ConfigurationError, TypeError) as error:
        raise WeightsError(where, "config", error, "the args of a model") from None
    model.pretrained, model.new = bool(config["pretrained"]), tuple(config["new"])
    model.set_trainable()
    return model


_CONFIGS = {
    "masked_autoencoder": ("mask_ratio", "cls_in_pretraining"),
    "task_model": ("task", "pretrained", "new"),
    "channel_model": ("modes", "numerology", "held"),
}
