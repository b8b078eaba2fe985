# SPDX-License-Identifier: GPL-3.0-or-later
"""Tile shards of the signal generator (see `tiles`) as Examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import preprocess_from_dict, to_dict
from wavesfm_core.errors import ConfigurationError, InputError

from . import tile_dataset as tiles
from .examples import FORMAT, Examples
from .splits import SIDES, TRAIN

TILE_SHARES = (0.9, 0.05, 0.05)


def read_tile_shards(path: Path, split: str | None) -> Examples:
    """Shards of a directory with folders train, validation, test, or of a single one; see `cache.read_cache`."""
    folders = (path / "train" / tiles.NOTE).is_file()
    train = tiles.read_cache(path / "train" if folders else path)
    note = tiles.read_note(path / "train" if folders else path)
    if (folders and split == "train") or not folders:
        chosen = train
    elif split is None:
        raise ConfigurationError(path, "split", "none", f"one of {', '.join(SIDES)}, the folders there")
    else:
        chosen = tiles.read_cache(path / split)
        if (found := tiles.read_note(path / split)["labels"]) != note["labels"]:
            raise InputError(path / split / tiles.NOTE, "labels", found, f"those of train, {note['labels']}")
    sides = np.random.default_rng(0).permutation(len(train)) * 100 // len(train)
    sides = np.digitize(sides, [100 * TILE_SHARES[0], 100 * (TILE_SHARES[0] + TILE_SHARES[1])])
    own = np.ones(len(train), bool) if folders or split is None else sides == TRAIN
    rows = np.arange(len(chosen)) if folders or split is None else np.flatnonzero(sides == SIDES.index(split))
    if not len(rows):
        raise InputError(path, f"split {split}", f"no tile of {len(train)}", "at least one")
    mean, std = _statistics(train.picture[own])
    spec = replace(preprocess_from_dict(note["spec"], f"{path}: spec"), mean=mean, std=std)
    full = {
        "format": FORMAT,
        "task": "rf20",
        "kind": "classification",
        "reader": "tiles",
        "labels": list(note["labels"]),
        "preprocess": to_dict(spec),
        "target_low": None,
        "target_high": None,
        "split": {"method": "folders" if folders else "random", "seed": 0, "shares": list(TILE_SHARES)},
        "sources": {"generator": "wavesfm_trainer.signals", "seed": note["seed"], "drawn": note["drawn"]},
    }
    return Examples(
        image=chosen.picture[rows][:, None],
        target=chosen.label[rows],
        log10_rate=chosen.log10_rate[rows],
        snr_db=chosen.snr_db[rows],
        spec=spec,
        note=full,
        source=tuple(f"{path.name}[{row}]" for row in rows),
    )


def _statistics(picture: NDArray[np.uint8]) -> tuple[float, float]:
    counts = np.bincount(picture[:: max(1, len(picture) // 2000)].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float((counts * values).sum() / counts.sum())
    return mean, float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
