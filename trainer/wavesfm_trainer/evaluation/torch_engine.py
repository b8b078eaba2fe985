# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run behind core's engine interface and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import nn
from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.heads import make_head
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate

from ..models.run_layout import WEIGHTS
from .trained_run import TrainedTask, load_task_run, pilot_grids, task_spec


def open_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is CUDA if there is one. ConfigurationError for one that this host lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ConfigurationError(
            "torch", "device", f"{name} ({reason})", "auto, cpu, or a device of this host"
        ) from None
    return device


class TorchEngine:
    """A trained model behind core's engine interface, in float32: the reference of every engine.

    Parameters
    ----------
    model : set to eval mode and moved to the device.
    output : name of its output.
    device : name of the device, see `open_device`.
    """

    relative_tolerance = 0.0

    def __init__(self, model: nn.Module, output: str, device: str = "cpu") -> None:
        self._device = open_device(device)
        self._model, self._output = model.to(self._device).eval(), output
        self.description = f"torch {torch.__version__}, {self._device}, f32"

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """See `Engine.run`. Inputs: tile, and log10_rate or snr_db if the model takes one."""
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
        outputs = self._model(tensors["tile"], tensors.get("snr_db", tensors.get("log10_rate")))
        return {self._output: outputs.float().cpu().numpy()}

    def close(self) -> None:
        """See `Engine.close`. Does nothing: the caller owns the model."""


def run_pipeline(run: Path | str, device: str = "cpu") -> Pipeline:
    """Wrap a fine-tuned run as the pipeline of its bundle, with torch as the engine. Raises WeightsError."""
    trained = load_task_run(run)
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
    """Open the pipeline of a bundle or of a run.

    Parameters
    ----------
    model : directory of the bundle or of the run.
    device : device of core's engines for a bundle, of torch for a run.
    """
    if (Path(model) / SPEC).is_file():
        return Pipeline.open(model, device=device)
    return run_pipeline(model, device)


def open_channel_pipeline(model: Path | str, device: str = "auto") -> ChannelPipeline:
    """`open_pipeline` for models that estimate slots.

    Raises
    ------
    ConfigurationError : the model is of another kind.
    """
    if (Path(model) / SPEC).is_file():
        return ChannelPipeline.open(model, device=device)
    trained = pilot_grids(load_task_run(model))
    if not isinstance(trained.preprocess, PilotGridSpec):
        expected = "a channel estimator (wavesfm-train train-channels, or finetune channel-estimation)"
        raise ConfigurationError(model, "run", f"{trained.head.task} of {trained.preprocess.kind}s", expected)
    engine = TorchEngine(trained.model, trained.output, device)
    return ChannelPipeline(trained.preprocess.numerology, "model", bundle=_unexported(trained), engine=lambda: engine)
