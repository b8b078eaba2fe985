# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks as data: a .yml file says what is learnt from which raw layout."""

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
    """A task file. Unknown keys are refused.

    Raises
    ------
    ConfigurationError : values that contradict each other; the error names the key.
    """

    name: str
    """Name of the task."""
    kind: str
    """One of KINDS."""
    reader: str
    """Reader of the raw layout, a key of data.readers.registry.READERS."""
    channels: int
    """Channels of the prepared image."""
    description: str = ""
    """One sentence for listings."""
    labels: tuple[str, ...] = ()
    """Classification: labels in the order of the logits."""
    axes: tuple[str, ...] = ()
    """Position: names of the coordinates, the first columns of the raw positions."""
    grid: tuple[int, ...] = ()
    """Channel: antennas, symbols, subcarriers."""
    head: str = "linear"
    """Kind of head: "linear" or "block" (one ViT block)."""
    pooling: str = "token"
    """Input of a linear head: "token" or "avg"."""
    loss: str = ""
    """One of LOSSES[kind]; empty: the first of them."""
    label_smoothing: float = 0.0
    """0 to below 1, classification only."""
    class_weights: bool = False
    """Weight the loss by the inverse frequency of the class in the training part."""
    split: str = "random"
    """Default split of the examples, one of SPLITS."""
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test; they sum to 1. A published split keeps its test part, and its training
    part is divided in the ratio of the first two.
    """
    range: tuple[float, float] = (0.0, 1.0)
    """Values to which the lowest and the highest value of the training part are mapped."""
    bounds: tuple[float, ...] = ()
    """Lowest and highest value if known beforehand (pictures: 0 and 1); empty: measured on the training part."""
    decibel_floor: float | None = None
    """Floor of 10 log10(x + floor); None: no decibels."""
    height: int = 224
    """Rows of the prepared image."""
    width: int = 224
    """Columns of the prepared image."""
    recordings: dict[str, str] = field(default_factory=dict)
    """Labels of a manifest of recordings (shell patterns) -> labels of the task."""
    trained_on: tuple[str, ...] = ()
    """Files of the manifest (shell patterns) that training tiles are made of; they are never scored."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the reader."""

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
            name: (bool(getattr(self, name)) == (self.kind == kind), f"a value for kind {kind} and for no other kind")
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
    """Read a task.

    Parameters
    ----------
    name_or_path : a .yml file, or the name of a task in `tasks/`.

    Raises
    ------
    ConfigurationError : no such task, or a key that is unknown, missing, of the wrong type, or contradicts another.
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
    """Names of the tasks in `tasks/`."""
    return sorted(path.stem for path in TASKS.glob("*.yml"))
