# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of HDF5 data sets (MATLAB v7.3 files too): checked before anything is allocated, and read by blocks."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

BLOCK_BYTES = 64 << 20
ROW_BYTES = 1 << 30


class Rows:
    """Rows of one data set: `rows[i]`, i >= 0, in the file's dtype; complex where MATLAB stored real and imag.

    A block of rows is read at a time and kept, so that rows in order are read and decompressed once. The file is open
    only while a block is read.

    Parameters
    ----------
    path : of the file.
    key : name of the data set.
    shape : expected shape, None for any size.

    Raises
    ------
    InputError : no HDF5 file, no such key, another shape, no numbers, or a row of more than 1 GiB.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int | None, ...]) -> None:
        self.path, self.key = path, key
        with open_hdf5(path) as file:
            dataset = _dataset(file, path, key)
            self.shape, dtype = dataset.shape, dataset.dtype
        expected = [("any" if n is None else n) for n in shape]
        if len(self.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, self.shape)):
            raise InputError(path, key, f"shape {list(self.shape)}", f"shape {expected}")
        self.is_complex = dtype.names == ("real", "imag")
        if dtype.kind not in "fiuc" and not self.is_complex:
            raise InputError(path, key, f"dtype {dtype}", "numbers")
        row_bytes = dtype.itemsize
        for n in self.shape[1:]:
            row_bytes *= n
        if not 0 < row_bytes <= ROW_BYTES:
            raise InputError(path, key, f"{row_bytes} bytes a row", f"1 to {ROW_BYTES}")
        self._block_rows = max(1, BLOCK_BYTES // row_bytes)
        self._first, self._block = -1, np.empty(0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray:
        first = index - index % self._block_rows
        if first != self._first:
            with open_hdf5(self.path) as file:
                dataset = _dataset(file, self.path, self.key)
                try:
                    block = dataset[first : first + self._block_rows]
                except (OSError, RuntimeError) as error:
                    raise InputError(self.path, self.key, f"unreadable rows ({error})"[:160], "a whole file") from None
            self._first = first
            self._block = block["real"] + 1j * block["imag"] if self.is_complex else block
        return self._block[index - first]


def open_hdf5(path: Path) -> h5py.File:
    """The file open for reading; raises InputError if it does not exist or is no whole HDF5 file."""
    if not path.is_file():
        raise InputError(path, "file", "nothing", "an HDF5 file")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise InputError(path, "contents", " ".join(str(error).split())[:160], "a whole HDF5 file") from None


def _dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    if key not in file or not isinstance(file[key], h5py.Dataset):
        raise InputError(path, key, f"keys {', '.join(sorted(file)) or 'none'}", f"a data set {key}")
    return file[key]
