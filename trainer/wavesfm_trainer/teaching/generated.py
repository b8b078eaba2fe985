# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated tiles beside the user's: of labels that must not be forgotten, of noise, and of foreign signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.types import NOISE, UNKNOWN

from ..data.tile_dataset import make_shard
from ..evaluation.open_set import class_statistics, feature_distance
from ..signals import CLASSES
from ..signals.dataset import SignalDataset
from ..signals.views import ALL_LABELS, ViewDataset
from .heads import Floats, Samples
from .views import Views

KNOWN_TILES = 24
"""Tiles of each known label that is extended."""
BACKGROUND_TILES = {NOISE: 24, UNKNOWN: 48}
"""Tiles of noise, and of families that are no class of the generator."""
OTHER_TILES = 8
"""Tiles of each class of the generator that is none of the user's labels, as foreign signals."""
ZOOMED_SHARE = 0.5
"""Share of the tiles that are zoomed views; the others are whole bands at their classes' usual rates."""
SNR_DB = (5.0, 30.0)
STEP = 8
"""Tiles between two reports of progress."""
NEAR = 0.95
"""Quantile of the user's own distances from their labels: foreign signals that are nearer are left out."""


@dataclass(frozen=True)
class Generated:
    """M generated tiles."""

    views: Views
    """The tiles; `box` is -1."""
    label: NDArray[np.int64]
    """[M], index among the labels of the new head."""
    kind: NDArray[np.int64]
    """[M], tiles of one kind are held back together."""

    @classmethod
    def none(cls, spec: SpectrogramSpec) -> Generated:
        """No tiles."""
        picture, none = np.zeros((0, spec.height, spec.width), np.uint8), np.zeros(0, np.int64)
        views = Views(picture, np.zeros(0, np.float32), none, np.zeros(0, bool), np.zeros(0, bool))
        return cls(views, none, none)

    def rows(self, chosen: NDArray) -> Generated:
        """Some of the tiles."""
        return Generated(self.views.rows(chosen), self.label[chosen], self.kind[chosen])


def known_tiles(labels: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Number of tiles by label of the generator, for known labels that are kept."""
    return {name: KNOWN_TILES for name in known if name in ALL_LABELS and name in labels}


def background_tiles(labels: Sequence[str]) -> dict[str, int]:
    """Number of tiles by label of the generator, for noise and for foreign signals: none of a label of the user's."""
    foreign = [name for name in ALL_LABELS if name not in labels or name in BACKGROUND_TILES]
    return {name: BACKGROUND_TILES.get(name, OTHER_TILES) for name in foreign}


def generate(
    counts: dict[str, int], labels: Sequence[str], spec: SpectrogramSpec, seed: int, advance: Callable[[int], None]
) -> Generated:
    """Generate tiles.

    A label of the generator that is none of `labels` is a foreign signal, UNKNOWN; its tiles are of one kind. Every
    other tile is a kind of its own.

    Parameters
    ----------
    counts : number of tiles by label of the generator.
    labels : of the new head.
    spec : of the tiles.
    seed : of the tiles.
    advance : called with the number of tiles done.
    """
    sizes = spec.tile_samples, spec.min_samples
    pictures, rates, names = [], [], []
    for name, count in counts.items():
        n_zoomed = count if name not in CLASSES else round(ZOOMED_SHARE * count)
        sets = [(ViewDataset(seed, *sizes, zoom_share=1.0, snr_db=SNR_DB, drawn=(name,)), n_zoomed)]
        if name in CLASSES:
            sets.append((SignalDataset(seed + 1, *sizes, 0.5, SNR_DB, drawn=(name,)), count - n_zoomed))
        for dataset, wanted in sets:
            for first in range(0, wanted, STEP):
                tiles = make_shard(dataset, spec, first, min(STEP, wanted - first))
                pictures.append(tiles.picture)
                rates.append(tiles.log10_rate)
                names += [name] * len(tiles)
                advance(len(tiles))
    n = len(names)
    views = Views(np.concatenate(pictures), np.concatenate(rates), np.full(n, -1), np.zeros(n, bool), np.zeros(n, bool))
    label = np.array([list(labels).index(name if name in labels else UNKNOWN) for name in names])
    foreign = np.array([name not in labels for name in names])
    kind = np.where(foreign, [ALL_LABELS.index(name) for name in names], len(ALL_LABELS) + np.arange(n))
    return Generated(views, label, kind)


def not_like(samples: Samples, features: Floats, generated: Generated, unknown: int) -> NDArray[np.bool_]:
    """Rows [M] of generated tiles that are no foreign signal resembling one of the user's labels.

    A generated signal may well be what the user calls by another name. One that lies as near to a label as the user's
    own boxes is no example of an unknown signal.

    Parameters
    ----------
    samples : the user's views.
    features : [M, D], of the generated tiles.
    generated : the tiles.
    unknown : index of the label UNKNOWN.
    """
    names, label = np.unique(samples.label, return_inverse=True)
    means, precision = class_statistics(samples.features, label, len(names))
    own = feature_distance(samples.features, means, precision)
    far = feature_distance(features, means, precision) > np.quantile(own, NEAR)
    return far | (generated.label != unknown)
