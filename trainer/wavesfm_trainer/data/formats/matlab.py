# SPDX-License-Identifier: GPL-3.0-or-later
"""One variable of a MATLAB file (v5 through scipy, v7.3 through HDF5), whose shape is checked before it is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .hdf5_rows import open_hdf5

LIMIT_BYTES = 1 << 30
NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def read_variable(path: Path, key: str, shape: tuple[int | None, ...]) -> NDArray:
    """Read a variable of real or complex numbers, in MATLAB's order of axes.

    Parameters
    ----------
    path : of the file.
    key : name of the variable.
    shape : expected shape, None for any size.

    Raises
    ------
    InputError : no MATLAB file, a truncated one, no such variable, another class (cells, structs, objects), another
        shape, or more than 1 GiB.
    """
    if not path.is_file():
        raise InputError(path, "file", "nothing", "a MATLAB file")
    with path.open("rb") as file:
        if file.read(512).find(b"MATLAB 7.3") == 0 or _is_hdf5(path):
            return _read_hdf5(path, key, shape)
    try:
        variables = {name: (dims, kind) for name, dims, kind in scipy.io.whosmat(path)}
        if key not in variables:
            raise InputError(path, key, f"variables {', '.join(variables) or 'none'}", f"a variable {key}")
        _check(path, key, variables[key][0], shape, 16)
        if variables[key][1] not in NUMBERS:
            raise InputError(path, key, f"class {variables[key][1]}", "numbers")
        array = scipy.io.loadmat(path, variable_names=[key])[key]
    except InputError:
        raise
    except Exception as error:  # scipy's parser raises many types for a broken file
        raise InputError(path, "contents", f"{type(error).__name__}: {error}"[:160], "a whole MATLAB file") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuc":
        raise InputError(path, key, getattr(array, "dtype", type(array).__name__), "numbers")
    return array


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _read_hdf5(path: Path, key: str, shape: tuple[int | None, ...]) -> NDArray:
    with open_hdf5(path) as file:
        if key not in file or not hasattr(file[key], "dtype"):
            raise InputError(path, key, f"variables {', '.join(sorted(file)) or 'none'}", f"a variable {key}")
        dataset = file[key]
        is_complex = dataset.dtype.names == ("real", "imag")
        if dataset.dtype.kind not in "fiuc" and not is_complex:
            raise InputError(path, key, f"dtype {dataset.dtype}", "numbers")
        _check(path, key, dataset.shape[::-1], shape, dataset.dtype.itemsize)
        try:
            array = dataset[()]
        except (OSError, RuntimeError) as error:
            raise InputError(path, key, f"unreadable ({error})"[:160], "a whole file") from None
    return (array["real"] + 1j * array["imag"] if is_complex else array).T


def _check(path: Path, key: str, found: tuple[int, ...], expected: tuple[int | None, ...], item_bytes: int) -> None:
    if len(found) != len(expected) or any(n not in (None, m) for n, m in zip(expected, found)):
        named = ["any" if n is None else n for n in expected]
        raise InputError(path, key, f"shape {list(found)}", f"shape {named}")
    total = item_bytes
    for n in found:
        total *= int(n)
    if not 0 < total <= LIMIT_BYTES:
        raise InputError(path, key, f"{total} bytes", f"1 to {LIMIT_BYTES}")
