# SPDX-License-Identifier: GPL-3.0-or-later
"""Toys for the tests of the loop: examples that a small model learns in seconds. As a script: one run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_trainer.data.examples import Examples
from wavesfm_trainer.models.mae import MaskedAutoencoder
from wavesfm_trainer.models.task_model import TaskArgs, TaskModel
from wavesfm_trainer.models.vit import EncoderArgs
from wavesfm_trainer.training import (
    Augmentation,
    DeviceExamples,
    FinetuneArgs,
    FinetuneObjective,
    Loaders,
    LoopArgs,
    PretrainObjective,
    fit,
)

SIDE = 32
LABELS = ("dark", "grey", "bright")
ENCODER = EncoderArgs(
    size="custom", depth=2, width=32, heads=2, decoder_depth=1, decoder_width=16, decoder_heads=2, image=SIDE, patch=8
)


def examples(n: int, channels: int = 1, seed: int = 0, kind: str = "classification", dtype=np.float16) -> Examples:
    """Noise on a ground whose brightness tells the class, the position, or the mean of the channel."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 0.3, (n, channels, SIDE, SIDE))
    label = np.arange(n) % len(LABELS)
    image += 0.35 * label[:, None, None, None]
    target: np.ndarray | None = label.astype(np.int64)
    if kind == "position":
        target = np.stack([10.0 * label, 5.0 * (label == 2)], 1).astype(np.float32)
    if kind == "channel":
        target = rng.normal(size=(n, 2, 2, 16)).astype(np.float32) + label[:, None, None, None]
    image = image.astype(dtype) if dtype == np.float16 else np.rint(image * 255).astype(dtype)
    rate = np.full(n, 6.0, np.float32)
    snr = np.linspace(-10, 20, n).astype(np.float32)
    spec = ImageSpec(channels, 0.0, 1.0, (0.3,) * channels, (0.25,) * channels, height=SIDE, width=SIDE)
    note = {"task": "toy", "seed": seed, "split": {"method": "random"}}
    return Examples(image, None if kind == "pretraining" else target, rate, snr, spec, note)


def pretraining(args: LoopArgs, sets: dict[str, tuple[int, int]]) -> tuple[PretrainObjective, Loaders]:
    """sets: name -> (examples, channels)."""
    torch.manual_seed(args.seed)
    channels = tuple(sorted({c for _, c in sets.values()}))
    model = MaskedAutoencoder(dataclasses.replace(ENCODER, channels=channels, drop_path=0.1))
    augmentation = Augmentation("csi")
    training = [DeviceExamples(examples(n, c, kind="pretraining"), k, augmentation) for k, (n, c) in sets.items()]
    validation = [DeviceExamples(examples(9, c, 1, kind="pretraining"), k) for k, (_, c) in sets.items()]
    return PretrainObjective(model, args.seed), Loaders(training, validation)


def head(kind: str = "classification") -> HeadSpec:
    """Of the toy task."""
    if kind == "classification":
        return HeadSpec("classification", LABELS)
    if kind == "position":
        return HeadSpec("position", axes=("x", "y"), low_m=(0.0, 0.0), high_m=(20.0, 10.0))
    return HeadSpec("channel", grid=(2, 2, 8), scale=2.0)


def finetuning(
    args: LoopArgs, kind: str = "classification", n: int = 24, trainable: str = "all", augmentation=None, **options
) -> tuple[FinetuneObjective, Loaders]:
    """A task model with its toy data."""
    torch.manual_seed(args.seed)
    outputs = {"classification": {"n_outputs": len(LABELS)}, "position": {"n_outputs": 2, "output": "position"}}
    task = {"head": "block", "grid": (2, 2, 8)} if kind == "channel" else outputs[kind]
    drop_path = 0.1 if trainable == "all" else 0.0
    encoder = dataclasses.replace(ENCODER, drop_path=drop_path, rate_input=True)
    model = TaskModel(encoder, TaskArgs(**task, trainable=trainable, last_blocks=1))
    training = DeviceExamples(examples(n, kind=kind), "toy", augmentation)
    loaders = Loaders([training], [DeviceExamples(examples(12, seed=1, kind=kind), "toy")])
    return FinetuneObjective(model, head(kind), FinetuneArgs(**options)), loaders


def loop_args(**options) -> LoopArgs:
    """Small and quiet."""
    usual = {"epochs": 2, "batch_size": 8, "lr": 3e-3, "tensorboard": False, "progress": False}
    return LoopArgs(**{**usual, **options})


def kill_after(steps: int) -> None:
    """SIGKILL to this process after that many optimiser steps."""
    from wavesfm_trainer.training.training_loop import TrainingLoop

    real = TrainingLoop._optimiser_step

    def step(self, group):
        real(self, group)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingLoop._optimiser_step = step


def main() -> None:
    """argv: JSON with run, args, and kind or sets; kill_after, devices."""
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    args = loop_args(**asked["args"])
    made = pretraining(args, asked["sets"]) if "sets" in asked else finetuning(args, asked["kind"])
    if "kill_after" in asked:
        kill_after(asked["kill_after"])
    fit(*made, args, Path(asked["run"]), devices=asked.get("devices", 1), accelerator="cpu")


if __name__ == "__main__":
    main()
