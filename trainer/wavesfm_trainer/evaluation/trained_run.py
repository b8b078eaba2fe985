# SPDX-License-Identifier: GPL-3.0-or-later
"""A run read back: its model, what its numbers mean, and all of it behind core's pipeline."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.spec import (
    BundleSpec,
    HeadSpec,
    ImageSpec,
    PilotGridSpec,
    Preprocess,
    TensorSpec,
    from_dict,
    preprocess_from_dict,
)
from wavesfm_core.errors import BundleError, ConfigurationError

from ..data.numerologies import read_numerology
from ..data.tasks import read_task, task_names
from ..models import registry, weights
from ..models.channel_model import ChannelModel
from ..models.mae import MaskedAutoencoder
from ..models.task_model import TaskModel
from ..models.weights import WeightsError
from .run_files import read_object

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
OUTPUTS = {"classification": "logits", "position": "position", "channel": "channel"}


@dataclass(frozen=True)
class TrainedTask:
    """A fine-tuned model, in eval mode on the CPU.

    directory: of the run, or the folder that the weights file lies in; preprocess: with the statistics of the data that
    it was trained on; head: what its outputs mean; config: config.json, empty where there is none.
    """

    directory: Path
    model: TaskModel | ChannelModel
    preprocess: Preprocess
    head: HeadSpec
    config: Mapping[str, Any]

    @property
    def output(self) -> str:
        """Name of the output in a bundle."""
        return OUTPUTS[self.head.task]

    @property
    def takes_rate(self) -> bool:
        """Whether a bundle of this model has the sample rate for an input: only where a stream has one to give."""
        return self.model.encoder_args.rate_input and "log10_rate" in self.preprocess.side_inputs


@dataclass(frozen=True)
class TrainedEncoder:
    """A pre-trained model, in eval mode on the CPU; preprocess: by the names of the data sets that it has seen."""

    directory: Path
    model: MaskedAutoencoder
    preprocess: Mapping[str, Preprocess]
    config: Mapping[str, Any]


def weights_file(path: Path) -> Path:
    """The weights of a run directory, or the file itself."""
    return path / WEIGHTS if path.is_dir() else path


def read_run(run: Path | str) -> TrainedTask | TrainedEncoder:
    """Read a run directory or a weights file, strictly.

    Raises WeightsError: no file, a damaged one, or one that does not say what its numbers mean (imported weights, that
    nothing was fine-tuned on yet); InputError for a config.json that is none.
    """
    path = weights_file(Path(run))
    record = registry.read(path)
    model = registry.load(path)
    there = path.parent / CONFIG
    config = read_object(there) if there.is_file() else {}
    if isinstance(model, MaskedAutoencoder):
        return TrainedEncoder(path.parent, model, _specs_of_data(record), config)
    for name in ("head", "preprocess"):
        if name not in record.extra:
            raise WeightsError(path, name, "nothing", "what wavesfm-train finetune leaves beside the weights")
    try:
        head = from_dict(HeadSpec, record.extra["head"], f"{path}: head")
        preprocess = preprocess_from_dict(record.extra["preprocess"], f"{path}: preprocess")
    except BundleError as error:
        raise WeightsError(error.where, error.field, error.found, error.expected) from None
    _check_fit(path, model, preprocess, head)
    return TrainedTask(path.parent, model, preprocess, head, config)


def read_task_run(run: Path | str) -> TrainedTask:
    """`read_run` of a fine-tuned model; WeightsError for a pre-trained one."""
    trained = read_run(run)
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
    """What weights, preprocessing and head say of shapes must be one story."""
    if isinstance(model, ChannelModel):
        if (preprocess, head) != (model.preprocess, model.task_head):
            raise WeightsError(path, "preprocess, head", "those of another numerology", "those of the model's")
        return
    args, task = model.encoder_args, model.task_args
    channels, height, width = preprocess.tile_shape
    if channels not in args.channels or (height, width) != (args.image, args.image):
        expected = f"{' or '.join(map(str, args.channels))} x {args.image} x {args.image}, as the model takes"
        raise WeightsError(path, "preprocess", f"{channels} x {height} x {width}", expected)
    given = (task.n_outputs,) if task.head == "linear" else (2, task.grid[0], task.grid[1] * task.grid[2])
    if head.output_shape != given:
        raise WeightsError(path, f"head of {head.task}", f"{head.output_shape}", f"{given}, the model's outputs")


def task_spec(trained: TrainedTask, name: str) -> BundleSpec:
    """The contract of a trained task as far as the run knows it: no tolerance measured, no licence, no rates."""
    tile = TensorSpec("tile", (-1, *trained.preprocess.tile_shape), "tile")
    beside = {"log10_rate": trained.takes_rate, "snr_db": isinstance(trained.model, ChannelModel)}
    packages = ("torch", "wavesfm-core", "wavesfm-trainer")
    return BundleSpec(
        name=name,
        preprocess=trained.preprocess,
        inputs=(tile, *(TensorSpec(name, (-1, 1), name) for name, taken in beside.items() if taken)),
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
    """What `tasks.read_task` takes for the task of a run: a file of the user's own, else its name."""
    return str(config.get("task_file") or config.get("task") or "")


def pilot_grids(trained: TrainedTask) -> TrainedTask:
    """A channel estimator with the grid of a slot for its input, whatever it was trained on.

    Weights of task channel-estimation know an image; the numerology that the image is of is the option "numerology" of
    the task that they learnt. Anything else comes back as it is. Raises WeightsError for a numerology of another grid.
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
    """Those that the first of these runs or bundles brings along; ConfigurationError where none does."""
    for path in models:
        if (path / SPEC).is_file():
            bundle = Bundle.open(path)
            if bundle.spec.covariances:
                return bundle.covariances()
        elif isinstance(model := read_task_run(path).model, ChannelModel):
            return model.covariances()
    raise ConfigurationError("compare-channels", "--covariances", "nothing", "a file: no model brings covariances")
