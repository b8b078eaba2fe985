# SPDX-License-Identifier: GPL-3.0-or-later
"""Real recordings listed in a manifest: which are scored, and the label of a recording from its tiles."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from wavesfm_core.errors import InputError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.summary import Summary

from ..data.tasks import TASKS
from .metrics import confusion_matrix

IQ_FORMATS = {"cu8": "cu8", "cs8": "cs8", "cs16_le": "cs16", "cf32_le": "cf32"}
TASK_FILE = TASKS / "rf20.yml"
OPEN_TASK_FILE = TASKS / "rf20-open.yml"  # of models that have a label for what they do not know


@dataclass(frozen=True)
class ManifestRow:
    """One recording of a manifest."""

    path: Path
    """The file."""
    label: str
    """Label of the task."""
    rate_hz: float
    """Sample rate in Hz; 0 if the manifest has none."""
    sample_format: str
    """Format of the samples, as core names it."""
    trained_on: bool = False
    """True if training tiles are made of it."""


@dataclass(frozen=True)
class Verdict:
    """Result of classifying one recording."""

    row: ManifestRow
    """The recording."""
    found: str
    """Label over its tiles, without gated ones."""
    confidence: float
    """Probability of that label."""
    n_tiles: int
    """Tiles."""
    n_gated: int
    """Tiles below the power gate."""

    @property
    def right(self) -> bool:
        """True if the label is right. Noise may also be gated entirely."""
        return self.found == self.row.label


def read_manifest(path: Path, task_file: Path = TASK_FILE) -> list[ManifestRow]:
    """Read the rows of a manifest.csv that are IQ and whose label the task knows.

    Raises
    ------
    InputError : no such file, or a missing column.
    """
    if not path.is_file():
        raise InputError(path, "file", "nothing", "a manifest.csv")
    task = yaml.safe_load(task_file.read_text())
    patterns, trained_on = task["recordings"], task.get("trained_on", ())
    rows = []
    with path.open(newline="") as file:
        for entry in csv.DictReader(file):
            if not {"file", "label", "sample_rate_hz", "format"} <= entry.keys():
                raise InputError(path, "columns", sorted(entry), "file, label, sample_rate_hz, format among them")
            label = next((to for pattern, to in patterns.items() if fnmatch(entry["label"], pattern)), None)
            if label is not None and entry["format"] in IQ_FORMATS:
                rate_hz = float(entry["sample_rate_hz"] or 0)
                trained = any(fnmatch(entry["file"], pattern) for pattern in trained_on)
                rows.append(
                    ManifestRow(path.parent / entry["file"], label, rate_hz, IQ_FORMATS[entry["format"]], trained)
                )
    return rows


def judge(pipeline: Pipeline, row: ManifestRow) -> Verdict:
    """Classify one recording as the command line does."""
    with open_recording(row.path, rate_hz=row.rate_hz or None, sample_format=row.sample_format) as recording:
        summary = Summary().add(pipeline.classify_recording(recording))
    confidence = summary.probabilities.get(summary.label, 0.0)
    return Verdict(row, summary.label, confidence, summary.tiles, summary.tiles - summary.inferred)


def confusion(verdicts: Iterable[Verdict], labels: Sequence[str]) -> NDArray[np.int64]:
    """Counts [true, found] over `labels` and, last, NO_SIGNAL."""
    pairs = [(labels.index(v.row.label), labels.index(v.found)) for v in verdicts]
    true, found = np.array(pairs, np.int64).reshape(-1, 2).T
    return confusion_matrix(true, found, len(labels))


def score(verdicts: Iterable[Verdict]) -> tuple[float, dict[str, tuple[int, int]]]:
    """Accuracy by recording, mean over the classes that occur; and (right, all) for each class."""
    counts: dict[str, list[bool]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.row.label, []).append(verdict.right)
    mean = float(np.mean([np.mean(right) for right in counts.values()])) if counts else float("nan")
    return mean, {label: (sum(right), len(right)) for label, right in counts.items()}


def recordings_report(verdicts: Sequence[Verdict], labels: Sequence[str], root: Path) -> dict[str, Any]:
    """Plain types: accuracy over recordings of documented rate, their confusion, and every file's verdict.

    Recordings that training tiles were made of are not in the accuracy; trained_on_right counts them.
    """
    documented = [verdict for verdict in verdicts if verdict.row.rate_hz and not verdict.row.trained_on]
    trained_on = [verdict.right for verdict in verdicts if verdict.row.trained_on]
    mean, per_class = score(documented)
    return {
        "mean_class_accuracy": mean,
        "classes": per_class,
        "trained_on_right": (sum(trained_on), len(trained_on)),
        "confusion": confusion(documented, labels).tolist(),
        "files": [
            {
                "file": str(verdict.row.path.relative_to(root)),
                "rate_msps": verdict.row.rate_hz / 1e6,
                "label": verdict.row.label,
                "found": verdict.found,
                "confidence": round(verdict.confidence, 3),
                "tiles": verdict.n_tiles,
                "gated": verdict.n_gated,
                "trained_on": verdict.row.trained_on,
                "right": verdict.right,
            }
            for verdict in verdicts
        ],
    }
