# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recording's predictions add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .types import NOISE, Prediction


class Summary:
    """Counts of labels, and the mean probabilities over the inferred tiles that are not noise (over all if all are)."""

    def __init__(self) -> None:
        self.tiles = 0
        self.inferred = 0
        self.n_nonfinite = 0
        self.partial = 0
        self.counts: Counter[str] = Counter()
        self._signal_tiles = 0
        self._sums: dict[bool, dict[str, float]] = {False: {}, True: {}}  # by whether the tile's label is a signal

    def add(self, predictions: Iterable[Prediction]) -> Summary:
        """Take in predictions; returns itself."""
        for prediction in predictions:
            self.tiles += 1
            self.partial += prediction.partial
            self.n_nonfinite += prediction.n_nonfinite
            self.counts[prediction.label] += 1
            self.inferred += prediction.inferred
            signal = prediction.label != NOISE
            self._signal_tiles += signal and prediction.inferred
            sums = self._sums[signal]
            for label, probability in prediction.probabilities.items():
                sums[label] = sums.get(label, 0.0) + probability
        return self

    @property
    def probabilities(self) -> dict[str, float]:
        """Mean over the inferred tiles in which a signal was found, or over all inferred tiles when they are noise."""
        signal = self._signal_tiles > 0
        count = self._signal_tiles if signal else self.inferred
        return {label: total / count for label, total in self._sums[signal].items()}

    @property
    def label(self) -> str:
        """The label of the highest mean probability; NOISE when no tile was inferred."""
        means = self.probabilities
        return max(means, key=lambda label: means[label]) if means else NOISE
