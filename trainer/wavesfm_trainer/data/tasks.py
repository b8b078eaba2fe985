# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks as data: what is learnt from which layout, read from tasks/*.yml."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.checks import Rules, require_rules
from wavesfm_core.errors import ConfigurationError, WavesfmError

TASKS = Path(__file__).parent / "tasks"
KINDS = ("classification", "position", "channel", "pretraining")
SPLITS = ("published", "random", "group")
HEADS = ("linear", "block")
POOLINGS = ("token", "avg")
LOSSES = {
    "classification": ("cross_entropy",),
    "position": ("mse",),
    "channel": ("snr_mse", "mse"),
    "pretraining": ("mwm",),
}


@dataclass(frozen=True)
class Task:
    """A task file; a key that is not one of these is refused by name.

    name, kind: one of KINDS; reader: a key of data.readers.READERS; channels: of the prepared image.
    labels: in the order of the logits (classification); axes: names of the coordinates, the first columns of the
        position (position); grid: antennas, symbols, subcarriers (channel).
    head: "linear" or "block" (one ViT block); pooling: "token" or "avg"; loss: one of LOSSES[kind]; label_smoothing: 0
        to below 1; class_weights: one over the class's frequency in the training split reaches the loss.
    split: how the examples are split by default; shares: of training, validation and test, adding to 1. A published
        split keeps its test part, and validation is cut from its training part in the ratio of the first two shares.
    range: what the lowest and the highest value of the training split become; bounds: those values where they are
        known beforehand (pictures: 0 and 1), else measured; decibel_floor: of 10 log10(x + floor), None: no decibels.
    height, width: of the prepared image. options: of the reader; recordings: labels of a manifest -> labels.
    """

    name: str
    kind: str
    reader: str
    channels: int
    description: str = ""
    labels: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    grid: tuple[int, ...] = ()
    head: str = "linear"
    pooling: str = "token"
    loss: str = ""
    label_smoothing: float = 0.0
    class_weights: bool = False
    split: str = "random"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    range: tuple[float, float] = (0.0, 1.0)
    bounds: tuple[float, ...] = ()
    decibel_floor: float | None = None
    height: int = 224
    width: int = 224
    recordings: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"task {self.name}"
        if self.kind not in KINDS:
            raise ConfigurationError(where, "kind", repr(self.kind), f"one of {', '.join(KINDS)}")
        if not self.loss:
            object.__setattr__(self, "loss", LOSSES[self.kind][0])
        require_rules(where, self, self._rules())

    def _rules(self) -> Rules:
        answers = {"classification": "labels", "position": "axes", "channel": "grid"}
        kinds = {
            name: (bool(getattr(self, name)) == (self.kind == kind), f"given for kind {kind} and for no other")
            for kind, name in answers.items()
        }
        return {
            **kinds,
            "name": (bool(self.name) and self.name.isprintable(), "a name"),
            "channels": (1 <= self.channels <= 64, "1 to 64"),
            "labels": (kinds["labels"][0] and len(set(self.labels)) == len(self.labels) != 1, self._expected_labels()),
            "grid": (kinds["grid"][0] and len(self.grid) in (0, 3) and min(self.grid, default=1) > 0, self._grid()),
            "head": (self.head in HEADS, f"one of {', '.join(HEADS)}"),
            "pooling": (self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}"),
            "loss": (self.loss in LOSSES[self.kind], f"one of {', '.join(LOSSES[self.kind])} for kind {self.kind}"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 to below 1"),
            "class_weights": (not self.class_weights or self.kind == "classification", "false unless classification"),
            "split": (self.split in SPLITS, f"one of {', '.join(SPLITS)}"),
            "shares": (_are_shares(self.shares), "three shares that add to 1, the first above 0"),
            "range": (_ascending(self.range), "a lower and a higher finite number"),
            "bounds": (not self.bounds or _ascending(self.bounds), "nothing, or a lower and a higher finite number"),
            "decibel_floor": (self.decibel_floor is None or 0 < self.decibel_floor < math.inf, "a positive number"),
            "height": (1 <= self.height <= 4096, "1 to 4096"),
            "width": (1 <= self.width <= 4096, "1 to 4096"),
        }

    def _expected_labels(self) -> str:
        return "two or more different labels for kind classification and none for another"

    def _grid(self) -> str:
        return "antennas, symbols, subcarriers for kind channel and nothing for another"


def _ascending(pair: tuple[float, ...]) -> bool:
    return len(pair) == 2 and all(map(math.isfinite, pair)) and pair[0] < pair[1]


def _are_shares(shares: tuple[float, ...]) -> bool:
    return min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) < 1e-6


def read_task(name_or_path: str | Path) -> Task:
    """The task of a .yml file, or of a name that `tasks/` has.

    Raises ConfigurationError naming file and key: no such task, a key that is unknown, missing, of the wrong type, or
    that contradicts another.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        path = TASKS / f"{name_or_path}.yml"
    if not path.is_file():
        raise ConfigurationError(name_or_path, "task", "nothing", f"a .yml file or one of {', '.join(task_names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(path, "contents", " ".join(str(error).split())[:200], "YAML") from None
    options = values.pop("options", {}) if isinstance(values, dict) else {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ConfigurationError(path, "options", repr(options)[:60], "keys and values")
    try:
        task = from_dict(Task, values, str(path))
    except WavesfmError as error:
        raise ConfigurationError(path, error.field, error.found, _expected(error)) from None
    object.__setattr__(task, "options", options)
    return task


def _expected(error: WavesfmError) -> str:
    return str(error).rpartition(", expected ")[2]


def task_names() -> list[str]:
    """Names of the tasks that ship."""
    return sorted(path.stem for path in TASKS.glob("*.yml"))
