# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of a reader of raw files, and what readers share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError, InputError

from ..tasks import Task

Array = NDArray[np.float32]
GENERATOR_NOTE = "generator.json"
NOTE_LIMIT_BYTES = 64 << 20


@dataclass
class Raw:
    """One example as stored in its file, before any preparation."""

    array: Array | Callable[[], Array]
    """float32 [C, R, W], or a function that loads it. Readers of large files give a function: examples are listed
    before they are read, and the training part is read twice.
    """
    target: int | NDArray | Callable[[], NDArray] | None
    """Class index; position in metres, float [D]; channel, float32 [2, A, S * F], or a function that loads it; None for
    pre-training.
    """
    source: str
    """File and index of the example, as file[3]."""
    group: str = ""
    """Position, person or capture, whose examples must be on one side of a split; "" if the example is independent."""
    published_split: str = ""
    """Published part: "train", "test" or ""."""
    log10_rate: float = 0.0
    """log10 of the sample rate in Hz; 0.0 unknown."""
    snr_db: float = math.nan
    """Signal-to-noise ratio in dB; NaN unknown."""

    def load(self, channels: int) -> Array:
        """The array [channels, R, W].

        Raises
        ------
        InputError : another shape, or values that are not finite real numbers.
        """
        array = np.asarray(self._loaded(self.array))
        if array.ndim != 3 or array.shape[0] != channels or not array.size:
            raise InputError(self.source, "shape", list(array.shape), f"[{channels}, rows, columns]")
        if array.dtype.kind not in "fiu":
            raise InputError(self.source, "numbers", array.dtype, "real numbers")
        with np.errstate(over="ignore"):  # infinite then, and refused below
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise InputError(self.source, "values", f"{bad} of {array.size} not finite in float32", "finite numbers")
        return array

    def load_target(self) -> int | NDArray | None:
        """The target, loaded if it is a function."""
        return self._loaded(self.target)

    def _loaded(self, value: Any) -> Any:
        try:
            return value() if callable(value) else value
        except OSError as error:  # the file was removed after it was listed, or the disk fails
            raise InputError(self.source, "file", error.strerror or error, "a file that can be read") from None


class OneShape:
    """Check that all arrays of a data set have the shape of the first one loaded.

    Parameters
    ----------
    key : name of the array, for errors.
    """

    def __init__(self, key: str) -> None:
        self.key, self.first, self.shape = key, "", ()

    def __call__(self, source: object, array: NDArray) -> NDArray:
        """`array` unchanged; raises InputError if its shape differs."""
        if not self.first:
            self.first, self.shape = str(source), array.shape
        if array.shape != self.shape:
            raise InputError(source, self.key, f"shape {list(array.shape)}", f"{list(self.shape)}, as {self.first} has")
        return array


class Reader(Protocol):
    """A reader of one raw layout."""

    name: str
    """Name of the reader in a task file."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """All examples below `root`, in an order that does not depend on the file system.

        Raises
        ------
        InputError : a file that is not of this layout (file, key, found, expected).
        """
        ...


def require_options(task: Task, *known: str) -> None:
    """Raise ConfigurationError for an option of the task that its reader does not have."""
    for key in task.options:
        if key not in known:
            expected = f"one of {', '.join(known)}" if known else f"none with reader {task.reader}"
            raise ConfigurationError(f"task {task.name}", f"options.{key}", "no such option", expected)


def label_index(task: Task, label: str, source: object) -> int:
    """Index of `label` among the task's labels, ignoring case; raises InputError naming the file."""
    wanted = label.casefold()
    for index, known in enumerate(task.labels):
        if known.casefold() == wanted:
            return index
    raise InputError(source, "label", repr(label), f"one of {', '.join(task.labels)}")


def published_split(path: Path, root: Path) -> str:
    """ "train" or "test" if `root` or a folder between it and the file has a name with this prefix; else ""."""
    for part in reversed((root.name, *path.relative_to(root).parts[:-1])):
        for split in ("train", "test"):
            if part.casefold().startswith(split):
                return split
    return ""


def files_below(root: Path, suffixes: tuple[str, ...], expected: str) -> list[Path]:
    """Files at or below `root` with one of the suffixes, sorted by path; raises InputError if there is none."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(root, "path", "nothing", expected)
    paths = sorted(p for p in root.rglob("*") if p.suffix.casefold() in suffixes and p.is_file())
    if not paths:
        raise InputError(root, "files", f"none that end in {', '.join(suffixes)}", expected)
    return paths


def generator_note(root: Path) -> tuple[Path, dict[str, Any]]:
    """The note of generated files (see `generators.output.finish`).

    Parameters
    ----------
    root : directory of the files or of a part of them.

    Returns
    -------
    The folder of the note, `root` or its parent, and the note; an empty one for real data.

    Raises
    ------
    InputError : a note that is not JSON as a generator writes it.
    """
    for folder in (root, root.parent):
        path = folder / GENERATOR_NOTE
        if not path.is_file():
            continue
        try:
            note = json.loads(path.read_bytes()) if path.stat().st_size <= NOTE_LIMIT_BYTES else None
        except (ValueError, RecursionError) as error:
            raise InputError(path, "contents", str(error)[:160], "JSON") from None
        if not isinstance(note, dict) or not isinstance(note.get("examples"), dict):
            raise InputError(path, "examples", "nothing", "an object with an entry for every file")
        return folder, note
    return root, {}
