# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a run: safetensors and JSON, replaced atomically, so that a kill leaves the last one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from wavesfm_core.atomic_file import atomic_path, write_atomically

from .loop_args import RunError

FORMAT = 1


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically. RunError if the disk is full."""
    with _writing(path), atomic_path(path) as scratch:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, scratch, dict(metadata or {}))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically. RunError if the disk is full."""
    with _writing(path):
        write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(path, "writing", error, "room on the disk and the right to write") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file to the CPU. RunError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise RunError(path, "contents", error, "a whole safetensors file") from None


class StateDirectory:
    """`state/` of a run: state.json, and the tensor file that it names.

    Replacing state.json is the commit. A kill before it leaves the old state.json and the old tensor file, which is
    removed only afterwards.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "state.json"

    def save(self, values: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, then remove the one before.

        Parameters
        ----------
        values : plain types; "step" and "epoch" name the tensor file.
        tensors : by name.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        # A step may be written twice (by save_every, at the end of an epoch): never overwrite the file of state.json.
        name = f"step-{values['step']:09d}-{values['epoch']:06d}.safetensors"
        write_tensors(self.directory / name, tensors)
        write_json(self.path, {"format": FORMAT, "tensors": name, **values})
        for old in self.directory.glob("step-*"):
            if old.name != name:
                old.unlink()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Read the last checkpoint; None if there is none. RunError if it is damaged or of another version."""
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
    """All that training changes, by name: model.*, ema.*, and optimizer.<parameter>.<quantity>."""
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
    """Restore what `pack` took; RunError names the first tensor that is missing, unknown or of another shape."""
    left = dict(tensors)
    with torch.no_grad():
        for prefix, targets in (("model.", model.state_dict()), ("ema.", average)):
            for name, tensor in targets.items():
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
    """Restore through load_state_dict, which knows device and dtype of each quantity."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        prefix = f"optimizer.{names[id(parameter)]}."
        keys = [key for key in left if key.startswith(prefix) and "." not in key[len(prefix) :]]
        if keys:  # none: a parameter that had no gradient yet
            state[number] = {key[len(prefix) :]: left.pop(key) for key in keys}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
