# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a run on disk: safetensors and JSON, replaced atomically, so that a kill leaves the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .loop_args import RunError

FORMAT = 1


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically: under another name, synced, then renamed. RunError when the disk is full."""
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, partial, dict(metadata or {}))
        _commit(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(path, "writing", error, "room on the disk and the right to write") from error


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically. RunError when the disk is full."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
        _commit(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(path, "writing", error, "room on the disk and the right to write") from error


def _commit(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU. RunError when it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise RunError(path, "contents", error, "a whole safetensors file") from None


class StateDirectory:
    """`state/` of a run: state.json, which names the tensor file that belongs to it; renaming state.json is the commit.

    A kill between the two leaves the old state.json and the old tensor file, which is removed only after that.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "state.json"

    def save(self, values: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Keep `values` (plain types; "step" names the file) and `tensors`; then forget what was kept before."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # A step may be kept twice (in its own turn, at its epoch's end): never write over what state.json names.
        name = f"step-{values['step']:09d}-{values['epoch']:06d}.safetensors"
        write_tensors(self.directory / name, tensors)
        write_json(self.path, {"format": FORMAT, "tensors": name, **values})
        for old in self.directory.glob("step-*"):
            if old.name != name:
                old.unlink()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What was kept last, or None when nothing was. RunError when it is damaged or of another version."""
        try:
            values = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(self.path, "contents", error, "JSON") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT or "tensors" not in values:
            found = values.get("format", "nothing") if isinstance(values, dict) else type(values).__name__
            raise RunError(self.path, "format", found, str(FORMAT))
        return values, read_tensors(self.directory / values["tensors"])


def pack(model: nn.Module, average: Mapping[str, Tensor], optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Everything that training changes, by name: model.*, ema.*, and optimizer.<parameter>.<quantity>."""
    names = {id(p): name for name, p in model.named_parameters()}
    packed = {f"model.{name}": t for name, t in model.state_dict().items()}
    packed |= {f"ema.{name}": t for name, t in average.items()}
    for optimizer in optimizers:
        for parameter, quantities in optimizer.state.items():
            for quantity, value in quantities.items():
                packed[f"optimizer.{names[id(parameter)]}.{quantity}"] = value
    return packed


def unpack(
    path: Path,
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Put back what `pack` took; RunError names the first tensor that is missing, too many or of another shape."""
    left = dict(tensors)
    with torch.no_grad():
        for prefix, there in (("model.", model.state_dict()), ("ema.", average)):
            for name, tensor in there.items():
                kept = left.pop(prefix + name, None)
                if kept is None or kept.shape != tensor.shape:
                    found = "nothing" if kept is None else tuple(kept.shape)
                    raise RunError(path, prefix + name, found, f"{tuple(tensor.shape)}, as the model has")
                tensor.copy_(kept)
    names = {id(p): name for name, p in model.named_parameters()}
    for optimizer in optimizers:
        _unpack_optimizer(optimizer, names, left)
    if left:
        raise RunError(path, next(iter(left)), "a tensor too many", "those of this model and optimiser")


def _unpack_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str], left: dict[str, Tensor]) -> None:
    """Through load_state_dict, which knows the device and the dtype of each quantity."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        prefix = f"optimizer.{names[id(parameter)]}."
        keys = [key for key in left if key.startswith(prefix) and "." not in key[len(prefix) :]]
        if keys:  # none: a parameter that had no gradient yet
            state[number] = {key[len(prefix) :]: left.pop(key) for key in keys}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
