"""A run read back: its model, what its numbers mean, and all of it behind core's pipeline."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from wavesfm_core.bundle import SPEC, Bundle
from wavesfm_core.channel.covariance import Covariances
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import BundleError, ConfigurationError
from wavesfm_core.gate import PowerGate
from wavesfm_core.heads import make_head
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.spec import (
    BundleSpec,
    HeadSpec,
    ImageSpec,
    PilotGridSpec,
    Preprocess,
    SpectrogramSpec,
    TensorSpec,
    from_dict,
    preprocess_from_dict,
)

from . import weights
from .channel_model import ChannelModel
from .data.numerologies import read_numerology
from .mae import MaskedAutoencoder
from .runs_format import read_object
from .task_model import TaskModel
from .tasks import read_task, task_names
from .weights import WeightsError

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
        return self.model.encoder_args.rate_input and isinstance(self.preprocess, SpectrogramSpec)


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
    record = weights.read(path)
    model = weights.load(path)
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


def run_pipeline(run: Path | str, device: str = "cpu") -> Pipeline:
    """A fine-tuned run behind the same pipeline as its bundle, with torch for the engine. Raises WeightsError."""
    trained = read_task_run(run)
    bundle = _unexported(trained)
    preprocess = trained.preprocess
    gate = PowerGate(spec=preprocess) if isinstance(preprocess, SpectrogramSpec) else PowerGate()
    head = make_head(bundle.spec.head, bundle.id)
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
