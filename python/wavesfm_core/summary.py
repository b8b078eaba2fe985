# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recording's predictions add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .types import NO_SIGNAL, Prediction


class Summary:
    """Counts of labels and the mean of the probabilities over the tiles that were not gated."""

    def __init__(self) -> None:
        self.tiles = 0
        self.n_nonfinite = 0
        self.partial = 0
        self.counts: Counter[str] = Counter()
        self._sums: dict[str, float] = {}

    def add(self, predictions: Iterable[Prediction]) -> Summary:
        """Take in predictions; returns itself."""
        for prediction in predictions:
            self.tiles += 1
            self.partial += prediction.partial
            self.n_nonfinite += prediction.n_nonfinite
            self.counts[prediction.label] += 1
            for label, probability in prediction.probabilities.items():
                self._sums[label] = self._sums.get(label, 0.0) + probability
        return self

    @property
    def probabilities(self) -> dict[str, float]:
        """Mean over the tiles that were not gated; empty when all were."""
        heard = self.tiles - self.counts[NO_SIGNAL]
        return {label: total / heard for label, total in self._sums.items()}

    @property
    def label(self) -> str:
        """The label of the highest mean probability; NO_SIGNAL when every tile was gated."""
        means = self.probabilities
        return max(means, key=lambda label: means[label]) if means else NO_SIGNAL
