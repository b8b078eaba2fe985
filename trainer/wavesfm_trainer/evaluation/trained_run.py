# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a training run: its model and the meaning of its inputs and outputs."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import BundleSpec, HeadSpec, Preprocess, TensorSpec, from_dict, preprocess_from_dict
from wavesfm_core.errors import BundleError, ConfigurationError

from ..data.numerologies import read_numerology
from ..data.tasks import read_task, task_names
from ..models import registry, weights
from ..models.channel_model import ChannelModel
from ..models.mae import MaskedAutoencoder
from ..models.run_layout import read_config, weights_file
from ..models.task_model import OUTPUTS, TaskModel
from ..models.weights import WeightsError


@dataclass(frozen=True)
class TrainedTask:
    """A fine-tuned model in eval mode on the CPU."""

    directory: Path
    """Run directory, or the folder of the weights file."""
    model: TaskModel | ChannelModel
    """The model."""
    preprocess: Preprocess
    """Preprocessing with the statistics of the training data."""
    head: HeadSpec
    """Meaning of the outputs."""
    config: Mapping[str, Any]
    """Contents of config.json; empty if there is none."""
    rates_hz: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest sample rate of the training data; (0, 0) unknown."""

    @property
    def output(self) -> str:
        """Name of the output in a bundle."""
        return OUTPUTS[self.head.task]

    @property
    def takes_rate(self) -> bool:
        """True if a bundle of this model has the sample rate as an input."""
        return self.model.encoder_args.rate_input and "log10_rate" in self.preprocess.side_inputs


@dataclass(frozen=True)
class TrainedEncoder:
    """A pre-trained model in eval mode on the CPU."""

    directory: Path
    """Run directory, or the folder of the weights file."""
    model: MaskedAutoencoder
    """The model."""
    preprocess: Mapping[str, Preprocess]
    """Preprocessing by the names of the data sets that were trained on."""
    config: Mapping[str, Any]
    """Contents of config.json; empty if there is none."""


def load_run(run: Path | str) -> TrainedTask | TrainedEncoder:
    """Load a run directory or a weights file.

    Raises
    ------
    WeightsError : no such file, a damaged one, or one without head and preprocessing (imported weights that were not
        fine-tuned yet).
    InputError : config.json cannot be read.
    """
    path = weights_file(Path(run))
    record = registry.read(path)
    model = registry.build(record)
    config = read_config(path)
    if isinstance(model, MaskedAutoencoder):
        return TrainedEncoder(path.parent, model, _specs_of_data(record), config)
    for name in ("head", "preprocess"):
        if name not in record.extra:
            raise WeightsError(path, name, "nothing", "weights written by wavesfm-train finetune")
    try:
        head = from_dict(HeadSpec, record.extra["head"], f"{path}: head")
        preprocess = preprocess_from_dict(record.extra["preprocess"], f"{path}: preprocess")
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None
    _check_fit(path, model, preprocess, head)
    return TrainedTask(path.parent, model, preprocess, head, config, _rates(record))


def _rates(record: weights.Weights) -> tuple[float, float]:
    """Sample rates in a weights file; (0, 0) where it has none."""
    values = record.extra.get("rates_hz", [0.0, 0.0])
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 <= low <= high < math.inf:
        raise WeightsError(record.where, "rates_hz", repr(values)[:60], "the lowest and the highest sample rate in Hz")
    return low, high


def load_task_run(run: Path | str) -> TrainedTask:
    """Load a fine-tuned model, see `load_run`. WeightsError for a pre-trained one."""
    trained = load_run(run)
    if isinstance(trained, TrainedEncoder):
        raise WeightsError(run, "kind", "masked_autoencoder", "a fine-tuned task (wavesfm-train finetune)")
    return trained


def _specs_of_data(record: weights.Weights) -> dict[str, Preprocess]:
    data = record.extra.get("data", {})
    try:
        return {
            name: preprocess_from_dict(one["preprocess"], f"{record.where}: {name}: preprocess")
            for name, one in data.items()
        }
    except (AttributeError, KeyError, TypeError):
        raise WeightsError(record.where, "data", repr(data)[:60], "the preprocessing of each data set") from None
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None


def _check_fit(path: Path, model: TaskModel | ChannelModel, preprocess: Preprocess, head: HeadSpec) -> None:
    """Require that weights, preprocessing and head agree on shapes."""
    if isinstance(model, ChannelModel):
        if (preprocess, head) != (model.preprocess, model.task_head):
            raise WeightsError(path, "preprocess, head", "those of another numerology", "those of the model's")
        return
    args, task = model.encoder_args, model.task_args
    channels, height, width = preprocess.tile_shape
    if channels not in args.channels or (height, width) != (args.image, args.image):
        expected = f"{' or '.join(map(str, args.channels))} x {args.image} x {args.image}, as the model takes"
        raise WeightsError(path, "preprocess", f"{channels} x {height} x {width}", expected)
    outputs = (task.n_outputs,) if task.head == "linear" else (2, task.grid[0], task.grid[1] * task.grid[2])
    if head.output_shape != outputs:
        raise WeightsError(path, f"head of {head.task}", f"{head.output_shape}", f"{outputs}, the model's outputs")


def task_spec(trained: TrainedTask, name: str) -> BundleSpec:
    """Contract of a trained task as far as the run knows it: without tolerance, licence and sample rates."""
    tile = TensorSpec("tile", (-1, *trained.preprocess.tile_shape), "tile")
    side_inputs = {"log10_rate": trained.takes_rate, "snr_db": isinstance(trained.model, ChannelModel)}
    packages = ("torch", "wavesfm-core", "wavesfm-trainer")
    return BundleSpec(
        name=name,
        preprocess=trained.preprocess,
        inputs=(tile, *(TensorSpec(name, (-1, 1), name) for name, taken in side_inputs.items() if taken)),
        outputs=(TensorSpec(trained.output, (-1, *trained.head.output_shape)),),
        head=trained.head,
        sha256="",
        tolerance=0.0,
        rates_hz=(0.0, 0.0),
        licence="",
        training_data="",
        versions={"python": platform.python_version(), **{package: version(package) for package in packages}},
    )


def task_in(config: Mapping[str, Any]) -> str:
    """The argument of `tasks.read_task` for the task of a run: a file of the user's own, otherwise a name."""
    return str(config.get("task_file") or config.get("task") or "")


def pilot_grids(trained: TrainedTask) -> TrainedTask:
    """A channel estimator with the grid of a slot as its input, whatever it was trained on.

    A model of task channel-estimation takes an image; the task's option "numerology" names the slots that the image is
    of. Other models are returned unchanged.

    Raises
    ------
    WeightsError : the numerology has another grid.
    """
    if trained.head.task != "channel" or not isinstance(trained.preprocess, ImageSpec):
        return trained
    name = task_in(trained.config)
    numerology = read_task(name).options.get("numerology") if name in task_names() or Path(name).is_file() else None
    if not numerology:
        return trained
    spec = read_numerology(numerology)
    if spec.grid_shape != tuple(trained.head.grid):
        raise WeightsError(trained.directory, "head.grid", trained.head.grid, f"{spec.grid_shape}, of {numerology}")
    return replace(trained, preprocess=PilotGridSpec(spec, "image", trained.preprocess))


def covariances_of(models: Iterable[Path]) -> Covariances:
    """Covariances of the first of these runs or bundles that has any. ConfigurationError if none has."""
    for path in models:
        if (path / SPEC).is_file():
            bundle = Bundle.open(path)
            if bundle.spec.covariances:
                return bundle.covariances()
        elif isinstance(model := load_task_run(path).model, ChannelModel):
            return model.covariances()
    raise ConfigurationError("compare-channels", "--covariances", "nothing", "a file: no model brings covariances")
