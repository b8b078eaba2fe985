# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader of a raw layout yields: one example, its answer, and what must not be on both sides of a split."""

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
NOTE = "generator.json"
NOTE_LIMIT_BYTES = 64 << 20


@dataclass
class Raw:
    """One example as its file has it, before any preparation.

    array: float32 [C, R, W], or a function that loads it (readers of large files give that: a data set is listed before
        it is read, and its training part is read twice).
    target: class index; position in metres, float [D]; channel, float32 [2, A, S * F] (or a function that loads it);
        None for pre-training.
    source: file, and the index in it as file[3]; group: position, person or capture: what must not be on both sides of
        a split, "" where nothing ties examples together; published_split: "train", "test" or "".
    log10_rate: of the sample rate in Hz, 0.0 unknown; snr_db: NaN unknown.
    """

    array: Array | Callable[[], Array]
    target: int | NDArray | Callable[[], NDArray] | None
    source: str
    group: str = ""
    published_split: str = ""
    log10_rate: float = 0.0
    snr_db: float = math.nan

    def load(self, channels: int) -> Array:
        """The array; raises InputError unless it is [channels, R, W] of finite real numbers."""
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
        """The target, loaded where it is a function."""
        return self._loaded(self.target)

    def _loaded(self, value: Any) -> Any:
        try:
            return value() if callable(value) else value
        except OSError as error:  # a file that vanished since it was listed, or a bad disk
            raise InputError(self.source, "file", error.strerror or error, "a file that can be read") from None


class OneShape:
    """Arrays of a layout that gives all of them one shape: InputError for one that has not that of the first loaded."""

    def __init__(self, key: str) -> None:
        self.key, self.first, self.shape = key, "", ()

    def __call__(self, source: object, array: NDArray) -> NDArray:
        """`array`, as it is."""
        if not self.first:
            self.first, self.shape = str(source), array.shape
        if array.shape != self.shape:
            raise InputError(source, self.key, f"shape {list(array.shape)}", f"{list(self.shape)}, as {self.first} has")
        return array


class Reader(Protocol):
    """A raw layout. `read` raises InputError (file, key, found, expected) for a file that is not of this layout."""

    name: str

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """All examples below `root`, in an order that does not depend on the file system."""
        ...


def require_options(task: Task, *known: str) -> None:
    """ConfigurationError for an option of the task that its reader does not have."""
    for key in task.options:
        if key not in known:
            expected = f"one of {', '.join(known)}" if known else f"none with reader {task.reader}"
            raise ConfigurationError(f"task {task.name}", f"options.{key}", "no such option", expected)


def label_index(task: Task, label: str, source: object) -> int:
    """Index of `label` (upper and lower case alike) in the task's labels; raises InputError naming the file."""
    wanted = label.casefold()
    for index, known in enumerate(task.labels):
        if known.casefold() == wanted:
            return index
    raise InputError(source, "label", repr(label), f"one of {', '.join(task.labels)}")


def published_split(path: Path, root: Path) -> str:
    """ "train" or "test" where a folder between `root` and the file begins so, root's own name included; else ""."""
    for part in reversed((root.name, *path.relative_to(root).parts[:-1])):
        for split in ("train", "test"):
            if part.casefold().startswith(split):
                return split
    return ""


def files_below(root: Path, suffixes: tuple[str, ...], expected: str) -> list[Path]:
    """Files at or below `root` that end so, sorted by path; raises InputError when there is none."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(root, "path", "nothing", expected)
    paths = sorted(p for p in root.rglob("*") if p.suffix.casefold() in suffixes and p.is_file())
    if not paths:
        raise InputError(root, "files", f"none that end in {', '.join(suffixes)}", expected)
    return paths


def generator_note(root: Path) -> tuple[Path, dict[str, Any]]:
    """What a generator wrote of its files: their folder, `root` or the one above, and the note; {} for real data.

    Raises InputError for a note that is not JSON as `generators.output.finish` writes it.
    """
    for folder in (root, root.parent):
        path = folder / NOTE
        if not path.is_file():
            continue
        try:
            note = json.loads(path.read_bytes()) if path.stat().st_size <= NOTE_LIMIT_BYTES else None
        except (ValueError, RecursionError) as error:
            raise InputError(path, "contents", str(error)[:160], "JSON") from None
        if not isinstance(note, dict) or not isinstance(note.get("examples"), dict):
            raise InputError(path, "examples", "nothing", "what is true of every file")
        return folder, note
    return root, {}
