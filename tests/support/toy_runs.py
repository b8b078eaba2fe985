# SPDX-License-Identifier: GPL-3.0-or-later
"""Toy data sets and runs of every task: what the evaluator and the export are tried with. Nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import HeadSpec, Preprocess, preprocess_from_dict, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_trainer.data.cache import read_note, write_cache
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.tasks import Task
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.mae import MaskedAutoencoder
from wavesfm_trainer.models.task_model import TaskArgs, TaskModel

from support.loop_toys import ENCODER

SIZE = {"height": 32, "width": 32, "shares": (0.4, 0.1, 0.5)}
KINDS = ("classification", "position", "channel")
TASKS = {
    "classification": Task("toy-classes", "classification", "ntu_fi_har", 3, labels=("a", "b", "c"), **SIZE),
    "position": Task("toy-places", "position", "nr_positioning", 2, axes=("x", "y"), split="group", **SIZE),
    "channel": Task("toy-channels", "channel", "sionna_grids", 2, grid=(2, 2, 8), range=(-1.0, 1.0), **SIZE),
    "pretraining": Task("toy-spectra", "pretraining", "rfs", 1, decibel_floor=1e-3, **SIZE),
}


def raws(kind: str, n: int = 30, seed: int = 0, scale: float = 1.0) -> list[Raw]:
    """n examples of noise, whose arrays are `scale` times as large."""
    rng = np.random.default_rng(seed)
    targets = {
        "classification": lambda i: i % 3,
        "position": lambda i: (rng.uniform(0, 1, 2) * (80, 40)).astype(np.float32),
        "channel": lambda i: rng.normal(size=(2, 2, 16)).astype(np.float32),
        "pretraining": lambda i: None,
    }
    arrays = [rng.normal(size=(TASKS[kind].channels, 20, 41)) * scale for _ in range(n)]
    if kind == "pretraining":
        arrays = [array**2 for array in arrays]
    snr = [-10.0 + i if kind == "channel" else np.nan for i in range(n)]
    return [
        Raw(array.astype(np.float32), targets[kind](i), f"file{i}", f"place {i // 2}", snr_db=snr[i])
        for i, array in enumerate(arrays)
    ]


def make_cache(path: Path, kind: str, given: list[Raw] | None = None, **changes: Any) -> dict[str, Any]:
    """A prepared cache of such examples; changes: of the Task's fields. Returns its note."""
    task = dataclasses.replace(TASKS[kind], **changes)
    return write_cache(path, task, given or raws(kind))


def head_of(note: dict[str, Any]) -> HeadSpec:
    """What the outputs of a model for this cache mean."""
    if note["kind"] == "classification":
        return HeadSpec("classification", tuple(note["labels"]))
    if note["kind"] == "position":
        low, high = tuple(note["target_low"]), tuple(note["target_high"])
        return HeadSpec("position", axes=tuple(note["axes"]), low_m=low, high_m=high)
    return HeadSpec("channel", grid=tuple(note["grid"]), scale=1.5)


def make_model(head: HeadSpec, channels: int, seed: int = 1, rate_input: bool = False, **task: Any) -> TaskModel:
    """A model of random weights whose outputs differ from example to example."""
    torch.manual_seed(seed)
    if head.task == "channel":
        args = {"head": "block", "grid": head.grid}
    else:
        output = "position" if head.task == "position" else "logits"
        args = {
            "n_outputs": head.output_shape[0],
            "output": output,
            "pooling": "avg" if output == "position" else "token",
        }
    encoder = dataclasses.replace(ENCODER, channels=(channels,), rate_input=rate_input)
    model = TaskModel(encoder, TaskArgs(**{"trainable": "all", **args, **task}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head.") and parameter.ndim > 1:
                parameter.normal_(std=0.3)
            if ".lora_" in name:
                parameter.normal_(std=0.05)
    return model.eval()


def make_run(directory: Path, preprocess: Preprocess, head: HeadSpec, **options: Any) -> Path:
    """A run directory with weights and config.json."""
    directory.mkdir(parents=True)
    model = make_model(head, preprocess.tile_shape[0], **options)
    registry.save(directory / "weights.safetensors", model, {"head": to_dict(head), "preprocess": to_dict(preprocess)})
    config = {"task": f"toy {head.task}", "args": {"epochs": 3, "seed": 1}, "git_commit": "0123abc"}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def make_cached_run(directory: Path, kind: str, **options: Any) -> tuple[Path, Path]:
    """A run and a cache with the same statistics, in `directory`."""
    cache = directory / f"{kind}.h5"
    note = make_cache(cache, kind)
    return make_run(directory / f"{kind}-run", spec_of(cache), head_of(note), **options), cache


def spec_of(cache: Path) -> ImageSpec:
    """Preprocessing of a cache with its statistics."""
    return preprocess_from_dict(read_note(cache)["preprocess"], str(cache))


def make_pretrained(directory: Path, specs: dict[str, Preprocess], **changes: Any) -> Path:
    """A pre-trained run that has seen data sets of these names."""
    directory.mkdir(parents=True)
    torch.manual_seed(2)
    channels = tuple(sorted({spec.tile_shape[0] for spec in specs.values()}))
    model = MaskedAutoencoder(dataclasses.replace(ENCODER, channels=channels, **changes))
    data = {name: {"preprocess": to_dict(spec)} for name, spec in specs.items()}
    registry.save(directory / "weights.safetensors", model, {"data": data})
    return directory


TILE_SPEC = SpectrogramSpec(
    fft_size=64, hop_samples=64, frames_averaged=1, rows_per_tile=32, height=32, width=32, mean=0.3, std=0.2
)


def make_tile_shards(directory: Path, labels: tuple[str, ...], n: int = 24, seed: int = 0, spec=TILE_SPEC) -> Path:
    """Tile shards of noise, every label equally often, every third tile a partial one."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    note = {"spec": to_dict(spec), "labels": list(labels), "drawn": list(labels), "seed": seed}
    (directory / "cache.json").write_text(json.dumps(note))
    np.savez(
        directory / "shard-00000.npz",
        picture=rng.integers(0, 256, (n, spec.height, spec.width), np.uint8),
        label=np.arange(n) % len(labels),
        log10_rate=rng.uniform(5, 7, n).astype(np.float32),
        snr_db=np.linspace(-4, 30, n).astype(np.float32),
        rows=np.where(np.arange(n) % 3, spec.rows_per_tile, 7).astype(np.int32),
    )
    return directory
