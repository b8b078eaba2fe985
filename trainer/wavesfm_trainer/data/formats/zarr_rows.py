# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a Zarr array of version 2 on disk, checked before anything is allocated; read with the package `zarr`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError, InputError

NOTE_LIMIT_BYTES = 256 << 20


class ZarrRows:
    """Rows of one array, read one by one.

    Parameters
    ----------
    path : folder of the array, with .zarray and .zattrs.
    row_limit : most numbers in a row.

    Attributes
    ----------
    shape : of the array.
    attributes : contents of .zattrs.

    Raises
    ------
    InputError : no such folder, no numbers, or rows or chunks that are larger than the limit.
    """

    def __init__(self, path: Path, row_limit: int) -> None:
        note = _json(path / ".zarray")
        self.path = path
        self.attributes: dict[str, Any] = _json(path / ".zattrs") if (path / ".zattrs").is_file() else {}
        shape, chunks = (note.get(name) for name in ("shape", "chunks"))
        if note.get("zarr_format") != 2 or not _are_sizes(shape) or not _are_sizes(chunks) or len(shape) != len(chunks):
            raise InputError(
                path, ".zarray", f"format {note.get('zarr_format')}, shape {shape}", "an array of format 2"
            )
        self.shape: tuple[int, ...] = tuple(shape)
        try:
            dtype = np.dtype(note.get("dtype"))
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind not in "fiuc":
            raise InputError(path, "dtype", note.get("dtype"), "numbers")
        for name, size in (("row", math.prod(self.shape[1:])), ("chunk", math.prod(chunks) // max(1, chunks[0]))):
            if not 0 < size <= row_limit:
                raise InputError(path, name, f"{size} numbers", f"1 to {row_limit}")
        if math.prod(chunks) * dtype.itemsize > 1 << 30:
            raise InputError(path, "chunks", f"{math.prod(chunks) * dtype.itemsize} bytes", "at most 1 GiB")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> NDArray:
        try:
            import zarr
        except ImportError:
            expected = "the package zarr (pip install zarr), which reads these folders"
            raise ConfigurationError(self.path, "zarr", "not installed", expected) from None
        try:
            return np.asarray(zarr.open(str(self.path), mode="r")[row])  # type: ignore[index]
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(self.path, f"row {row}", f"unreadable ({error})"[:160], "a whole array") from None


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(n) is int and 0 < n < 1 << 40 for n in values)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(path, "file", "nothing", "JSON of a Zarr array")
    try:
        values = json.loads(path.read_bytes()) if path.stat().st_size <= NOTE_LIMIT_BYTES else None
    except (ValueError, RecursionError) as error:
        raise InputError(path, "contents", str(error)[:160], "JSON") from None
    if not isinstance(values, dict):
        raise InputError(path, "contents", "something else, or too large", "a JSON object")
    return values
