# SPDX-License-Identifier: GPL-3.0-or-later
"""The .h5 caches of the WavesFM authors: prepared arrays and labels, one file per data set or per example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from ..formats.hdf5_rows import Rows, open_hdf5
from ..tasks import Task
from .base import Raw, files_below, label_index, published_split

ARRAYS = ("csi", "image", "sample", "features")
_LABEL = re.compile(r"([A-Za-z]+)")


class AuthorsCacheReader:
    """Prepared arrays of the authors' scripts.

    Read are `csi`, `image` or `features` [N, C, R, W] or IQ `sample` [N, 2, C, T], with `label` [N] or `position` [N,
    D], and `source_file` and `snr` [N] if present; also single examples (`features` [C, R, W], `position` [D]). IQ has
    two channels, I and Q, with antennas as rows.

    A cache contains both published parts; `source_file`, if present, tells them apart. A label that contradicts its
    file's name is refused. The group is the position (positions recur at every SNR), else the source file if several
    examples share it.
    """

    name = "authors_cache"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples of every .h5 file; raises InputError for other layouts."""
        for path in files_below(root, (".h5", ".hdf5"), "the authors' .h5 caches"):
            yield from _read_file(path, root, task)


def _read_file(path: Path, root: Path, task: Task) -> Iterator[Raw]:
    with open_hdf5(path) as file:
        shapes = {key: file[key].shape for key in file if hasattr(file[key], "shape")}
        files = _texts(file, path) if "source_file" in shapes else []
    key = next((name for name in ARRAYS if name in shapes), None)
    if key is None:
        raise InputError(path, "keys", ", ".join(shapes) or "none", f"one of {', '.join(ARRAYS)}")
    answer = {"classification": "label", "position": "position"}.get(task.kind)
    if answer is not None and answer not in shapes:
        raise InputError(path, "keys", ", ".join(shapes), f"{answer}, for a task of kind {task.kind}")
    if len(shapes[key]) == 3:
        yield _single(path, root, key, answer, task)
        return
    yield from _many(path, root, task, key, answer, files, "snr" in shapes)


def _single(path: Path, root: Path, key: str, answer: str | None, task: Task) -> Raw:
    rows = Rows(path, key, (task.channels, None, None))
    target, group = None, ""
    if answer == "label":
        raise InputError(path, key, "one example", "[N, C, R, W] with labels [N]")
    if answer == "position":
        position = Rows(path, answer, (None,))
        target, group = _position(np.array([position[i] for i in range(len(position))]), task, path)
    return Raw(partial(_stacked, rows), target, str(path), group, published_split(path, root))


def _many(
    path: Path, root: Path, task: Task, key: str, answer: str | None, files: list[str], has_snr: bool
) -> Iterator[Raw]:
    rows = Rows(path, key, (None, task.channels, None, None))
    answers = (
        None if answer is None else Rows(path, answer, (len(rows), None) if answer == "position" else (len(rows),))
    )
    snr = Rows(path, "snr", (len(rows),)) if has_snr else None
    if files and len(files) != len(rows):
        raise InputError(path, "source_file", f"{len(files)} names", f"{len(rows)}")
    shared = len(set(files)) < len(files)
    for i in range(len(rows)):
        source, target, group, split = f"{path}[{i}]", None, "", published_split(path, root)
        if files:
            group, split = files[i] if shared else "", split or _split_of(files[i])
        if answer == "label":
            target = _label(answers[i], task, files[i] if files else "", source)
        elif answer == "position":
            target, group = _position(answers[i], task, source)
        snr_db = float(snr[i]) if snr is not None else float("nan")
        yield Raw(partial(rows.__getitem__, i), target, source, group, split, snr_db=snr_db)


def _stacked(rows: Rows) -> NDArray:
    return np.stack([rows[i] for i in range(len(rows))])


def _label(value: NDArray, task: Task, file: str, source: str) -> int:
    if value.dtype.kind not in "iu" or not 0 <= value < len(task.labels):
        raise InputError(source, "label", value, f"0 to {len(task.labels) - 1}")
    letters = _LABEL.match(PurePosixPath(file).name)
    known = {label.casefold() for label in task.labels}
    if letters and letters.group().casefold() in known and label_index(task, letters.group(), source) != value:
        raise InputError(source, "label", f"{value} ({task.labels[value]}) for {file}", "labels in the cache's order")
    return int(value)


def _position(value: NDArray, task: Task, source: object) -> tuple[NDArray[np.float32], str]:
    if value.ndim != 1 or len(value) < len(task.axes) or not np.isfinite(value).all():
        raise InputError(source, "position", value, f"{len(task.axes)} finite coordinates in metres")
    group = ",".join(f"{round(float(metres), 3) + 0.0:.3f}" for metres in value)
    return value[: len(task.axes)].astype(np.float32), group


def _split_of(file: str) -> str:
    parts = PurePosixPath(file.replace("\\", "/")).parts[:-1]
    return next((split for part in reversed(parts) for split in ("train", "test") if part.startswith(split)), "")


def _texts(file, path: Path) -> list[str]:
    dataset = file["source_file"]
    if dataset.ndim != 1 or dataset.dtype.kind not in "OS" or dataset.size > 10_000_000:
        raise InputError(path, "source_file", f"{dataset.dtype} {list(dataset.shape)}", "names [N]")
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in dataset[()]]


READER = AuthorsCacheReader()
