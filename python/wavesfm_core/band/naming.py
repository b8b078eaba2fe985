# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine said of an emitter's tiles, put together; and which emitters it is asked about next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .options import BandOptions
from .track import Track

LEAST_PROBABILITY = 1e-4  # one tile cannot rule a label out


def add_look(track: Track, probabilities: NDArray[np.floating], n_samples: float = 1.0) -> None:
    """One more tile's probabilities [labels] of an emitter; a tile counts by the samples of the stream it is of."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))
    if track.log_mean is None:
        track.log_mean, track.looked_samples = logs, n_samples
    else:
        track.looked_samples += n_samples
        track.log_mean = track.log_mean + (logs - track.log_mean) * (n_samples / track.looked_samples)
    track.n_looks += 1


def probabilities_of(track: Track) -> NDArray[np.float64]:
    """Geometric mean over the tiles, weighted by their lengths, summing to 1; empty while nobody has looked."""
    if track.log_mean is None:
        return np.zeros(0)
    weights = np.exp(track.log_mean - track.log_mean.max())
    return np.asarray(weights / weights.sum(), np.float64)


def relabel(track: Track, label: str) -> None:
    """Take in the label that all looks together speak for: one look alone does not change a label that is out."""
    if track.label in ("", label) or label == track.rival:
        track.label, track.rival = label, ""
    else:
        track.rival = label


class Budget:
    """How many tiles may go to the engine: looks_per_s of signal, with a second's worth saved up.

    Attributes
    ----------
    asked, left : int
        Emitters that were due for a look, and of those the ones that had to wait.
    busy : int
        Of those that had to wait, the ones for which the engine had no time.
    """

    def __init__(self, options: BandOptions) -> None:
        self._per_s = options.looks_per_s
        self._saved = max(8.0, options.looks_per_s)
        self.asked = 0
        self.left = 0
        self.busy = 0

    def earn(self, seconds: float) -> None:
        """Signal that has gone by."""
        self._saved = min(self._saved + self._per_s * seconds, max(8.0, self._per_s))

    def spend(self, due: Sequence[Track]) -> list[Track]:
        """The first of those due, as many as there is budget for."""
        count = min(len(due), int(self._saved))
        self._saved -= count
        self.asked += len(due)
        self.left += len(due) - count
        return list(due[:count])

    def refuse(self, count: int) -> None:
        """Give back what was spent on looks for which there was no time."""
        self._saved += count
        self.left += count
        self.busy += count
