# SPDX-License-Identifier: GPL-3.0-or-later
"""Fine-tuning from few labels: a seeded subset of the training part, the same for every method."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

log = logging.getLogger(__name__)
LABEL_STREAM = 0x6C61_6265  # keeps this draw apart from others with the same seed


@dataclass(frozen=True)
class LabelBudget:
    """How many labelled examples of the training part a fine-tuning may use; validation and test stay whole."""

    labels_per_class: int = 0
    """Examples of each class; 0: all. For classification."""
    label_fraction: float = 1.0
    """Share of the examples, of each class for classification; 1: all."""
    label_seed: int | None = None
    """Seed of the choice; None: the run's seed."""

    def __post_init__(self) -> None:
        rules = {
            "labels_per_class": (self.labels_per_class >= 0, "0 (all) or more"),
            "label_fraction": (0 < self.label_fraction <= 1, "above 0, up to 1"),
            "label_seed": (self.label_seed is None or 0 <= self.label_seed < 2**31, "0 to 2^31 - 1"),
        }
        require_rules("LabelBudget", self, rules)
        if self.labels_per_class and self.label_fraction < 1:
            found = f"{self.label_fraction} with labels_per_class {self.labels_per_class}"
            raise ConfigurationError("LabelBudget", "label_fraction", found, "one of the two")

    @property
    def limits(self) -> bool:
        """True if not all labels may be used."""
        return self.labels_per_class > 0 or self.label_fraction < 1


def choose_labels(budget: LabelBudget, target: NDArray, seed: int, where: str) -> NDArray[np.int64] | None:
    """Choose the rows of the training part that a budget allows.

    A smaller budget is a subset of a larger one with the same seed. The result depends on budget, targets and seed
    alone.

    Parameters
    ----------
    budget : what is allowed.
    target : int [N] for classification, otherwise float [N, ...].
    seed : of the run; `budget.label_seed` comes first.
    where : name of the data set, for messages.

    Returns
    -------
    int64 [n] in ascending order; None for all rows.

    Raises
    ------
    ConfigurationError : labels_per_class for a task without classes.
    """
    if not budget.limits:
        return None
    has_classes = target.ndim == 1 and target.dtype.kind in "iu"
    if budget.labels_per_class and not has_classes:
        raise ConfigurationError(
            "LabelBudget", "labels_per_class", budget.labels_per_class, "0 for a task without classes"
        )
    rng = np.random.default_rng([LABEL_STREAM, seed if budget.label_seed is None else budget.label_seed])
    order = rng.permutation(len(target))
    classes = np.unique(target) if has_classes else [None]
    chosen = []
    for label in classes:
        rows = order if label is None else order[target[order] == label]
        count = budget.labels_per_class or max(1, math.floor(budget.label_fraction * len(rows) + 0.5))
        if count > len(rows):
            log.warning("%s: class %s has %d examples, fewer than the %d asked for", where, label, len(rows), count)
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
