# SPDX-License-Identifier: GPL-3.0-or-later
"""Honest confidences and a bound on wrongly rejected signals: temperature and unknown_from of a classifier's head."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import HeadSpec, to_dict
from wavesfm_core.heads import softmax
from wavesfm_core.types import UNKNOWN

from ..data.tile_dataset import read_shards
from ..models import registry
from ..models.run_layout import WEIGHTS
from .evaluate_tiles import tile_logits
from .open_set import calibration_error, fit_temperature
from .torch_engine import open_pipeline
from .trained_run import load_task_run

log = logging.getLogger(__name__)
LEAST_SNR_DB = 3.0  # of the signals that must not be rejected
LOWEST, HIGHEST = 0.2, 0.98


@dataclass(frozen=True)
class Calibration:
    """temperature and unknown_from of a HeadSpec; what they do on the tiles that they were chosen on: calibration error
    before and after, share of known signals of LEAST_SNR_DB and more that are called unknown."""

    temperature: float
    unknown_from: float
    error_before: float
    error_after: float
    rejected: float


def choose(logits: NDArray, label: NDArray, snr_db: NDArray, head: HeadSpec, rejected: float = 0.05) -> Calibration:
    """Calibration on logits [N, L] of validation tiles with labels [N] and snr_db [N].

    unknown_from: the smallest probability of UNKNOWN from which on at most `rejected` of the known signals are called
    so; where UNKNOWN is the most probable it is the answer in any case. 1.0 for a head without that label.
    """
    temperature = fit_temperature(logits, label)
    before, after = softmax(logits), softmax(logits / temperature)
    errors = [calibration_error(p.max(axis=1), p.argmax(axis=1) == label) for p in (before, after)]
    if UNKNOWN not in head.labels:
        return Calibration(temperature, 1.0, *errors, 0.0)
    at = head.labels.index(UNKNOWN)
    known = after[(label != at) & (snr_db >= LEAST_SNR_DB)]
    is_top = known.argmax(axis=1) == at
    room = max(rejected - is_top.mean(), 0.0)
    rest = np.sort(known[~is_top, at])[::-1]
    allowed = int(room * len(known))
    start = float(rest[allowed]) + 1e-6 if allowed < len(rest) else LOWEST
    start = float(np.clip(start, LOWEST, HIGHEST))
    taken = float(np.mean(is_top | (known[:, at] >= start)))
    return Calibration(temperature, start, *errors, taken)


def calibrate_run(run: Path, tiles: Path, rejected: float = 0.05, max_tiles: int | None = None) -> Calibration:
    """Choose on a directory of validation tiles, and write it into the head of the run's weights file."""
    trained = load_task_run(run)
    pipeline = open_pipeline(run, "cpu")
    given = read_shards(tiles, max_tiles)
    made = choose(tile_logits(pipeline, given), given.label, given.snr_db, trained.head, rejected)
    path = run / WEIGHTS if run.is_dir() else run
    record = registry.read(path)
    head = replace(trained.head, temperature=made.temperature, unknown_from=made.unknown_from)
    registry.save(path, trained.model, {**record.extra, "head": to_dict(head)}, record.state)
    log.info("%s: %s", path, made)
    return made
