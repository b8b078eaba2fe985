# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a classifier on held-out tiles of the signal generator, by SNR and by length, through core's pipeline."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError
from wavesfm_core.pipeline import Pipeline

from ..data.tile_dataset import Tiles, read_shard_note, read_shards
from .evaluate_run import check_preprocess
from .metrics import class_accuracy, confusion_matrix


def tile_report(pipeline: Pipeline, directory: Path, max_tiles: int | None = None, batch_tiles: int = 50) -> dict:
    """`synthetic_report` of a run's or a bundle's pipeline on a folder of tile shards.

    Parameters
    ----------
    pipeline : of a classifier of spectrograms.
    directory : folder of tile shards.
    max_tiles : tiles to use, the first ones; None: all.
    batch_tiles : tiles at a time.

    The model may have more labels than the tiles, behind theirs.

    Raises
    ------
    InputError : the tiles have other labels, or were prepared otherwise.
    """
    spec, labels = pipeline.stream_spec, pipeline.bundle.spec.head.labels
    note = read_shard_note(directory)
    if note["labels"] != list(labels)[: len(note["labels"])]:
        raise InputError(directory, "labels", note["labels"], f"{list(labels)}, the model's")
    check_preprocess(spec, from_dict(SpectrogramSpec, note["spec"], f"{directory}: spec"), directory)
    tiles = read_shards(directory, max_tiles)
    return synthetic_report(tile_logits(pipeline, tiles, batch_tiles), tiles, labels, spec.rows_per_tile)


def tile_logits(pipeline: Pipeline, tiles: Tiles, batch_tiles: int = 50) -> NDArray[np.float32]:
    """Logits [N, L] of tiles; the sample rates are inputs if the model takes them."""
    bundle = pipeline.bundle.spec
    mean, std = np.float32(bundle.preprocess.mean), np.float32(bundle.preprocess.std)
    parts = []
    for first in range(0, len(tiles), batch_tiles):
        rows = slice(first, first + batch_tiles)
        picture = tiles.picture[rows, None].astype(np.float32) / 255
        sources = {"tile": (picture - mean) / std, "log10_rate": tiles.log10_rate[rows, None]}
        inputs = {tensor.name: sources[tensor.source] for tensor in bundle.inputs}
        parts.append(pipeline.engine.run(inputs)[bundle.outputs[0].name])
    return np.concatenate(parts)


def synthetic_report(logits: NDArray, tiles: Tiles, labels: tuple[str, ...], rows_per_tile: int) -> dict:
    """Mean class accuracy over all tiles, at 10 dB and more, by SNR and by length, and the confusion at 10 dB and
    more.

    A figure without tiles is None.
    """
    predicted = logits.argmax(1)

    def accuracy(where: NDArray[np.bool_]) -> float | None:
        if not where.any():
            return None
        confusion = confusion_matrix(tiles.label[where], predicted[where], len(labels))
        return round(float(np.nanmean(class_accuracy(confusion))), 4)

    clear = tiles.snr_db >= 10
    confusion = confusion_matrix(tiles.label[clear], predicted[clear], len(labels))
    edges = [-5, 0, 5, 10, 20, 30, 61]
    return {
        "n_tiles": len(tiles),
        "mean_class_accuracy": accuracy(np.ones(len(tiles), bool)),
        "mean_class_accuracy_10db": accuracy(clear),
        "mean_class_accuracy_10db_full_tiles": accuracy(clear & (tiles.rows == rows_per_tile)),
        "mean_class_accuracy_10db_partial": accuracy(clear & (tiles.rows < rows_per_tile)),
        "by_snr_db": {
            f"{low}..{high}": accuracy((tiles.snr_db >= low) & (tiles.snr_db < high)) for low, high in pairwise(edges)
        },
        "class_accuracy_10db": {
            label: None if np.isnan(recall) else round(float(recall), 4)
            for label, recall in zip(labels, class_accuracy(confusion), strict=True)
        },
        "confusion_10db": confusion.tolist(),
    }
