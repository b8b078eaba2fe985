# SPDX-License-Identifier: GPL-3.0-or-later
"""From views to a calibrated head: held-back parts are judged, then everything is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.heads import softmax
from wavesfm_core.types import UNKNOWN

from ..evaluation.calibrate import choose
from ..evaluation.open_set import fit_temperature, threshold_for
from .folds import Folds
from .heads import Floats, LinearHead, Samples, fit_head

REJECTED = 0.05
"""Share of the user's own boxes that the thresholds may reject."""
SURE_DB = 99.0
"""Stands for the signal-to-noise ratio of boxes, which somebody saw."""
LOWEST, HIGHEST = 0.0, 0.98


@dataclass(frozen=True)
class Material:
    """All that is learnt from: the user's views first, then generated tiles."""

    labels: tuple[str, ...]
    """Of the head, in order."""
    samples: Samples
    """Features, labels and parts of all."""
    n_views: int
    """Number of the user's views."""
    folds: Folds
    """Of the boxes; the samples' parts are numbered alike."""
    known: LinearHead | None
    """Rows of known labels, which stay as they are; None: all rows are fitted."""


@dataclass(frozen=True)
class Held:
    """Logits by heads that have not seen the sample."""

    logits: Floats
    """[N, L], of all samples."""
    held: NDArray[np.bool_]
    """[N], rows that are such."""


def parts_of(folds: Folds, box: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parts of the user's views, by their boxes, and of generated tiles, by their kinds in turns."""
    parts = np.unique(folds.part)
    return np.concatenate([folds.part[box], parts[kind % len(parts)]])


def judge(material: Material) -> Held:
    """Fit a head for each part on the others, choosing its kind within them, and apply it to the part."""
    samples, n_labels = material.samples, len(material.labels)
    logits = np.zeros((len(samples.label), n_labels))
    held = np.zeros(len(samples.label), bool)
    for part in range(material.folds.count):
        mine = samples.part == part
        head = fit_head(samples.rows(~mine), n_labels, material.known)
        logits[mine] = head.logits(samples.features[mine])
        held |= mine
    return Held(logits, held)


def calibrate(material: Material, held: Held, judged: NDArray[np.bool_]) -> HeadSpec:
    """Temperature and thresholds: at most REJECTED of the user's views are called unknown.

    Parameters
    ----------
    material : labels of the samples.
    held : their logits.
    judged : [N], samples that count: the user's plain views and generated tiles.
    """
    labels, rows = material.labels, held.held & judged
    logits, truth = held.logits[rows], material.samples.label[rows]
    if UNKNOWN in labels:
        plain = HeadSpec("classification", labels)
        found = choose(logits, truth, np.full(len(truth), SURE_DB), plain, REJECTED)
        return replace(plain, temperature=found.temperature, unknown_from=found.unknown_from)
    temperature = fit_temperature(logits, truth)
    mine = np.flatnonzero(rows) < material.n_views
    confidence = probabilities(logits[mine], temperature).max(axis=1)
    threshold = float(np.clip(1 - threshold_for(1 - confidence, REJECTED), LOWEST, HIGHEST))
    return HeadSpec("classification", labels, threshold=threshold, temperature=temperature)


def probabilities(logits: NDArray, temperature: float) -> NDArray[np.float64]:
    """Softmax [N, L] at a temperature."""
    return softmax(np.asarray(logits, np.float64) / temperature)
