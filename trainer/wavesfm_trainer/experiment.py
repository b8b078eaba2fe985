"""From a recipe and prepared data to a run: the data, the model and the objective put together for the loop."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from wavesfm_core.channel.covariance import Covariances
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.spec import HeadSpec, from_dict

from . import weights
from .channel_model import ChannelModel
from .data.cache import read_cache
from .data.channel_pool import ChannelPool
from .data.examples import Examples
from .loop import fit
from .loop.augment import Augmentation
from .loop.batches import DeviceExamples, Loaders
from .loop.channel_batches import ChannelExamples
from .loop.channel_objective import ChannelObjective
from .loop.objectives import FinetuneArgs, FinetuneObjective, PretrainObjective
from .mae import MaskedAutoencoder
from .recipes import Recipe, key_of
from .task_model import TaskArgs, TaskModel
from .tasks import Task, read_task
from .trained import OUTPUTS, weights_file

Result = TypeVar("Result")
log = logging.getLogger(__name__)
COVARIANCE_BATCH = 128  # channels at a time


@dataclass(frozen=True)
class Where:
    """Devices of a run, as lightning.fabric has them."""

    devices: int | str = 1
    accelerator: str = "auto"


def cache_of(data: Path, task: str) -> Path:
    """The prepared data of a task below `data`: TASK.h5, or a folder TASK of tile shards; `data` itself if it is one.

    Raises InputError when there is neither.
    """
    if data.is_file() or (data / "cache.json").is_file() or (data / "train" / "cache.json").is_file():
        return data
    for path in (data / f"{task}.h5", data / task):
        if path.exists():
            return path
    raise InputError(data / f"{task}.h5", "file", "nothing", "what wavesfm-train data prepare leaves")


def cache_for(data: Path, run: Path) -> tuple[Path, str]:
    """The prepared data that a run is measured on, with the part: its task's "test", or, of a pre-training, which holds
    nothing else back, the "validation" part of the first of its data sets.

    Raises InputError as `cache_of`, and for a run whose config.json names neither.
    """
    from .runs_format import read_object

    config = weights_file(run).with_name("config.json")
    made = read_object(config) if config.is_file() else {}
    if made.get("command") == "pretrain":
        name = next(iter(made.get("data", {}).get("training", {})), "")
        return cache_of(data, name), "validation"
    task = str(made.get("task") or "")
    if not task and data.is_dir() and not (data / "cache.json").is_file():
        raise InputError(config, "task", "nothing", "the task of the run, or one prepared file for --data")
    return cache_of(data, task), "test"


def _by_key(run: Callable[..., Result]) -> Callable[..., Result]:
    """`run` with the recipe's name and the key in a refusal of an option that shows only where it is used."""

    @wraps(run)
    def named(recipe: Recipe, *arguments: Any, **options: Any) -> Result:
        try:
            return run(recipe, *arguments, **options)
        except ConfigurationError as error:
            if (key := key_of(error)) is None:
                raise
            raise ConfigurationError(recipe.name, key, error.found, error.expected) from None

    return named


@_by_key
def pretrain(recipe: Recipe, data: Path, out: Path, where: Where | None = None, resume: bool = True) -> dict[str, Any]:
    """Masked wireless modelling on all data sets of the recipe; see loop.fit for what is left and returned."""
    _refuse_command(recipe, "pretrain")
    training, validation, channels = [], [], []
    for name, use in recipe.data.items():
        cache = cache_of(data, name)
        examples = read_cache(cache, "train")
        if examples.note["task"] != name:  # a single file for --data is taken for every data set
            raise InputError(cache, "task", examples.note["task"], f"{name}, as the recipe has it")
        channels.append(examples.image.shape[1])
        training.append(DeviceExamples(examples, name, _rated(use.augmentation, examples), use.repeats))
        watched = _validation(cache)
        if watched is not None:
            validation.append(DeviceExamples(watched, name))
    torch.manual_seed(recipe.loop.seed)
    args = replace(recipe.model, channels=tuple(sorted(set(channels))))
    model = MaskedAutoencoder(args, recipe.masking.ratio, recipe.masking.cls_in_pretraining)
    objective = PretrainObjective(model, recipe.loop.seed)
    return _fit(recipe, objective, Loaders(training, validation), out, where, resume)


@_by_key
def finetune(
    recipe: Recipe,
    data: Path,
    out: Path,
    pretrained: Path | None = None,
    where: Where | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Learn the recipe's task.

    pretrained: a run directory or a weights file, of a pre-training, or of a fine-tuning to go on from: with its head
    where the task and its labels are the same.
    """
    _refuse_command(recipe, "finetune")
    if recipe.pretrained != (pretrained is not None):
        expected = "a run or a weights file" if recipe.pretrained else "nothing: the recipe starts from scratch"
        raise ConfigurationError(recipe.name, "--pretrained", pretrained or "nothing", expected)
    task = read_task(recipe.task)
    cache = cache_of(data, task.name)
    examples, watched = read_cache(cache, "train"), _validation(cache)
    head = head_of(task, examples.note, cache)
    torch.manual_seed(recipe.loop.seed)
    model = _task_model(recipe, task, head, examples, pretrained)
    objective = FinetuneObjective(model, head, _learning(recipe, task))
    loaders = Loaders(
        [DeviceExamples(examples, task.name, _rated(recipe.augmentation, examples))],
        [] if watched is None else [DeviceExamples(watched, task.name)],
    )
    said = {"task": task.name, "method": recipe.method.trainable}
    if Path(recipe.task).suffix in (".yml", ".yaml"):
        said["task_file"] = str(Path(recipe.task).resolve())
    if pretrained is not None:
        said |= {"pretrained": name_of(pretrained), "pretrained_sha256": _sha256(weights_file(pretrained))}
    return _fit(recipe, objective, loaders, out, where, resume, **said)


@_by_key
def train_channels(
    recipe: Recipe,
    training: Sequence[Path],
    validation: Path,
    out: Path,
    covariances: Path | None = None,
    where: Where | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Learn to estimate channels from pools of them (`data channels`), from LMMSE on.

    training: pools of one numerology, whose slots take turns; validation: another. covariances: a file of
    `data covariances`; None: the average of the first training pool. Raises InputError for pools of different
    numerologies, and for a validation that is the same draw as a training.
    """
    _refuse_command(recipe, "train-channels")
    pools, watched = [ChannelPool(path) for path in training], ChannelPool(validation)
    for pool in [*pools[1:], watched]:
        pools[0].spec.require(pool.spec, str(pool.path))
    if any((pool.seed, pool.scenario) == (watched.seed, watched.scenario) for pool in pools):
        raise InputError(watched.path, "seed", f"{watched.seed}, as of a training", "channels that are not trained on")
    source = "the first training pool"
    if covariances is None:
        known = Covariances.learn(pools[0].batches(COVARIANCE_BATCH))
    else:
        known = Covariances.load(covariances)
        source = _sha256(covariances)
    torch.manual_seed(recipe.loop.seed)
    objective = ChannelObjective(ChannelModel.of(recipe.modes, pools[0].spec, recipe.model, known), source)
    loaders = Loaders(
        [ChannelExamples(pool, pool.path.stem, recipe.slots) for pool in pools],
        [
            ChannelExamples(
                watched, watched.path.stem, recipe.slots, recipe.loop.seed, True, recipe.slots.validation_slots
            )
        ],
    )
    return _fit(recipe, objective, loaders, out, where, resume, method="all")


def head_of(task: Task, note: dict[str, Any], where: Path) -> HeadSpec:
    """What the task's outputs mean for this prepared data; InputError where the data are another task's."""
    if note["kind"] != task.kind:
        raise InputError(where, "kind", note["kind"], f"{task.kind}, as task {task.name} has it")
    if task.kind == "classification":
        if tuple(note["labels"]) != task.labels:
            raise InputError(where, "labels", note["labels"], f"{list(task.labels)}, those of task {task.name}")
        return HeadSpec("classification", labels=task.labels)
    if note["task"] != task.name:  # where labels do not tell
        raise InputError(where, "task", note["task"], f"{task.name}, as the recipe has it")
    if task.kind == "position":
        n = len(task.axes)
        low, high = tuple(note["target_low"][:n]), tuple(note["target_high"][:n])
        return HeadSpec("position", axes=task.axes, low_m=low, high_m=high)
    if task.kind == "channel":
        return HeadSpec("channel", grid=task.grid)
    raise ConfigurationError(task.name, "kind", task.kind, "a task to learn, not one to pre-train on")


def name_of(pretrained: Path) -> str:
    """What the report calls pre-trained weights: the recipe that made them, or the file's name."""
    config = weights_file(pretrained).with_name("config.json")
    if config.is_file():
        from .runs_format import read_object

        made = read_object(config)
        if made.get("name"):
            return str(made["name"])
    return pretrained.stem


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@_by_key
def refuse_misfit(recipe: Recipe, pretrained: Path | None) -> None:
    """Raise ConfigurationError where the recipe's method or loss is not for its model or task, with no data read.

    For the runs of a sweep, of which the last should not be refused after the others were trained.
    """
    task = read_task(recipe.task)
    n = len(task.axes)
    note = {
        "kind": task.kind,
        "task": task.name,
        "labels": task.labels,
        "target_low": [0.0] * n,
        "target_high": [1.0] * n,
    }
    head = head_of(task, note, Path(recipe.name))
    encoder = recipe.model if pretrained is None else weights.encoder_args(weights.read(weights_file(pretrained)))
    with torch.device("meta"):
        FinetuneObjective(TaskModel(encoder, _task_args(recipe, task, head)), head, _learning(recipe, task))


def _learning(recipe: Recipe, task: Task) -> FinetuneArgs:
    """The recipe's, with the task's where it says nothing."""
    given = recipe.learning
    own = {
        "loss": given.loss or task.loss,
        "label_smoothing": task.label_smoothing if given.label_smoothing is None else given.label_smoothing,
        "class_weights": task.class_weights if given.class_weights is None else given.class_weights,
    }
    return replace(given, **own)


def _task_args(recipe: Recipe, task: Task, head: HeadSpec) -> TaskArgs:
    method = vars(recipe.method) | {"pooling": recipe.method.pooling or task.pooling}
    grid = task.grid if task.head == "block" else ()
    n_outputs = 0 if grid else int(head.output_shape[0])
    return TaskArgs(head=task.head, n_outputs=n_outputs, grid=grid, output=OUTPUTS[task.kind], **method)


def _task_model(recipe: Recipe, task: Task, head: HeadSpec, examples: Examples, pretrained: Path | None) -> TaskModel:
    args = _task_args(recipe, task, head)
    channels = (examples.image.shape[1],)
    if pretrained is None:
        return TaskModel(replace(recipe.model, channels=channels), args)
    given = weights.read(weights_file(pretrained))
    encoder = replace(weights.encoder_args(given), channels=channels, drop_path=recipe.model.drop_path)
    model = TaskModel(encoder, args)
    loaded = model.load_pretrained(given, head=_head_in(given) == head)
    log.info("%s: %d tensors taken, new: %s", pretrained, len(loaded.taken), ", ".join(loaded.new) or "none")
    return model


def _head_in(given: weights.Weights) -> HeadSpec | None:
    """What the outputs of a fine-tuned model mean, before calibration; None for a pre-training's weights."""
    if "head" not in given.extra:
        return None
    return replace(
        from_dict(HeadSpec, given.extra["head"], given.where), threshold=0.0, temperature=1.0, unknown_from=1.0
    )


def _rated(augmentation: Augmentation, examples: Examples) -> Augmentation:
    """Rates are hidden only where there are rates."""
    return augmentation if examples.log10_rate is not None else replace(augmentation, rate_hidden=0.0)


def _validation(cache: Path) -> Examples | None:
    """The validation part; None, and said, where the data have none."""
    try:
        return read_cache(cache, "validation")
    except InputError as error:
        if error.field != "split validation":
            raise
        log.warning("%s: no validation part, so that the last weights are kept", cache)
        return None


def _refuse_command(recipe: Recipe, command: str) -> None:
    if recipe.command != command:
        raise ConfigurationError(recipe.name, "command", recipe.command, f"a recipe for {command}")


def _fit(
    recipe: Recipe,
    objective: PretrainObjective | FinetuneObjective | ChannelObjective,
    loaders: Loaders,
    out: Path,
    where: Where | None,
    resume: bool,
    **said: str,
) -> dict[str, Any]:
    where = where or Where()
    config = {"name": recipe.name, "command": recipe.command, "recipe": recipe.name, "task": recipe.task, **said}
    return fit(
        objective,
        loaders,
        recipe.loop,
        out,
        resume,
        where.devices,
        accelerator=where.accelerator,
        config=config,
    )
