# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared tiles of the signal generator, cached as shards so that training reads pictures, not IQ."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import SpectrogramSpec, to_dict
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.tile import prepare

from ..signals.dataset import SignalDataset

log = logging.getLogger(__name__)
SHARD_TILES = 1000
NOTE = "cache.json"


@dataclass(frozen=True)
class Tiles:
    """Tiles in memory.

    picture: uint8 [N, H, W], 0..255 over the spec's range; label: int64 [N], index into LABELS; log10_rate, snr_db:
    float32 [N]; rows: int32 [N], spectrogram rows before the resize, fewer than a full tile's for a partial one.
    """

    picture: NDArray[np.uint8]
    label: NDArray[np.int64]
    log10_rate: NDArray[np.float32]
    snr_db: NDArray[np.float32]
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.label)


def unscaled(spec: SpectrogramSpec) -> SpectrogramSpec:
    """The same preprocessing without the standardisation: values in [0, 1]."""
    return replace(spec, mean=0.0, std=1.0)


def make_shard(dataset: SignalDataset, spec: SpectrogramSpec, first: int, count: int) -> Tiles:
    """Tiles of the data set's examples [first, first + count)."""
    plain = unscaled(spec)
    pictures, labels, rates, snrs, rows = [], [], [], [], []
    for index in range(first, first + count):
        example = dataset[index]
        tile = prepare(example.iq, plain)[0]
        pictures.append(np.rint(tile * 255).astype(np.uint8))
        labels.append(dataset.labels.index(example.label))
        rates.append(np.log10(example.rate_hz))
        snrs.append(example.snr_db)
        frames = (len(example.iq) - spec.fft_size) // spec.hop_samples + 1
        rows.append(min(spec.rows_per_tile, -(-frames // spec.frames_averaged)))
    return Tiles(
        np.stack(pictures),
        np.array(labels, np.int64),
        np.array(rates, np.float32),
        np.array(snrs, np.float32),
        np.array(rows, np.int32),
    )


def _write_shard(directory: str, dataset: SignalDataset, spec: SpectrogramSpec, number: int, count: int) -> str:
    path = Path(directory) / f"shard-{number:05d}.npz"
    if not path.exists() or len(_read_shard(path)["label"]) < count:  # the last shard of a smaller cache grows
        tiles = make_shard(dataset, spec, number * SHARD_TILES, count)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as file:
            np.savez(file, **vars(tiles))
        os.replace(partial, path)
    return str(path)


def write_cache(
    directory: Path, dataset: SignalDataset, spec: SpectrogramSpec, n_tiles: int, workers: int = 1, offset: int = 0
) -> None:
    """Fill `directory` with shards of SHARD_TILES tiles up to n_tiles; shards that exist are kept, so it resumes.

    Raises InputError where the directory has tiles of another spec, seed or list of labels.
    """
    directory.mkdir(parents=True, exist_ok=True)
    drawn = list(dataset.drawn or dataset.labels)
    note = {"spec": to_dict(spec), "labels": list(dataset.labels), "drawn": drawn, "seed": dataset.seed}
    if (directory / NOTE).exists():
        there = read_note(directory)
        for name, value in note.items():
            if there[name] != value:
                raise InputError(directory / NOTE, name, there[name], f"{value}, or another directory")
    (directory / NOTE).write_text(json.dumps(note, indent=1))
    numbers = range(offset, offset + -(-n_tiles // SHARD_TILES))
    counts = {n: min(SHARD_TILES, n_tiles - (n - offset) * SHARD_TILES) for n in numbers}
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_write_shard, str(directory), dataset, spec, n, counts[n]) for n in numbers]
        for job in jobs:
            log.info("wrote %s", job.result())


def read_note(directory: Path) -> dict:
    """What a cache's tiles were made with: spec, labels, classes drawn, seed. Raises InputError."""
    path = directory / NOTE
    try:
        note = json.loads(path.read_text())
        return {name: note[name] for name in ("spec", "labels", "drawn", "seed")}
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a cache of tiles (wavesfm-train tiles makes it)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(path, "contents", repr(error), "spec, labels, drawn and seed as JSON") from None


def _read_shard(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in Tiles.__dataclass_fields__}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, "contents", str(error), "a whole shard (remove it, and it is made again)") from None


def read_cache(directory: Path, max_tiles: int | None = None) -> Tiles:
    """All shards of a cache, refused when there is none."""
    paths = sorted(directory.glob("shard-*.npz"))
    if not paths:
        raise InputError(directory, "shards", "none", "at least one shard-*.npz (wavesfm-train tiles makes them)")
    parts: list[dict[str, NDArray]] = []
    n_read = 0
    for path in paths:
        parts.append(_read_shard(path))
        n_read += len(parts[-1]["label"])
        if max_tiles is not None and n_read >= max_tiles:
            break
    return Tiles(**{name: np.concatenate([part[name] for part in parts])[:max_tiles] for name in parts[0]})


def statistics(tiles: Tiles) -> tuple[float, float]:
    """Mean and standard deviation of the pictures in [0, 1], over a training cache."""
    sample = tiles.picture[:: max(1, len(tiles) // 2000)].astype(np.float32) / 255
    return float(sample.mean()), float(sample.std())
