# SPDX-License-Identifier: GPL-3.0-or-later
"""Spectrogram tiles of the signal generator as shards on disk, and as examples for training."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.atomic_file import atomic_path, write_atomically
from wavesfm_core.bundle.npz import read_npz
from wavesfm_core.bundle.spec import preprocess_from_dict, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare

from .examples import FORMAT, Examples
from .splits import SIDES, TRAIN

if TYPE_CHECKING:
    from ..signals.dataset import Example, SignalDataset

log = logging.getLogger(__name__)
SHARD_TILES = 1000
NOTE = "cache.json"
NOTE_FIELDS = ("spec", "labels", "drawn", "seed")
TILE_SHARES = (0.9, 0.05, 0.05)  # of training, validation and test in a single directory
REPLACEMENTS = 20  # examples that are tried in place of one that is mostly digital silence
REPLACEMENT_STRIDE = 1 << 40  # their distance in turns of the classes, beyond every index of a data set
STATISTICS_TILES = 2000  # tiles that mean and standard deviation are taken of, at most 2 x this number


@dataclass(frozen=True)
class Tiles:
    """N tiles in memory."""

    picture: NDArray[np.uint8]
    """[N, H, W]; 0 to 255 is the spec's range."""
    label: NDArray[np.int64]
    """[N], index into the labels of the directory."""
    log10_rate: NDArray[np.float32]
    """[N], log10 of the sample rate in Hz."""
    snr_db: NDArray[np.float32]
    """[N], signal-to-noise ratio in dB."""
    rows: NDArray[np.int32]
    """[N], spectrogram rows before the resize; a partial tile has fewer than a full one."""

    def __len__(self) -> int:
        return len(self.label)


def make_shard(dataset: SignalDataset, spec: SpectrogramSpec, first: int, count: int) -> Tiles:
    """Prepare examples `first` to `first + count` - 1 of the signal generator."""
    plain = spec.unscaled()
    pictures, labels, rates, snrs, rows = [], [], [], [], []
    for index in range(first, first + count):
        example, tile = _example_and_tile(dataset, plain, index)
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


def _example_and_tile(dataset: SignalDataset, spec: SpectrogramSpec, index: int) -> tuple[Example, NDArray[np.float32]]:
    """Example `index` and its tile [H, W].

    A recording that was cut around its bursts may have too few samples outside digital silence for a tile. A receiver
    gets no tile of it either; another example of its class replaces it.
    """
    turns = len(dataset.drawn or dataset.labels)
    for replacement in range(REPLACEMENTS):
        example = dataset[index + replacement * turns * REPLACEMENT_STRIDE]
        try:
            tile = prepare(example.iq, spec, f"example {index}")[0]
        except InputError as error:
            log.info("%s; replaced", error)
            continue
        return example, tile
    raise InputError(f"example {index}", "samples", f"digital silence in {REPLACEMENTS} draws", "a signal")


def write_shards(
    directory: Path, dataset: SignalDataset, spec: SpectrogramSpec, n_tiles: int, workers: int = 1, offset: int = 0
) -> None:
    """Write shards of SHARD_TILES tiles; complete shards are kept, so that an interrupted run resumes.

    Parameters
    ----------
    directory : of the shards; made if needed.
    dataset : source of the recordings.
    spec : preprocessing of the tiles.
    n_tiles : number of tiles.
    workers : processes.
    offset : number of the first shard.

    Raises
    ------
    InputError : the directory has tiles of another spec, seed or list of labels.
    """
    begin_directory(directory, spec, dataset.labels, dataset.drawn or dataset.labels, dataset.seed)
    numbers = range(offset, offset + -(-n_tiles // SHARD_TILES))
    counts = {n: min(SHARD_TILES, n_tiles - (n - offset) * SHARD_TILES) for n in numbers}
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_write_shard, str(directory), dataset, spec, n, counts[n]) for n in numbers]
        for job in jobs:
            log.info("wrote %s", job.result())


def begin_directory(
    directory: Path, spec: SpectrogramSpec, labels: Sequence[str], drawn: Sequence[str], seed: int
) -> None:
    """Make a directory of shards with its note.

    Raises
    ------
    InputError : the directory has tiles of another spec, seed or list of labels.
    """
    directory.mkdir(parents=True, exist_ok=True)
    note = {"spec": to_dict(spec), "labels": list(labels), "drawn": list(drawn), "seed": seed}
    if (directory / NOTE).exists():
        present = read_shard_note(directory)
        for name, value in note.items():
            if present[name] != value:
                raise InputError(directory / NOTE, name, present[name], f"{value}, or another directory")
    write_atomically(directory / NOTE, json.dumps(note, indent=1))


def write_shard(directory: Path, number: int, count: int, make: Callable[[], Tiles]) -> Path:
    """Write what `make` returns as shard `number`, unless that has `count` tiles already; returns its path."""
    path = directory / f"shard-{number:05d}.npz"
    if not path.exists() or len(_read_shard(path)["label"]) < count:  # the last shard of a smaller data set grows
        with atomic_path(path) as scratch, scratch.open("wb") as file:
            np.savez(file, **vars(make()))
    return path


def _write_shard(directory: str, dataset: SignalDataset, spec: SpectrogramSpec, number: int, count: int) -> str:
    """Shard `number` of a signal generator's data set, in a process of its own; returns its path."""
    make = partial(make_shard, dataset, spec, number * SHARD_TILES, count)
    return str(write_shard(Path(directory), number, count, make))


def shard_directories(directory: Path) -> list[Path]:
    """The directory itself if it has a note, or else the folders in it that have one.

    Raises
    ------
    InputError : neither, or folders of other labels or another spec than the first.
    """
    if (directory / NOTE).is_file():
        return [directory]
    folders = sorted(path.parent for path in directory.glob(f"*/{NOTE}"))
    if not folders:
        raise InputError(directory / NOTE, "file", "nothing", "a directory of tiles (made by wavesfm-train tiles)")
    notes = [_read_note(folder / NOTE) for folder in folders]
    for folder, note in zip(folders, notes, strict=True):
        for name in ("spec", "labels"):
            if note[name] != notes[0][name]:
                raise InputError(folder / NOTE, name, note[name], f"{folders[0]}'s, {notes[0][name]}")
    return folders


def read_shard_note(directory: Path) -> dict[str, Any]:
    """How the tiles of a directory were made: spec, labels, drawn (classes that take turns) and seed.

    Of a directory of folders: the first one's.

    Raises
    ------
    InputError : no such file, or not JSON with these keys.
    """
    return _read_note(shard_directories(directory)[0] / NOTE)


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return {name: note[name] for name in NOTE_FIELDS}
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a directory of tiles (made by wavesfm-train tiles)") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(path, "contents", repr(error), "spec, labels, drawn and seed as JSON") from None


def _read_shard(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a shard; InputError for one that is damaged."""
    try:
        return read_npz(path, tuple(Tiles.__dataclass_fields__))
    except InputError as error:
        expected = "a whole shard (delete it, and wavesfm-train tiles makes it again)"
        raise InputError(path, error.field, error.found, expected) from None


def read_shards(directory: Path, max_tiles: int | None = None) -> Tiles:
    """All tiles of a directory or of its folders, or the first `max_tiles`; raises InputError if there is none."""
    paths = sorted(directory.glob("shard-*.npz"))
    if not paths and any(directory.glob(f"*/{NOTE}")):
        paths = [path for folder in shard_directories(directory) for path in sorted(folder.glob("shard-*.npz"))]
    if not paths:
        raise InputError(directory, "shards", "none", "at least one shard-*.npz (made by wavesfm-train tiles)")
    parts: list[dict[str, NDArray[Any]]] = []
    n_read = 0
    for path in paths:
        parts.append(_read_shard(path))
        n_read += len(parts[-1]["label"])
        if max_tiles is not None and n_read >= max_tiles:
            break
    return Tiles(**{name: np.concatenate([part[name] for part in parts])[:max_tiles] for name in parts[0]})


def read_tile_examples(path: Path, split: str | None) -> Examples:
    """Tiles of one side of the split as examples, standardised by the training tiles.

    Parameters
    ----------
    path : a directory with the folders train, validation and test, or a single directory of shards, whose tiles are
        split 90 : 5 : 5 at random (they are independent recordings).
    split : "train", "validation" or "test"; None: all tiles of a single directory.

    Raises
    ------
    ConfigurationError : no split for a directory of folders.
    InputError : no tiles, damaged shards, or folders of different labels.
    """
    folders = (path / "train").is_dir()
    train = read_shards(path / "train" if folders else path)
    note = read_shard_note(path / "train" if folders else path)
    if (folders and split == "train") or not folders:
        chosen = train
    elif split is None:
        raise ConfigurationError(path, "split", "none", f"one of {', '.join(SIDES)}, the folders of the directory")
    else:
        chosen = read_shards(path / split)
        if (found := read_shard_note(path / split)["labels"]) != note["labels"]:
            raise InputError(path / split / NOTE, "labels", found, f"those of train, {note['labels']}")
    sides = np.random.default_rng(0).permutation(len(train)) * 100 // len(train)
    sides = np.digitize(sides, [100 * TILE_SHARES[0], 100 * (TILE_SHARES[0] + TILE_SHARES[1])])
    in_training = np.ones(len(train), bool) if folders or split is None else sides == TRAIN
    rows = np.arange(len(chosen)) if folders or split is None else np.flatnonzero(sides == SIDES.index(split))
    if not len(rows):
        raise InputError(path, f"split {split}", f"no tile of {len(train)}", "at least one")
    mean, std = _statistics(train.picture[in_training])
    spec = replace(preprocess_from_dict(note["spec"], f"{path}: spec"), mean=mean, std=std)
    return Examples(
        image=chosen.picture[rows][:, None],
        target=chosen.label[rows],
        log10_rate=chosen.log10_rate[rows],
        snr_db=chosen.snr_db[rows],
        spec=spec,
        note=_examples_note(note, spec, folders),
        source=tuple(f"{path.name}[{row}]" for row in rows),
    )


def _examples_note(note: dict[str, Any], spec: SpectrogramSpec, folders: bool) -> dict[str, Any]:
    """The note that examples of a prepared file have (see `cache.write_cache`), for tiles."""
    return {
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


def _statistics(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of pictures [N, H, W], scaled to 0..1."""
    counts = np.bincount(picture[:: max(1, len(picture) // STATISTICS_TILES)].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float((counts * values).sum() / counts.sum())
    return mean, float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
