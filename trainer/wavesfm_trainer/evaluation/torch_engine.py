# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run behind core's engine interface and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import nn
from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.bundle.spec import (
    PilotGridSpec,
    SpectrogramSpec,
)
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.heads import make_head
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate

from .trained_run import WEIGHTS, TrainedTask, pilot_grids, read_task_run, task_spec


def open_device(name: str) -> torch.device:
    """The device of that name, "auto" for CUDA where it is; ConfigurationError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ConfigurationError(
            "torch", "device", f"{name} ({reason})", "auto, cpu, or a device that is there"
        ) from None
    return device


class TorchEngine:
    """A trained model behind core's engine interface, in float32: what a bundle's engine must equal."""

    relative_tolerance = 0.0

    def __init__(self, model: nn.Module, output: str, device: str = "cpu") -> None:
        self._device = open_device(device)
        self._model, self._output = model.to(self._device).eval(), output
        self.description = f"torch {torch.__version__}, {self._device}, f32"

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """See `Engine.run`; inputs: tile, and log10_rate or snr_db where the model takes one."""
        given = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
        outputs = self._model(given["tile"], given.get("snr_db", given.get("log10_rate")))
        return {self._output: outputs.float().cpu().numpy()}

    def close(self) -> None:
        """See `Engine.close`: nothing, the model is the caller's."""


def run_pipeline(run: Path | str, device: str = "cpu") -> Pipeline:
    """A fine-tuned run behind the same pipeline as its bundle, with torch for the engine. Raises WeightsError."""
    trained = read_task_run(run)
    bundle = _unexported(trained)
    preprocess = trained.preprocess
    geometry = preprocess if isinstance(preprocess, SpectrogramSpec) else None
    gate = PowerGate(spec=geometry, labels=bundle.spec.head.labels)
    head = make_head(bundle.spec.head, bundle.id, rates_hz=bundle.spec.rates_hz)
    return Pipeline(bundle, TorchEngine(trained.model, trained.output, device), head, gate)


def _unexported(trained: TrainedTask) -> Bundle:
    spec = task_spec(trained, trained.directory.name)
    return Bundle(trained.directory, spec, f"{spec.name}@unexported", trained.directory / WEIGHTS)


def open_pipeline(model: Path | str, device: str = "auto") -> Pipeline:
    """The pipeline of a bundle's directory, or of a run's; device: of core's engines, or of torch for a run."""
    if (Path(model) / SPEC).is_file():
        return Pipeline.open(model, device=device)
    return run_pipeline(model, device)


def open_channel_pipeline(model: Path | str, device: str = "auto") -> ChannelPipeline:
    """`open_pipeline` for channels: a bundle's directory, or a run's, of a model that estimates slots.

    Raises ConfigurationError for a model of anything else.
    """
    if (Path(model) / SPEC).is_file():
        return ChannelPipeline.open(model, device=device)
    trained = pilot_grids(read_task_run(model))
    if not isinstance(trained.preprocess, PilotGridSpec):
        expected = "a channel estimator (wavesfm-train train-channels, or finetune channel-estimation)"
        raise ConfigurationError(model, "run", f"{trained.head.task} of {trained.preprocess.kind}s", expected)
    engine = TorchEngine(trained.model, trained.output, device)
    return ChannelPipeline(trained.preprocess.numerology, "model", bundle=_unexported(trained), engine=lambda: engine)
