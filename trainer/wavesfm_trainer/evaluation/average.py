# SPDX-License-Identifier: GPL-3.0-or-later
"""The mean of runs that went on from the same weights side by side, as a run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from wavesfm_core.errors import ConfigurationError

from ..models import registry
from ..models.run_layout import CONFIG, WEIGHTS
from .trained_run import load_task_run


def average_runs(runs: Sequence[Path], out: Path) -> Path:
    """Write the mean of the runs' weights, with the first one's head and config.json, to `out`; returns the file.

    Means of weights are of use where the runs started from the same ones and differ in the order of their data only.
    Raises ConfigurationError for fewer than two runs, or for runs of other models, labels or preprocessing.
    """
    if len(runs) < 2:
        raise ConfigurationError("average", "runs", len(runs), "two or more")
    trained = load_task_run(runs[0])
    records = [registry.read(run / WEIGHTS if run.is_dir() else run) for run in runs]
    for run, record in zip(runs[1:], records[1:], strict=True):
        for name in ("head", "preprocess"):
            if record.extra.get(name) != records[0].extra.get(name):
                raise ConfigurationError(str(run), name, record.extra.get(name), f"{runs[0]}'s")
        if record.config != records[0].config:
            raise ConfigurationError(str(run), "model", record.config, f"{runs[0]}'s")
    state = {name: torch.stack([r.state[name] for r in records]).mean(dim=0) for name in records[0].state}
    out.mkdir(parents=True, exist_ok=True)
    registry.save(out / WEIGHTS, trained.model, records[0].extra, state)
    if (trained.directory / CONFIG).is_file():
        shutil.copy(trained.directory / CONFIG, out / CONFIG)
    return out / WEIGHTS


def save_half(weights_path: Path, out: Path) -> Path:
    """Write a weights file with all tensors in float16, half the size, to `out`; every command reads it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(weights_path, framework="pt") as file:
        note = file.metadata()
        state = {name: file.get_tensor(name).half().contiguous() for name in file.keys()}  # noqa: SIM118 (no dict)
    save_file(state, out, metadata=note)
    return out
