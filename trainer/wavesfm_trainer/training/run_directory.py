# SPDX-License-Identifier: GPL-3.0-or-later
"""The run directory: config.json, metrics.csv, split.json and TensorBoard files, of one run only."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor
from wavesfm_core.atomic_file import write_atomically

from .batches import Loaders
from .loop_args import FREE_TO_CHANGE, LoopArgs, RunError
from .run_state import StateDirectory, write_json, write_tensors

log = logging.getLogger(__name__)
COMPARED = ("args", "objective", "data", "pretrained_sha256")
VERSIONS = ("torch", "lightning", "numpy", "wavesfm-trainer", "wavesfm-core")


class RunDirectory:
    """One run on disk. Only rank 0 writes; all processes read, so several hosts need a common file system.

    Parameters
    ----------
    path : the directory.
    config : contents of config.json.
    resume : accept a directory that holds a run.
    writes : this process writes.

    Raises
    ------
    RunError : the directory holds a run and `resume` is False, or a run of other options, model or data.
    """

    def __init__(self, path: Path, config: dict[str, Any], resume: bool, writes: bool) -> None:
        self.path, self.writes = Path(path), writes
        self.state = StateDirectory(self.path / "state")
        self.config = config
        self.resumed = self.state.load()
        config_path = self.path / "config.json"
        if config_path.exists() and not resume:
            raise RunError(self.path, "config.json", "a run", "an empty directory, or resume")
        self.extended = False
        if self.resumed is not None:
            self._compare(config_path)

    def start(self, loaders: Loaders) -> None:
        """Write config.json and split.json, or cut metrics.csv back to the checkpoint."""
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if self.resumed is None:
            write_json(self.path / "config.json", self.config)
            split = {
                kind: {e.name: e.split_record() for e in getattr(loaders, kind)} for kind in ("training", "validation")
            }
            write_json(self.path / "split.json", split)
            (self.path / "metrics.csv").unlink(missing_ok=True)
        else:
            if self.extended:
                write_json(self.path / "config.json", self.config)
            self._rewind(int(self.resumed[0]["epoch"]))

    def require_room(self, n_bytes: int, what: str) -> None:
        """Raise RunError if the disk has fewer than `n_bytes` left."""
        folder = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(folder).free
        if free < n_bytes:
            raise RunError(self.path, "disk", f"{free / 1e6:.1f} MB free", f"{n_bytes / 1e6:.1f} MB, for {what}")

    def _compare(self, path: Path) -> None:
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunError(path, "contents", error, "the config.json of the run to resume") from None
        now = json.loads(json.dumps(self.config))
        free = FREE_TO_CHANGE + self._extend(before)
        for part in COMPARED:
            if part == "pretrained_sha256" and part not in before:  # a run of an earlier version
                if now[part]:
                    log.warning("%s: does not say which weights it started from, so that these are not compared", path)
                continue
            old, new = _flat(before.get(part, {}), part), _flat(now[part], part)
            for name in {**new, **old}:  # in the config's order: options before what follows from them
                if name.removeprefix("args.") not in free and old.get(name) != new.get(name):
                    found = f"{old.get(name)} in the existing run"
                    raise RunError(path, name, found, f"{new.get(name)} as asked for now, or another run directory")

    def _extend(self, before: dict[str, Any]) -> tuple[str, ...]:
        """Options that may differ because a finished run continues with more epochs; records the former length.

        From the next step on, the learning rate follows the schedule of the new length. The warm-up may have another
        length if it still ends before the epoch that was reached.
        """
        assert self.resumed is not None
        state, old, new = self.resumed[0], before.get("args") or {}, self.config["args"]
        lengths = list(before.get("extended_from", []))
        self.extended = bool(state["finished"] and new["epochs"] > old.get("epochs", math.inf))
        if self.extended:
            lengths.append(old["epochs"])
        if lengths:
            self.config["extended_from"] = lengths
        past = new["warmup_epochs"] <= state["epoch"]
        return (("epochs", "warmup_epochs") if past else ("epochs",)) if self.extended else ()

    def _rewind(self, epoch: int) -> None:
        """Drop rows of epochs after the checkpoint: the resumed run writes them again."""
        path = self.path / "metrics.csv"
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if None not in row.values() and int(row["epoch"]) <= epoch]
            _write_rows(path, list(reader.fieldnames or []), rows)

    def row(self, values: Mapping[str, float | int]) -> None:
        """Add a row to metrics.csv and sync it; a new figure gets a column."""
        if not self.writes:
            return
        path = self.path / "metrics.csv"
        rows: list[Mapping[str, Any]] = []
        columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows, columns = list(reader), list(reader.fieldnames or [])
        new = [name for name in values if name not in columns]
        if rows and not new:
            _append_row(path, columns, values)
        else:
            _write_rows(path, columns + new, [*rows, values])

    def keep_batch(self, batch: Mapping[str, Tensor], step: int, rank: int) -> Path:
        """Write the batch whose loss was not finite; returns the file. Any process may have had it."""
        path = self.path / f"nonfinite-step-{step}-rank-{rank}.safetensors"
        self.path.mkdir(parents=True, exist_ok=True)
        write_tensors(path, batch, {"step": str(step)})
        return path


class Points:
    """TensorBoard points of a run.

    Parameters
    ----------
    path : run directory.
    on : False: nothing is written.
    step : points of a resumed run after this step are removed.
    """

    def __init__(self, path: Path, on: bool, step: int) -> None:
        self.writer = None
        if on:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

            self.writer = SummaryWriter(str(path / "tensorboard"), purge_step=step)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add points at an optimiser step."""
        for name, value in values.items() if self.writer else ():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self.writer:
            self.writer.close()


@contextmanager
def progress_bar(on: bool, total: int, done: int):
    """Yield advance(n, text): a progress bar if `on` and standard error is a terminal, otherwise nothing."""
    if not (on and sys.stderr.isatty()):
        yield lambda n, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda n, text: bar.update(task, advance=n, description=text)


def make_config(
    args: LoopArgs, objective: Mapping[str, Any], loaders: Loaders, more: Mapping[str, Any], processes: int
) -> dict[str, Any]:
    """Contents of config.json, see `evaluation.run_files`.

    Parameters
    ----------
    args, objective, loaders : options, model and data, which a resumed run compares.
    more : further fields.
    processes : number of processes.
    """
    empty = dict.fromkeys(("name", "command", "recipe", "task", "method", "pretrained", "pretrained_sha256"), "")
    data = {
        "training": {e.name: e.describe() for e in loaders.training},
        "validation": {e.name: e.describe() for e in loaders.validation},
    }
    return {
        **empty,
        **more,
        "seed": args.seed,
        "args": asdict(args),
        "objective": dict(objective),
        "data": data,
        "processes": processes,
        "git_commit": git_commit(Path(__file__)),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }


def git_commit(source: Path) -> str | None:
    """Commit that `source` is checked out of, with "-dirty" if files differ; None if no repository has the file."""
    git = ["git", "-C", str(source.parent)]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # An installed file may lie in an ignored folder of another repository.
        _run([*git, "ls-files", "--error-unmatch", source.name])
        return _run([*git, *describe]).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}").items()}


def _write_rows(path: Path, columns: list[str], rows: list[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(path, text.getvalue())
    except OSError as error:
        raise RunError(path, "writing", error, "room on the disk and the right to write") from error


def _append_row(path: Path, columns: list[str], values: Mapping[str, Any]) -> None:
    line = io.StringIO()
    csv.DictWriter(line, columns, restval="").writerow(values)
    try:
        with path.open("a", newline="") as file:
            file.write(line.getvalue())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(path, "writing", error, "room on the disk and the right to write") from error
