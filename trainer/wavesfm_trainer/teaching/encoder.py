# SPDX-License-Identifier: GPL-3.0-or-later
"""The encoder that a user's labels are taught to: opened from a bundle, a run or a weights file, and its features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from wavesfm_core.bundle.bundle import SPEC
from wavesfm_core.bundle.spec import HeadSpec, Preprocess, from_dict, preprocess_from_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError

from ..export.import_bundle import read_model
from ..models import registry
from ..models.pretrained import load_pretrained
from ..models.run_layout import weights_file
from ..models.task_model import TaskArgs, TaskModel
from ..models.weights import Weights, encoder_args
from .heads import Floats, LinearHead
from .views import Views

BATCH = 32
CHANNELS = 1
"""Of a spectrogram's tile."""


@dataclass(frozen=True)
class Start:
    """What is started from."""

    name: str
    """Name for the report."""
    model: TaskModel
    """Encoder with a linear head, of which the head alone trains; in eval mode on the CPU."""
    spec: SpectrogramSpec
    """Preprocessing of its tiles."""
    measured: bool
    """False where mean and standard deviation of the tiles are not known and must be measured."""
    head: HeadSpec | None
    """Meaning of its outputs; None for one that was pre-trained only."""
    rates_hz: tuple[float, float]
    """Lowest and highest sample rate that it was trained at; (0, 0) unknown."""

    def known_head(self) -> LinearHead | None:
        """Weights of its head; None for one that was pre-trained only."""
        if self.head is None:
            return None
        weight, bias = (p.detach().numpy().astype(np.float64) for p in (self.model.head.weight, self.model.head.bias))
        return LinearHead(weight, bias, "known")


def open_start(path: Path) -> Start:
    """Open a bundle of a classifier, a run directory, or a weights file (float32 or float16).

    Raises
    ------
    BundleError, WeightsError : no such thing, or a damaged one.
    ConfigurationError : a network that takes no spectrograms.
    """
    if (path / SPEC).is_file():
        model, bundle = read_model(path)
        spec = _spectrogram(path, bundle.spec.preprocess)
        frozen = _as_probe(model.encoder_args, model.task_args.pooling, len(bundle.spec.head.labels))
        frozen.load_state_dict(model.state_dict())
        return Start(bundle.spec.name, frozen.eval(), spec, True, bundle.spec.head, bundle.spec.rates_hz)
    weights = registry.read(weights_file(path))
    args = encoder_args(weights)
    if CHANNELS not in args.channels:
        expected = f"a patch embedding for {CHANNELS} channel, which spectrograms have"
        raise ConfigurationError(weights.where, "encoder.channels", args.channels, expected)
    if weights.kind == "channel_model":
        raise ConfigurationError(weights.where, "kind", weights.kind, "an encoder or a classifier of spectrograms")
    head = _head_in(weights)
    pooling = weights.config["task"]["pooling"] if weights.kind == "task_model" else "avg"
    frozen = _as_probe(replace(args, channels=(CHANNELS,)), pooling, len(head.labels) if head else 2)
    load_pretrained(frozen, weights, head=head is not None)
    frozen.new = ()  # a CLS token that pre-training left out stays as it is
    frozen.set_trainable()
    spec, measured = _spec_in(path, weights)
    low, high = weights.extra.get("rates_hz", (0.0, 0.0))
    name = path.name if path.is_dir() else path.stem
    return Start(name, frozen.eval(), spec, measured, head, (float(low), float(high)))


def _as_probe(args, pooling: str, n_outputs: int) -> TaskModel:
    return TaskModel(replace(args, drop_path=0.0), TaskArgs(n_outputs=n_outputs, trainable="probe", pooling=pooling))


def _head_in(weights: Weights) -> HeadSpec | None:
    """Meaning of the outputs of a classifier's weights; None for anything else."""
    if weights.kind != "task_model" or "head" not in weights.extra:
        return None
    head = from_dict(HeadSpec, weights.extra["head"], weights.where)
    return head if head.task == "classification" else None


def _spec_in(path: Path, weights: Weights) -> tuple[SpectrogramSpec, bool]:
    """Preprocessing of a weights file, and whether it has statistics of tiles.

    Weights that were imported have none, and those of images have others.
    """
    extra = weights.extra
    found = [extra["preprocess"]] if "preprocess" in extra else []
    found += [one.get("preprocess") for one in extra.get("data", {}).values() if isinstance(one, dict)]
    for values in found:
        spec = preprocess_from_dict(values, f"{path}: preprocess")
        if isinstance(spec, SpectrogramSpec):
            return spec, True
    side = encoder_args(weights).image
    return SpectrogramSpec(height=side, width=side), False


def _spectrogram(path: Path, spec: Preprocess) -> SpectrogramSpec:
    if not isinstance(spec, SpectrogramSpec):
        raise ConfigurationError(path, "preprocess", spec.kind, "spectrograms, which recordings become")
    return spec


def measured_spec(spec: SpectrogramSpec, views: Views) -> SpectrogramSpec:
    """The spec with mean and standard deviation of these views' tiles."""
    pictures = views.picture / np.float32(255)
    return replace(spec, mean=float(pictures.mean()), std=float(max(pictures.std(), 1e-3)))


@torch.inference_mode()
def features(start: Start, spec: SpectrogramSpec, views: Views, advance: Callable[[int], None]) -> Floats:
    """Inputs of the linear head, float64 [N, D], of N views.

    Parameters
    ----------
    start : the frozen encoder.
    spec : with the statistics of the tiles.
    views : the tiles.
    advance : called with the number of views done.
    """
    return _batches(start.model.prefix, spec, views, advance)


@torch.inference_mode()
def outputs(model: TaskModel, spec: SpectrogramSpec, views: Views, advance: Callable[[int], None]) -> Floats:
    """Logits float64 [N, L] of a model; see `features`."""
    return _batches(model, spec, views, advance)


def _batches(
    function: Callable[[Tensor, Tensor], Tensor], spec: SpectrogramSpec, views: Views, advance: Callable[[int], None]
) -> Floats:
    parts = []
    for first in range(0, len(views), BATCH):
        rows = slice(first, first + BATCH)
        tile = (views.picture[rows, None].astype(np.float32) / 255 - np.float32(spec.mean)) / np.float32(spec.std)
        rate = torch.from_numpy(views.log10_rate[rows, None])
        parts.append(function(torch.from_numpy(tile), rate).float().numpy())
        advance(len(parts[-1]))
    return np.concatenate(parts).astype(np.float64)


def with_head(start: Start, head: LinearHead) -> TaskModel:
    """The encoder with another linear head, which alone trains."""
    model = _as_probe(start.model.encoder_args, start.model.task_args.pooling, len(head.bias))
    model.encoder.load_state_dict(start.model.encoder.state_dict())
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(head.weight.astype(np.float32)))
        model.head.bias.copy_(torch.from_numpy(head.bias.astype(np.float32)))
    model.pretrained = True
    return model.eval()
