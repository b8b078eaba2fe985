# SPDX-License-Identifier: GPL-3.0-or-later
"""A study: the run directories below one folder, read strictly and grouped by everything but the seed.

A run that cannot be read is kept by name with the reason.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError, InputError

from ..evaluation.metrics import Interval, best_epoch, converged_epoch, seed_interval
from ..evaluation.run_files import Evaluation, read_evaluation
from ..models.run_layout import CONFIG, read_object

log = logging.getLogger(__name__)

SCRATCH = "from scratch"
# options that say where a run is or how it was logged, and nothing of what was trained
_NOT_TRAINING = ("seed", "run", "run_dir", "resume", "save_every", "log_every", "tensorboard", "progress")
_OF_SPLIT = ("examples", "sha256")
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "command": (str,),
    "recipe": (str, type(None)),
    "task": (str, type(None)),
    "method": (str, type(None)),
    "pretrained": (str, type(None)),
    "seed": (int,),
    "args": (dict,),
    "trainable_parameters": (int,),
}


@dataclass(frozen=True)
class Run:
    """One run directory. The fields up to trainable_parameters are those of config.json."""

    path: Path
    """The directory."""
    name: str
    command: str
    recipe: str
    task: str
    method: str
    pretrained: str
    seed: int
    args: dict[str, Any]
    trainable_parameters: int
    config: dict[str, Any] = field(repr=False)
    """Contents of config.json."""
    history: dict[str, NDArray[np.float64]] = field(repr=False)
    """Column of metrics.csv -> float64 [rows], NaN if empty."""
    evaluation: Evaluation | None
    """The evaluation; None if there is none."""

    def monitored(self) -> tuple[NDArray, NDArray, str] | None:
        """Epochs, values and mode of the column that selected the weights; None if the run names none."""
        column, mode = self.config.get("watched"), self.config.get("mode")
        if not column or "epoch" not in self.history:
            return None
        values = self.history[column]
        finite = np.isfinite(values)
        return (self.history["epoch"][finite], values[finite], str(mode)) if finite.any() else None


@dataclass(frozen=True)
class Refusal:
    """A directory that looks like a run but cannot be read."""

    path: Path
    """The directory."""
    reason: str
    """The error."""


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, in the order of their seeds."""

    runs: tuple[Run, ...]
    """The runs."""
    model: str
    """Origin of the weights: recipe or name of the pre-training, or SCRATCH."""
    variant: str = ""
    """Options in which this group differs from others of the same task, model and method; "" if it is the only one."""
    remarks: tuple[str, ...] = ()
    """What a reader must know about the spread (a seed twice, runs of different commits)."""

    @property
    def task(self) -> str:
        return self.runs[0].task

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def command(self) -> str:
        return self.runs[0].command

    @property
    def kind(self) -> str:
        """Kind of the task from the evaluations; "" if none has been evaluated."""
        return next((r.evaluation.kind for r in self.evaluated if r.evaluation), "")

    @property
    def split(self) -> str:
        """Split of the evaluations; "" if none has been evaluated."""
        return next((r.evaluation.split for r in self.evaluated if r.evaluation), "")

    @property
    def evaluated(self) -> tuple[Run, ...]:
        return tuple(r for r in self.runs if r.evaluation is not None)

    @property
    def label(self) -> str:
        return ", ".join(part for part in (self.model, self.method, self.variant) if part)

    def values(self, metric: str) -> NDArray[np.float64]:
        """The metric of each evaluated run that has it."""
        found = [r.evaluation.metrics.get(metric, math.nan) for r in self.evaluated if r.evaluation]
        return np.array([v for v in found if math.isfinite(v)], float)

    def interval(self, metric: str) -> Interval | None:
        """Student's t interval over seeds; None without a value. With a single run the bounds are NaN."""
        values = self.values(metric)
        return seed_interval(values) if len(values) else None

    def epochs(self, best: bool = True) -> Interval | None:
        """Epochs to convergence over seeds: the best epoch (as the paper counts), or the first within 1 % of it."""
        measure = best_epoch if best else converged_epoch
        found = [measure(*w) for w in (r.monitored() for r in self.runs) if w]
        return seed_interval(found) if found else None


@dataclass(frozen=True)
class Study:
    """All groups of a folder, and the refused directories. Runs without evaluation are in their groups."""

    directory: Path
    """The folder."""
    groups: tuple[Group, ...]
    """Groups of runs."""
    refused: tuple[Refusal, ...] = field(default=())
    """Directories that cannot be read."""

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for group in self.groups for run in group.runs)


def read_study(directory: Path) -> Study:
    """Read every run directory below a folder, itself included.

    A run directory has config.json. One with evaluation.json or metrics.csv but without config.json is refused.

    Raises
    ------
    InputError : no such folder, or nothing in it that could be a run.
    """
    if not directory.is_dir():
        raise InputError(directory, "directory", "nothing", "a directory of runs")
    runs, refused = [], []
    for path in sorted(_candidates(directory)):
        try:
            runs.append(read_run(path))
        except InputError as error:
            log.warning("refused: %s", error)
            refused.append(Refusal(path, str(error)))
    if not runs and not refused:
        raise InputError(directory, "runs", "none", "directories with config.json, as wavesfm-train leaves them")
    return Study(directory, group_runs(runs), tuple(refused))


def read_run(path: Path) -> Run:
    """Read the record of one run directory. Raises InputError naming file and field."""
    config = read_object(path / CONFIG)
    for name, types in _FIELDS.items():
        value = config.get(name, InputError)  # a value that no JSON file holds
        if not isinstance(value, types) or isinstance(value, bool):
            found = "nothing" if value is InputError else repr(value)[:60]
            raise InputError(path / CONFIG, name, found, " or ".join(t.__name__ for t in types))
    history = _read_history(path / "metrics.csv")
    watched = config.get("watched")
    if watched and history and watched not in history:
        raise InputError(path / "metrics.csv", "columns", ", ".join(history), f"{watched!r}, as config.json has it")
    if watched and config.get("mode") not in ("max", "min"):
        raise InputError(path / CONFIG, "mode", repr(config.get("mode")), '"max" or "min"')
    written = [name for name in ("evaluation.json", "predictions.npz") if (path / name).exists()]
    evaluation = read_evaluation(path) if written else None
    if evaluation is not None and config["task"] and evaluation.task != config["task"]:
        raise InputError(path / "evaluation.json", "task", evaluation.task, f"{config['task']}, as config.json says")
    known = {name: config[name] if config[name] is not None else "" for name in _FIELDS}
    return Run(path, **known, config=config, history=history, evaluation=evaluation)


def group_runs(runs: Iterable[Run]) -> tuple[Group, ...]:
    """Group runs by everything in config.json that says what was trained, except the seed.

    Pre-trained weights that are a run of the same study count as that run's group, so that a seed of fine-tuning may
    start from the same seed of pre-training.
    """
    runs = list(runs)
    at = {run.path.resolve(): run for run in runs}
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(json.dumps(_key(run, at), sort_keys=True), []).append(run)
    groups = [
        Group(tuple(sorted(m, key=lambda r: (r.seed, r.path))), _model(m[0], at), remarks=_remarks(m))
        for m in members.values()
    ]
    named = [Group(g.runs, g.model, _variant(g, groups), g.remarks) for g in groups]
    return tuple(
        sorted(named, key=lambda g: (g.command, g.task, g.model == SCRATCH, g.model, g.method, _natural(g.variant)))
    )


def trend(group: Group, column: str) -> tuple[NDArray, NDArray]:
    """A column over epochs for every run of the group; of several rows of an epoch, the last value counts.

    Returns
    -------
    Epochs [E], and values [runs, E], NaN if a run has no value.

    Raises
    ------
    ConfigurationError : no run has the column.
    """
    series = []
    for run in group.runs:
        if column in run.history and "epoch" in run.history:
            finite = np.isfinite(run.history[column]) & np.isfinite(run.history["epoch"])
            series.append(dict(zip(run.history["epoch"][finite], run.history[column][finite])))
    if not any(series):
        raise ConfigurationError(group.label, "column", column, "a column of metrics.csv with values")
    epochs = np.array(sorted(set().union(*series)))
    return epochs, np.array([[s.get(e, math.nan) for e in epochs] for s in series])


def settings(run: Run) -> dict[str, Any]:
    """What was trained and how, flattened with dots: options, model, loss, and use of the data sets.

    Left out are the place of the run, its starting weights, options that do not affect the weights, and what a split by
    another seed changes (range of the targets, number of examples, digest of the data).
    """
    objective = {name: v for name, v in _object(run.config.get("objective")).items() if name != "head"}
    training = _object(_object(run.config.get("data")).get("training"))
    data = {name: {k: v for k, v in _object(d).items() if k not in _OF_SPLIT} for name, d in training.items()}
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}", inner)
        else:
            flat[prefix] = value

    walk("args", {name: v for name, v in run.args.items() if name not in _NOT_TRAINING})
    walk("objective", objective)
    walk("data", data)
    return flat


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _candidates(directory: Path) -> set[Path]:
    signs = {"config.json", "metrics.csv", "evaluation.json"}
    return {Path(place) for place, _, files in os.walk(directory) if signs & set(files)}


def _read_history(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of metrics.csv; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, "content", error, "comma-separated values") from None
    if not rows or not {"step", "epoch"} <= set(rows[0]):
        raise InputError(path, "columns", ", ".join(rows[0]) if rows else "none", "step, epoch and figures")
    names, body = rows[0], [row for row in rows[1:] if row]
    for i, row in enumerate(body, start=2):
        if len(row) != len(names):
            raise InputError(path, f"row {i}", f"{len(row)} fields", f"{len(names)} fields")
    columns = {}
    for j, name in enumerate(names):
        try:
            columns[name] = np.array([float(row[j]) if row[j] else math.nan for row in body])
        except ValueError as error:
            raise InputError(path, name, error, "numbers") from None
    return columns


def _parent(run: Run, at: dict[Path, Run]) -> Run | None:
    """The run of this study that `pretrained` (a run directory or a file in one) points to."""
    if not run.pretrained:
        return None
    for path in (Path(run.pretrained), run.path / run.pretrained):
        for place in (path.resolve(), path.resolve().parent):
            if place in at and at[place] is not run:
                return at[place]
    named = [other for other in at.values() if other.name == run.pretrained and other is not run]
    return named[0] if len(named) == 1 else None


def _model(run: Run, at: dict[Path, Run]) -> str:
    """Name of the weights' origin in a table."""
    if run.command == "pretrain":
        return run.recipe or run.name
    if not run.pretrained:
        return SCRATCH
    parent = _parent(run, at)
    return run.pretrained if parent is None else parent.recipe or parent.name


def _key(run: Run, at: dict[Path, Run]) -> dict[str, Any]:
    parent = _parent(run, at)
    origin: Any = run.pretrained if parent is None else _key(parent, {p: r for p, r in at.items() if r is not run})
    key = {name: run.config[name] for name in ("command", "recipe", "task", "method", "trainable_parameters")}
    split = run.evaluation.split if run.evaluation else "test"
    lengths = run.config.get("extended_from", [])  # an extended run had another schedule than one of its full length
    return {**key, "args": settings(run), "pretrained": origin, "split": split, "extended_from": lengths}


def _variant(group: Group, groups: list[Group]) -> str:
    """name=value of the options in which groups of the same task, model and method differ."""
    siblings = [
        g
        for g in groups
        if (g.command, g.task, g.model, g.method) == (group.command, group.task, group.model, group.method)
    ]
    if len(siblings) < 2:
        return ""
    options = [settings(g.runs[0]) | {"recipe": g.runs[0].recipe, "pretrained": g.runs[0].pretrained} for g in siblings]
    values = options[siblings.index(group)]
    names = sorted({name for o in options for name in o if any(p.get(name) != o[name] for p in options)})
    names = [n for n in names if n not in ("recipe", "pretrained")] or names
    shown = {f"{name.rsplit('.', 1)[-1]}={values[name]}": None for name in names if values.get(name) is not None}
    return " ".join(shown) or f"{group.runs[0].trainable_parameters} parameters"


def _natural(text: str) -> list[tuple[float, str]]:
    """A sort key by which 8 comes before 50."""
    return [(float(n), word) if n else (-1.0, word) for n, word in re.findall(r"(\d+\.?\d*)|([^\d]+)", text)]


def _remarks(runs: list[Run]) -> tuple[str, ...]:
    found = []
    seeds = [run.seed for run in runs]
    if twice := sorted({s for s in seeds if seeds.count(s) > 1}):
        names = ", ".join(run.path.name for run in runs if run.seed in twice)
        found.append(f"seed {', '.join(map(str, twice))} more than once ({names}): the interval is too narrow")
    sizes = sorted({run.evaluation.n_samples for run in runs if run.evaluation})
    if len(sizes) > 1:
        found.append(f"evaluated on splits of different sizes: {', '.join(map(str, sizes))} samples")
    counts = {json.dumps(_counts(run)) for run in runs}
    if len(counts) > 1:
        found.append(f"trained on different numbers of examples: {', '.join(sorted(counts))}")
    commits = sorted({str(run.config["git_commit"])[:10] for run in runs if run.config.get("git_commit")})
    if len(commits) > 1:
        found.append(f"runs of different commits: {', '.join(commits)}")
    return tuple(found)


def _counts(run: Run) -> dict[str, Any]:
    training = _object(_object(run.config.get("data")).get("training"))
    return {name: _object(d).get("examples") for name, d in training.items()}
