# SPDX-License-Identifier: GPL-3.0-or-later
"""Save and load models: which class a weights file builds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from wavesfm_core.atomic_file import atomic_path
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.errors import ConfigurationError

from .channel_model import ChannelModel, ModeArgs
from .mae import MaskedAutoencoder
from .task_model import TaskArgs, TaskModel
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

Model = MaskedAutoencoder | TaskModel | ChannelModel
_CLASSES: dict[str, type[Model]] = {
    "masked_autoencoder": MaskedAutoencoder,
    "task_model": TaskModel,
    "channel_model": ChannelModel,
}
_CONFIG_KEYS = {
    "masked_autoencoder": ("mask_ratio", "cls_in_pretraining"),
    "task_model": ("task", "pretrained", "new"),
    "channel_model": ("modes", "numerology", "held"),
}


def save(
    path: str | Path,
    model: nn.Module,
    extra: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a weights file atomically; a kill or a full disk leaves the previous file.

    Parameters
    ----------
    path : of the file.
    model : a MaskedAutoencoder, TaskModel or ChannelModel.
    extra : JSON values stored beside the weights, for example labels.
    state : tensors to write instead of the model's, such as their moving average; names and shapes must be equal.

    Raises
    ------
    WeightsError : the tensors do not fit the model, or the file cannot be written.
    """
    expected, state = model.state_dict(), model.state_dict() if state is None else state
    check_state({k: v.shape for k, v in expected.items()}, {k: (v.shape, v.dtype) for k, v in state.items()}, str(path))
    kind = next((kind for kind, cls in _CLASSES.items() if isinstance(model, cls)), None)
    if kind is None:
        raise WeightsError(path, "model", type(model).__name__, f"one of {', '.join(KINDS)}")
    args = model.args if kind == "masked_autoencoder" else model.encoder_args
    config = {"encoder": config_of(args)} | model.config()
    metadata = {"format": FORMAT, "kind": kind, "config": json.dumps(config), "extra": json.dumps(dict(extra or {}))}
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
    try:
        with atomic_path(path) as scratch:
            save_file(tensors, scratch, metadata=metadata)
            _sort_header(scratch)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(path, "file", f"not written ({error})", "a place to write to") from None


def _sort_header(path: Path) -> None:
    """Sort the header of a safetensors file, whose metadata has a random order: equal models are then equal files."""
    with path.open("rb+") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= n_bytes:  # the rest of the header is padding
            file.seek(8)
            file.write(text.ljust(n_bytes))


def read(path: str | Path) -> Weights:
    """Read a weights file; names and shapes are checked against its arguments before tensors are allocated.

    Raises
    ------
    WeightsError : no such file, a damaged file, or one whose tensors do not fit its arguments.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("kind") not in KINDS:
                found = f"{metadata.get('format', 'nothing')}, {metadata.get('kind', 'no kind')}"
                raise WeightsError(path, "metadata", found, f"{FORMAT} of {' or '.join(KINDS)}")
            config, extra = (json_of(metadata, name, path) for name in ("config", "extra"))
            model = _skeleton(metadata["kind"], config, path)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found_shapes = {n: (torch.Size(s.get_shape()), dtype_of(s.get_dtype())) for n, s in slices.items()}
            shapes = {n: t.shape for n, t in model.state_dict().items()}
            check_state(shapes, found_shapes, str(path), (torch.float32, torch.float16))
            state = {name: file.get_tensor(name).float() for name in slices}
            check_finite(state, path)
    except FileNotFoundError:
        raise WeightsError(path, "file", "nothing", "a weights file (.safetensors)") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(path, "file", f"truncated or no safetensors ({error})", "a weights file") from None
    return Weights(str(path), metadata["kind"], config, state, extra)


def load(path: str | Path) -> Model:
    """The model of a weights file, on the CPU, in eval mode; raises WeightsError like `read`."""
    return build(read(path))


def build(weights: Weights) -> Model:
    """The model of weights in memory, on the CPU, in eval mode; it shares their tensors."""
    model = _skeleton(weights.kind, weights.config, weights.where)
    model.load_state_dict(weights.state, strict=True, assign=True)
    model.eval()
    return model


def _skeleton(kind: str, config: dict[str, Any], where: str | Path) -> Model:
    """The model of a config on the meta device: no memory for tensors that the file replaces."""
    args = args_of(EncoderArgs, config.get("encoder"), where)
    expected = {"encoder", *_CONFIG_KEYS[kind]}
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
        raise WeightsError(where, "config", error, "the arguments of a model") from None
    model.pretrained, model.new = bool(config["pretrained"]), tuple(config["new"])
    model.set_trainable()
    return model
