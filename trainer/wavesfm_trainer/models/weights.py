"""Models as files: safetensors with the args as JSON in the metadata, so that `load(path)` needs nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from wavesfm_core.channel.numerology import OFDMSpec
from wavesfm_core.errors import BundleError, ConfigurationError, WavesfmError
from wavesfm_core.spec import from_dict

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
            config, extra = (_json(note, name, path) for name in ("config", "extra"))
            model = _build(note["kind"], config, path)
            shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found_shapes = {n: (torch.Size(s.get_shape()), _dtype(s.get_dtype())) for n, s in shapes.items()}
            check_state({n: t.shape for n, t in model.state_dict().items()}, found_shapes, str(path))
            state = {name: file.get_tensor(name) for name in shapes}
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


def encoder_args(weights: Weights) -> EncoderArgs:
    """EncoderArgs of the file."""
    return _args(EncoderArgs, weights.config.get("encoder"), weights.where)


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

    args = _args(EncoderArgs, config.get("encoder"), where)
    expected = {"encoder", *_CONFIGS[kind]}
    if set(config) != expected:
        raise WeightsError(where, "config", sorted(config), f"{sorted(expected)}")
    try:
        with torch.device("meta"):
            if kind == "masked_autoencoder":
                return MaskedAutoencoder(args, config["mask_ratio"], config["cls_in_pretraining"])
            if kind == "channel_model":
                modes, spec = (_args(c, config[n], where) for c, n in ((ModeArgs, "modes"), (OFDMSpec, "numerology")))
                return ChannelModel(modes, spec, args, config["held"])
            model = TaskModel(args, _args(TaskArgs, config["task"], where))
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


def _args(cls: type, values: Any, where: str | Path) -> Any:
    try:
        return from_dict(cls, values, str(where))
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None
    except ConfigurationError as error:
        raise WeightsError(where, f"{error.where}.{error.field}", error.found, error.expected) from None


def _json(note: Mapping[str, str], name: str, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(note.get(name, ""))
    except ValueError as error:
        raise WeightsError(where, name, f"no JSON ({error})", "an object") from None
    if not isinstance(value, dict):
        raise WeightsError(where, name, type(value).__name__, "an object")
    return value


def _dtype(name: str) -> torch.dtype | None:
    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}.get(name)


def _size(shape: torch.Size) -> str:
    return "x".join(str(n) for n in shape) or "a scalar"
