# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared data sets: one HDF5 file each, written atomically, and read whole into memory for training."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from wavesfm_core.atomic_file import atomic_path
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import preprocess_from_dict, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare

from .examples import FORMAT, Examples
from .formats.hdf5_rows import open_hdf5
from .readers.base import Raw
from .splits import SIDES, TRAIN, groups_on_two_sides, split_examples
from .tasks import Task
from .tile_dataset import read_tile_examples

log = logging.getLogger(__name__)
SPARE_BYTES = 1 << 20  # for the structures of HDF5
COLUMNS = {"split": "uint8", "log10_rate": "float32", "snr_db": "float32", "source": "text", "group": "text"}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training part."""

    low: float
    """Lowest value after decibels and resize."""
    high: float
    """Highest value after decibels and resize."""
    mean: tuple[float, ...]
    """Mean of each channel, after `low` and `high` are mapped to the task's range."""
    std: tuple[float, ...]
    """Standard deviation of each channel, on the same scale."""


def write_cache(
    path: Path,
    task: Task,
    raws: Iterable[Raw],
    split: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    sources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Prepare raw examples into one file, which appears whole or not at all.

    The training part is read twice: for the statistics, one example at a time, then with all others for their images.

    Parameters
    ----------
    path : file to write.
    task : how examples are prepared.
    raws : the examples.
    split : method of the split; None: the task's.
    seed : of the split.
    progress : called with (examples read, examples to read).
    sources : added to the note's "sources".

    Returns
    -------
    The note, stored as an attribute of the file: format, task, kind, reader, labels, axes, grid, preprocess (as in a
    bundle), target_low and target_high (of the training part; None for labels), split {method, seed, shares, sizes,
    groups_on_two_sides}, sources {...}.

    Raises
    ------
    InputError : no examples, an array or target of the wrong shape or with values that are not finite, a constant
        channel, a class that a side lacks, or a full disk.
    """
    path, listed = Path(path), list(raws)
    if not path.parent.is_dir():
        raise InputError(path.parent, "folder", "nothing", "a folder for the cache")
    method = split or task.split
    sides = split_examples(listed, task, method, seed)
    training = [raw for raw, side in zip(listed, sides) if side == TRAIN]
    count = _Counter(progress, len(training) + len(listed))
    targets = _Targets(task, training)
    measured = measure(task, training, count)
    spec = ImageSpec(task.channels, measured.low, measured.high, measured.mean, measured.std, *task.range,
                     task.decibel_floor, task.height, task.width)  # fmt: skip
    note = {
        "format": FORMAT,
        **{name: getattr(task, name) for name in ("kind", "reader", "labels", "axes", "grid")},
        "task": task.name,
        "preprocess": to_dict(spec),
        "target_low": targets.low,
        "target_high": targets.high,
        "split": {
            "method": method,
            "seed": seed,
            "shares": task.shares,
            "sizes": {name: int((sides == i).sum()) for i, name in enumerate(SIDES)},
            "groups_on_two_sides": groups_on_two_sides(listed, sides),
        },
        "sources": {"examples": len(listed), **(sources or {})},
    }
    note = json.loads(json.dumps(note))
    columns = _columns(listed, sides)
    n_bytes = len(listed) * (2 * math.prod(spec.tile_shape) + 8 * targets.size)
    n_bytes += sum(column.nbytes for column in columns.values()) + len(json.dumps(note)) + SPARE_BYTES
    with whole_file(path, n_bytes) as partial, h5py.File(partial, "r+") as file:
        file.attrs["note"] = json.dumps(note)
        for name, column in columns.items():
            file.create_dataset(name, data=column)
        _write_examples(file, listed, targets, spec, count)
    return note


def measure(task: Task, training: Sequence[Raw], count: Callable[[], None] = lambda: None) -> Statistics:
    """Statistics of training examples, with one of them in memory at a time.

    Parameters
    ----------
    task : `task.bounds` replace the measured lowest and highest value.
    training : examples of the training part.
    count : called after each example.

    Raises
    ------
    InputError : all values are equal, or a channel is constant.
    """
    plain = ImageSpec(task.channels, 0.0, 1.0, (0.0,) * task.channels, (1.0,) * task.channels,
                      decibel_floor=task.decibel_floor, height=task.height, width=task.width)  # fmt: skip
    lows, highs, means, variances = [], [], [], []
    for raw in training:
        image = prepare(raw.load(task.channels), plain, raw.source).astype(np.float64)
        lows.append(image.min())
        highs.append(image.max())
        means.append(image.mean(axis=(1, 2)))
        variances.append(image.var(axis=(1, 2)))
        count()
    low, high = task.bounds or (float(min(lows)), float(max(highs)))
    if not low < high:
        raise InputError(f"task {task.name}", "values", f"all {low} in the training split", "values that differ")
    std = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    for channel in np.flatnonzero(std <= 1e-9 * (high - low)):
        where = f"task {task.name}, channel {channel}"
        raise InputError(where, "values", "no change in the training split", "values that differ")
    scale = (task.range[1] - task.range[0]) / (high - low)
    mean = (np.mean(means, axis=0) - low) * scale + task.range[0]
    return Statistics(low, high, tuple(mean.tolist()), tuple((std * scale).tolist()))


class _Targets:
    """Shape and dtype of the targets, and extremes of the training part's targets."""

    def __init__(self, task: Task, training: Sequence[Raw]) -> None:
        antennas, symbols, subcarriers = task.grid or (0, 0, 0)
        self.shape = {
            "classification": (),
            "position": (len(task.axes),),
            "channel": (2, antennas, symbols * subcarriers),
        }.get(task.kind)
        self.task = task
        self.dtype = np.int64 if task.kind == "classification" else np.float32
        self.size = 0 if self.shape is None else int(np.prod(self.shape)) + 1
        self.low: list[float] | None = None
        self.high: list[float] | None = None
        if task.kind == "position":
            found = np.stack([self.of(raw) for raw in training])
            self.low, self.high = found.min(axis=0).tolist(), found.max(axis=0).tolist()
            for axis, low, high in zip(task.axes, self.low, self.high):
                if not low < high:
                    where = f"task {task.name}, axis {axis}"
                    raise InputError(where, "position", f"always {low} m in training", "coordinates that differ")
        elif task.kind == "channel":
            extremes = [(float(t.min()), float(t.max())) for t in map(self.of, training)]
            self.low, self.high = [min(low for low, _ in extremes)], [max(high for _, high in extremes)]

    def of(self, raw: Raw) -> NDArray:
        """The example's target, checked; raises InputError."""
        target = np.asarray(raw.load_target(), None if raw.target is None else self.dtype)
        if target.shape != self.shape:
            raise InputError(raw.source, "target", f"shape {list(target.shape)}", f"shape {list(self.shape or ())}")
        if not np.isfinite(target).all():
            raise InputError(raw.source, "target", "values that are not finite", "finite numbers")
        return target


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _columns(raws: Sequence[Raw], sides: NDArray[np.uint8]) -> dict[str, NDArray]:
    return {
        "split": sides,
        "log10_rate": np.array([raw.log10_rate for raw in raws], np.float32),
        "snr_db": np.array([raw.snr_db for raw in raws], np.float32),
        "source": np.char.encode([raw.source for raw in raws], "utf-8"),
        "group": np.char.encode([raw.group or " " for raw in raws], "utf-8"),  # HDF5 has no text of length 0
    }


def _write_examples(
    file: h5py.File, raws: Sequence[Raw], targets: _Targets, spec: ImageSpec, count: Callable[[], None]
) -> None:
    plain = spec.unscaled()
    # Contiguous, not chunked: an example is one read, and a split a few.
    images = file.create_dataset("image", (len(raws), *spec.tile_shape), np.float16)
    answers = None
    if targets.shape is not None:
        answers = file.create_dataset("target", (len(raws), *targets.shape), targets.dtype)
    for row, raw in enumerate(raws):
        image = prepare(raw.load(spec.channels), plain, raw.source)
        if np.abs(image).max() > np.finfo(np.float16).max:
            expected = "values in the range of the training part"
            raise InputError(raw.source, "values", f"{np.abs(image).max():.3g} times its range", expected)
        images[row] = image.astype(np.float16)
        if answers is not None:
            answers[row] = targets.of(raw)
        count()


@contextlib.contextmanager
def whole_file(path: Path, n_bytes: int, userblock: int = 0) -> Iterator[Path]:
    """An empty HDF5 file that replaces `path` when the block ends without an exception.

    Its bytes are reserved before HDF5 opens it, because the library crashes if the disk fills up while it writes.

    Parameters
    ----------
    path : file to write.
    n_bytes : bytes to reserve.
    userblock : bytes before HDF5's own, for another header.

    Yields
    ------
    The scratch file to fill.

    Raises
    ------
    InputError : the disk has no room for n_bytes.
    """
    empty = io.BytesIO()
    h5py.File(empty, "w", userblock_size=userblock).close()
    try:
        with atomic_path(path) as scratch:
            with scratch.open("wb", buffering=0) as file:
                file.write(empty.getvalue())
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            yield scratch
    except OSError as error:
        raise InputError(path, "disk", error.strerror or error, f"room for {n_bytes} bytes") from None


def read_cache(path: Path, split: str | None = None) -> Examples:
    """Examples of a prepared data set in memory.

    Parameters
    ----------
    path : a file of `write_cache`, or a directory of tile shards (see `tile_dataset.read_tile_examples`).
    split : "train", "validation" or "test"; None: all.

    Raises
    ------
    InputError : no such data set, a truncated or foreign file, or an empty split.
    ConfigurationError : an unknown split.
    """
    path = Path(path)
    if split is not None and split not in SIDES:
        raise ConfigurationError(path, "split", repr(split), f"one of {', '.join(SIDES)}")
    if path.is_dir():
        return read_tile_examples(path, split)
    with open_hdf5(path) as file:
        note = _read_note(file, path)
        try:
            return _read_file(file, path, note, split)
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise InputError(path, "contents", f"unreadable ({error})"[:160], "a whole cache") from None


def read_note(path: Path) -> dict[str, Any]:
    """The note of a prepared file, see `write_cache`; raises InputError."""
    with open_hdf5(Path(path)) as file:
        return _read_note(file, Path(path))


def _read_note(file: h5py.File, path: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.attrs["note"])
        found = note["format"]
    except (KeyError, ValueError, TypeError, OSError):
        raise InputError(path, "note", "nothing", "a cache (wavesfm-train data prepare makes it)") from None
    if found != FORMAT:
        raise InputError(path, "format", found, str(FORMAT))
    for name in ("task", "kind", "labels", "preprocess", "target_low", "target_high", "split", "sources"):
        if name not in note:
            raise InputError(path, f"note: {name}", "nothing", "a value")
    return note


def _read_file(file: h5py.File, path: Path, note: dict[str, Any], split: str | None) -> Examples:
    spec = preprocess_from_dict(note["preprocess"], f"{path}: preprocess")
    count = _check_shapes(file, path, note, spec)
    sides = file["split"][:]
    rows = np.arange(count) if split is None else np.flatnonzero(sides == SIDES.index(split))
    if not len(rows):
        raise InputError(path, f"split {split}", "no examples", "at least one")
    rate, snr = (_rows_of(file[name], rows) for name in ("log10_rate", "snr_db"))
    return Examples(
        image=_rows_of(file["image"], rows),
        target=_rows_of(file["target"], rows) if "target" in file else None,
        log10_rate=rate if rate.any() else None,
        snr_db=snr if np.isfinite(snr).any() else None,
        spec=spec,
        note=note,
        source=tuple(_texts(file["source"], rows)),
        group=tuple(_texts(file["group"], rows)),
    )


def _check_shapes(file: h5py.File, path: Path, note: dict[str, Any], spec: ImageSpec | SpectrogramSpec) -> int:
    """Number of examples, after every data set was found with its shape, dtype and bytes."""
    count = len(file["image"]) if "image" in file and file["image"].ndim else 0
    expected: dict[str, tuple[tuple[int, ...] | None, str]] = {
        "image": ((count, *spec.tile_shape), "float16"),
        **{name: ((count,), kind) for name, kind in COLUMNS.items()},
    }
    if note["kind"] != "pretraining":
        shape = None if "target" not in file else (count, *file["target"].shape[1:])
        expected["target"] = (shape, "int64" if note["kind"] == "classification" else "float32")
    for name, (shape, dtype) in expected.items():
        if name not in file or shape is None:
            raise InputError(path, name, "nothing", "a data set")
        found_dtype = "text" if file[name].dtype.kind == "S" else str(file[name].dtype)
        if file[name].shape != shape or found_dtype != dtype or not count:
            found = f"{found_dtype} {list(file[name].shape)}"
            raise InputError(path, name, found, f"{dtype} {list(shape)}, at least one")
    claimed = sum(file[name].nbytes for name in ("image", "target") if name in file)
    if claimed > os.path.getsize(path):
        raise InputError(path, "size", f"{os.path.getsize(path)} bytes", f"{claimed}, the size of its arrays")
    if note["kind"] == "classification":
        labels = file["target"][:]
        if labels.ndim != 1 or labels.min() < 0 or labels.max() >= len(note["labels"]):
            raise InputError(path, "target", f"{labels.min()} to {labels.max()}", f"0 to {len(note['labels']) - 1}")
    return count


def _rows_of(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray:
    """Rows in ascending order, read into one array, one call for each run of consecutive rows."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    for start, stop in zip(starts, [*starts[1:], len(rows)]):
        dataset.read_direct(out, np.s_[rows[start] : rows[stop - 1] + 1], np.s_[start:stop])
    return out


def _texts(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> list[str]:
    texts = dataset[:]
    return [texts[row].decode("utf-8", "replace").rstrip() for row in rows]
