# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes as data: what a run is, read from recipes/*.yml; options of the command line change single keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.errors import ConfigurationError, WavesfmError

from ..models.channel_model import ModeArgs
from ..models.vit import EncoderArgs
from .augmentation import Augmentation
from .channel_batches import SlotArgs
from .label_budget import LabelBudget
from .loop_args import LoopArgs
from .objectives import FinetuneArgs

T = TypeVar("T")
RECIPES = Path(__file__).parent / "recipes"
COMMANDS = ("pretrain", "finetune", "train-channels")
LIMIT = 1 << 20  # bytes of a recipe
MOST_RUNS = 1000
BY_HAND = ("loop.warmup_epochs=", "loop=")  # changes after which the warm-up is no longer the recipe's


@dataclass(frozen=True)
class DataUse:
    """How pre-training uses a data set: passes over it in an epoch, and what is done to its batches."""

    repeats: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Masking:
    """Masked wireless modelling (section IV.A): gamma, and whether the CLS token is pre-trained too."""

    ratio: float = 0.75
    cls_in_pretraining: bool = True


@dataclass(frozen=True)
class Method:
    """What of a pre-trained model trains (Algorithm 2); fields as in task_model.TaskArgs.

    pooling: "" for the task's own.
    decoder_into_head: the block head of a channel starts from the decoder's embedding, first block and norm.
    """

    trainable: str = "last"
    last_blocks: int = 2
    lora_rank: int = 50
    lora_alpha: float = 8.0
    trainable_reading: str = "paper"
    pooling: str = ""
    squash: bool = False
    decoder_into_head: bool = False


@dataclass(frozen=True)
class Recipe:
    """A recipe file; a key that is not one of these is refused by name.

    command: "pretrain" with `data` (task name -> DataUse) and `masking`; "finetune" with `task`, `method`, `learning`
        and `augmentation`; or "train-channels" with `modes` and `slots`.
    pretrained: a fine-tuning starts from pre-trained weights, which the command names (False: from scratch, ViT-SL).
    model: of a pre-training, or from scratch; fine-tuning from weights takes their encoder, and only drop_path is free.
    learning: loss "", label_smoothing null and class_weights null are the task's own; 0 and false turn them off.
    loop: options of the loop. seeds: one run for each. sweep: "section.key" -> values, one run for each combination.
    """

    name: str
    command: str
    description: str = ""
    task: str = ""
    pretrained: bool = True
    data: dict[str, DataUse] = field(default_factory=dict)
    labels: LabelBudget = field(default_factory=LabelBudget)
    masking: Masking = field(default_factory=Masking)
    method: Method = field(default_factory=Method)
    learning: FinetuneArgs = field(default_factory=FinetuneArgs)
    augmentation: Augmentation = field(default_factory=Augmentation)
    modes: ModeArgs = field(default_factory=ModeArgs)
    slots: SlotArgs = field(default_factory=SlotArgs)
    model: EncoderArgs = field(default_factory=EncoderArgs)
    loop: LoopArgs = field(default_factory=LoopArgs)
    seeds: tuple[int, ...] = (0,)
    sweep: dict[str, list[Any]] = field(default_factory=dict)


SECTIONS: dict[str, type] = {
    "masking": Masking,
    "method": Method,
    "learning": FinetuneArgs,
    "augmentation": Augmentation,
    "modes": ModeArgs,
    "slots": SlotArgs,
    "model": EncoderArgs,
    "loop": LoopArgs,
    "data": LabelBudget,
}
ATTRIBUTES = {"data": "labels"}  # section of a fine-tuning recipe -> field of Recipe, where they differ
# Who refuses an option where it is used -> the section that it is set in, or its key.
SECTION_OF = {cls.__name__: section for section, cls in SECTIONS.items()} | {
    "TaskArgs": "method",
    "lora": "method",
    "ViTSize": "model",
    "augmentation": "augmentation",
}
KEY_OF = {
    "layer_decay": "loop.layer_decay",
    "mask_ratio": "masking.ratio",
    "cls_in_pretraining": "masking.cls_in_pretraining",
}
MODELS = ("MaskedAutoencoder", "TaskModel", "ChannelModel")
USED_BY = {"last_blocks": "last", "lora_rank": "lora", "lora_alpha": "lora"}  # of Method -> trainable
ONLY = {
    "pretrain": ("masking",),
    "finetune": ("task", "pretrained", "method", "learning", "augmentation"),
    "train-channels": ("modes", "slots"),
}


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yml"))


def read_recipe(name_or_path: str | Path, changes: Iterable[str] = (), epochs: int | None = None) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    name_or_path
        A .yml file, or a name that `recipes/` has.
    changes
        "section.key=value" each, with the value in YAML.
    epochs
        Replaces the recipe's. Its warm-up is scaled by the same factor, unless `changes` set the warm-up.

    Raises
    ------
    ConfigurationError
        Names file and key: no such recipe, a key that is unknown, of the wrong type, or that contradicts another.
    """
    changes = list(changes)
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        path = RECIPES / f"{name_or_path}.yml"
    if not path.is_file():
        raise ConfigurationError(
            name_or_path, "recipe", "nothing", f"a .yml file or one of {', '.join(recipe_names())}"
        )
    values = _read_yaml(path)
    for change in changes:
        _apply(values, change)
    if epochs is not None:
        _set_epochs(values, epochs, scale=not any(change.startswith(BY_HAND) for change in changes))
    return _build(values, str(path))


def runs_of(values: Recipe, path: str = "recipe") -> list[tuple[str, Recipe]]:
    """(suffix, recipe) of every run: the combinations of `sweep` times `seeds`; "" where there is a single one."""
    combinations = list(itertools.product(*values.sweep.values()))
    if len(combinations) * len(values.seeds) > MOST_RUNS:
        raise ConfigurationError(path, "sweep", f"{len(combinations) * len(values.seeds)} runs", f"at most {MOST_RUNS}")
    runs = []
    for combination in combinations:
        chosen = dict(zip(values.sweep, combination))
        for seed in values.seeds:
            parts = [f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items()]
            parts += [f"seed-{seed}"] if len(values.seeds) > 1 or combination else []
            one = _with(values, {**chosen, "loop.seed": seed}, path)
            _refuse_contradictions(one, path)
            runs.append(("_".join(parts), one))
    if len({suffix for suffix, _ in runs}) < len(runs):
        raise ConfigurationError(path, "sweep", values.sweep, "different values, for a folder each")
    return runs


def key_of(error: WavesfmError) -> str | None:
    """SECTION.KEY of an option that was refused where it is used; None where it is no recipe's."""
    if error.where in MODELS:
        return KEY_OF.get(error.field)
    section = SECTION_OF.get(error.where)
    known = section and error.field.partition(",")[0] in {f.name for f in fields(SECTIONS[section])}
    return f"{section}.{error.field}" if known else None


def _with(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with single keys of its sections changed, checked as a whole again."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        attribute = ATTRIBUTES.get(section, section)
        part = getattr(recipe, attribute, None)
        if section not in SECTIONS or name not in {f.name for f in fields(SECTIONS[section])}:
            raise ConfigurationError(where, key, "a key that is not known", f"SECTION.KEY of {', '.join(SECTIONS)}")
        changed = _strictly(SECTIONS[section], {**vars(part), name: value}, where, section)
        recipe = replace(recipe, **{attribute: changed})
    return recipe


def _refuse_contradictions(recipe: Recipe, where: str) -> None:
    """What one run's options must not say together."""
    if recipe.command != "finetune" and recipe.labels != LabelBudget():
        raise ConfigurationError(where, "data", recipe.labels, f"no label options with command {recipe.command}")
    if recipe.method.decoder_into_head and not recipe.pretrained:
        raise ConfigurationError(where, "method.decoder_into_head", True, "false, when not pretrained")
    if not recipe.pretrained and recipe.method.trainable != "all":
        raise ConfigurationError(where, "method.trainable", recipe.method.trainable, "all, when not pretrained")
    if recipe.command != "finetune" and recipe.loop.layer_decay != 1:
        expected = f"1 with command {recipe.command}: it is for fine-tuning"
        raise ConfigurationError(where, "loop.layer_decay", recipe.loop.layer_decay, expected)
    if "method.trainable" in recipe.sweep:
        return  # some of its runs use what others do not
    for name, kind in USED_BY.items():
        given = getattr(recipe.method, name)
        if recipe.method.trainable != kind and (given != getattr(Method, name) or f"method.{name}" in recipe.sweep):
            expected = f"none with method.trainable {recipe.method.trainable}, which does not use it"
            raise ConfigurationError(where, f"method.{name}", given, expected)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LIMIT:
        raise ConfigurationError(path, "size", f"{path.stat().st_size} bytes", f"at most {LIMIT}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(path, "contents", " ".join(str(error).split())[:200], "YAML") from None
    if not isinstance(values, dict):
        raise ConfigurationError(path, "contents", type(values).__name__, "keys and values")
    return values


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        equals, value = "", None
    if not equals or not key:
        raise ConfigurationError("--set", "change", repr(change), "SECTION.KEY=VALUE")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigurationError("--set", key, f"{part} is no section", "SECTION.KEY=VALUE")
    values[last] = value


def _set_epochs(values: dict[str, Any], epochs: int, scale: bool) -> None:
    """Other values than numbers are left for `_build` to refuse."""
    loop = values.setdefault("loop", {})
    if not isinstance(loop, dict):
        return
    before, warmup = loop.get("epochs", LoopArgs.epochs), loop.get("warmup_epochs", LoopArgs.warmup_epochs)
    if all(isinstance(number, (int, float)) for number in (before, warmup)):
        if scale and before > 0:
            loop["warmup_epochs"] = warmup * epochs / before
        loop["epochs"] = epochs


def _build(values: dict[str, Any], where: str) -> Recipe:
    command = values.get("command")
    if command not in COMMANDS:
        raise ConfigurationError(where, "command", repr(command), f"one of {', '.join(COMMANDS)}")
    for name in (name for other in COMMANDS if other != command for name in ONLY[other]):
        if name in values:
            raise ConfigurationError(where, name, "a value", f"none with command {command}")
    given = values.get("model")
    if (
        command == "finetune"
        and values.get("pretrained", True)
        and isinstance(given, dict)
        and set(given) - {"drop_path"}
    ):
        expected = "drop_path only: the pre-trained weights say the rest"
        raise ConfigurationError(where, "model", ", ".join(sorted(given)), expected)
    seeds, sweep = values.pop("seeds", [0]), values.pop("sweep", {})
    if not _are_seeds(seeds):
        raise ConfigurationError(where, "seeds", seeds, "one or more different whole numbers")
    if not isinstance(sweep, dict) or not all(
        isinstance(k, str) and isinstance(v, list) and v for k, v in sweep.items()
    ):
        raise ConfigurationError(where, "sweep", sweep, "SECTION.KEY: [values]")
    data = values.pop("data", {})
    if not isinstance(data, dict):
        raise ConfigurationError(where, "data", data, "task: {repeats, augmentation}")
    if "labels" in values:
        raise ConfigurationError(where, "labels", "a key that is not known", "data: {labels_per_class, label_fraction}")
    recipe = _strictly(Recipe, values, where)
    uses, labels = {}, LabelBudget()
    if command == "finetune":
        labels = _strictly(LabelBudget, data, where, "data")
    elif command == "pretrain":
        uses = {name: _strictly(DataUse, use or {}, f"{where}: data.{name}") for name, use in data.items()}
    elif data:
        raise ConfigurationError(where, "data", "a value", f"none with command {command}")
    recipe = Recipe(**{**vars(recipe), "data": uses, "labels": labels, "seeds": tuple(seeds), "sweep": sweep})
    if command == "pretrain" and not uses:
        raise ConfigurationError(where, "data", "nothing", "one or more pre-training tasks")
    if command == "finetune" and not recipe.task:
        raise ConfigurationError(where, "task", "nothing", "the task to learn")
    runs_of(recipe, where)  # what a sweep would run into is said before the first run
    return recipe


def _are_seeds(seeds: Any) -> bool:
    whole = isinstance(seeds, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in seeds)
    return whole and len(seeds) > 0 and len(set(seeds)) == len(seeds)


def _strictly(cls: type[T], values: Any, where: str, section: str = "") -> T:
    """`values` as a Recipe, as one section of it, or as a part of a recipe named in `where`."""
    try:
        return from_dict(cls, values, where)
    except WavesfmError as error:
        key = key_of(error)
        if key is None:
            within = section if error.where == where else error.where.removeprefix(f"{where}: ")
            key = f"{within}.{error.field}" if within else error.field
        raise ConfigurationError(where, key, error.found, error.expected) from None
