# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes: what a run is, read from recipes/*.yml; options of the command line change single keys."""

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
    """How a pre-training uses a data set."""

    repeats: float = 1.0
    """Passes over the data set in an epoch."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Augmentation of its batches."""


@dataclass(frozen=True)
class Masking:
    """Masked wireless modelling (section IV.A)."""

    ratio: float = 0.75
    """Share of the patches that are masked, gamma."""
    cls_in_pretraining: bool = True
    """Pre-train the CLS token too."""


@dataclass(frozen=True)
class Method:
    """Trainable parameters of a fine-tuning (Algorithm 2), see task_model.TaskArgs."""

    trainable: str = "last"
    """"probe", "last", "lora" or "all"."""
    last_blocks: int = 2
    """Blocks that train with "last"."""
    lora_rank: int = 50
    """Rank of the adapters with "lora"."""
    lora_alpha: float = 8.0
    """Factor on the adapters with "lora"."""
    trainable_reading: str = "paper"
    """Further trainable parameters: as in the "paper", or in the authors' "code"."""
    pooling: str = ""
    """Input of a linear head, "token" or "avg"; "": the task's."""
    squash: bool = False
    """End a position in tanh."""
    decoder_into_head: bool = False
    """Start the block head of a channel from the pre-trained decoder (embedding, first block, norm)."""


@dataclass(frozen=True)
class Recipe:
    """A recipe file; other keys are refused by name."""

    name: str
    """Name of the runs."""
    command: str
    """"pretrain", "finetune" or "train-channels"."""
    description: str = ""
    """For people."""
    task: str = ""
    """Task of a fine-tuning: a name or a .yml file."""
    pretrained: bool = True
    """A fine-tuning starts from pre-trained weights; False: from scratch (ViT-SL)."""
    data: dict[str, DataUse] = field(default_factory=dict)
    """Data sets of a pre-training, by the name of their task."""
    labels: LabelBudget = field(default_factory=LabelBudget)
    """Labels that a fine-tuning may use; the section `data` of its recipe."""
    masking: Masking = field(default_factory=Masking)
    """Masking of a pre-training."""
    method: Method = field(default_factory=Method)
    """What of the model a fine-tuning trains."""
    learning: FinetuneArgs = field(default_factory=FinetuneArgs)
    """Loss of a fine-tuning; "" and null are the task's own, 0 and false turn them off."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Augmentation of a fine-tuning."""
    modes: ModeArgs = field(default_factory=ModeArgs)
    """Model of train-channels."""
    slots: SlotArgs = field(default_factory=SlotArgs)
    """Slots of train-channels."""
    model: EncoderArgs = field(default_factory=EncoderArgs)
    """Model of a pre-training or from scratch. From weights, only drop_path is free."""
    loop: LoopArgs = field(default_factory=LoopArgs)
    """Options of the loop."""
    seeds: tuple[int, ...] = (0,)
    """One run for each seed."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """"section.key" -> values; one run for each combination."""


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
# Class that refuses an option when it is used -> section in which the option is set, or its key.
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
    name_or_path : a .yml file, or a name that `recipes/` has.
    changes : "section.key=value" each, with the value in YAML.
    epochs : replaces the recipe's. The recipe's warm-up is scaled by the same factor; one that `changes` set is not.

    Raises
    ------
    ConfigurationError : no such recipe, or a key that is unknown, of the wrong type, or contradicts another. Names file
        and key.
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
    """(suffix, recipe) of every run: the combinations of `sweep` times `seeds`; "" if there is a single one."""
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
    """SECTION.KEY of an option that was refused when it was used; None if no recipe has it."""
    if error.where in MODELS:
        return KEY_OF.get(error.field)
    section = SECTION_OF.get(error.where)
    known = section and error.field.partition(",")[0] in {f.name for f in fields(SECTIONS[section])}
    return f"{section}.{error.field}" if known else None


def _with(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with single keys changed and checked again as a whole."""
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
    """Refuse options of one run that contradict each other."""
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
        value = getattr(recipe.method, name)
        if recipe.method.trainable != kind and (value != getattr(Method, name) or f"method.{name}" in recipe.sweep):
            expected = f"none with method.trainable {recipe.method.trainable}, which does not use it"
            raise ConfigurationError(where, f"method.{name}", value, expected)


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
    model = values.get("model")
    from_weights = command == "finetune" and values.get("pretrained", True)
    if from_weights and isinstance(model, dict) and set(model) - {"drop_path"}:
        expected = "drop_path only: the pre-trained weights define the rest"
        raise ConfigurationError(where, "model", ", ".join(sorted(model)), expected)
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
    runs_of(recipe, where)  # so that faults of a sweep are found before the first run
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
