# SPDX-License-Identifier: GPL-3.0-or-later
"""Read archives of arrays (.npz) from untrusted files: no pickle, and sizes checked before anything is allocated."""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..errors import InputError, WavesfmError

LIMIT_BYTES = 1 << 30
# What zipfile and numpy's parser of an array's header raise for a broken file.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_arrays(
    path: Path, limit_bytes: int, error: type[WavesfmError], names: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """Read the arrays of an archive by name.

    Parameters
    ----------
    path : Path
        The .npz file.
    limit_bytes : int
        Largest size of the arrays together.
    error : type of WavesfmError
        Class of the error.
    names : container of str, optional
        Names to read, as far as the archive has them. Default: all.

    Raises
    ------
    WavesfmError
        Of class `error`: the archive cannot be read, its arrays exceed limit_bytes, it holds Python objects, or a
        header claims more bytes than its member has.
    """
    with _members(path, error) as (archive, members):
        chosen = {name: m for name, m in members.items() if names is None or name in names}
        return _load(path, archive, chosen, limit_bytes, error)


def read_npz(path: Path, names: Sequence[str], limit_bytes: int = LIMIT_BYTES) -> dict[str, np.ndarray]:
    """Read named arrays of an archive, all of which it must have.

    Parameters
    ----------
    path : Path
        The .npz file.
    names : sequence of str
        Names to read.
    limit_bytes : int
        Largest size of these arrays together.

    Raises
    ------
    InputError
        No such file, a missing array, or any of the reasons of `load_arrays`.
    """
    if not path.is_file():
        raise InputError(path, "file", "nothing", "an .npz file")
    with _members(path, InputError) as (archive, members):
        for name in names:
            if name not in members:
                raise InputError(path, name, f"arrays {', '.join(members) or 'none'}", f"an array {name}")
        return _load(path, archive, {name: members[name] for name in names}, limit_bytes, InputError)


def npz_names(path: Path) -> set[str]:
    """Names of the arrays of an archive, without reading them; raises InputError for a file that is no archive."""
    with _members(path, InputError) as (_, members):
        return set(members)


@contextlib.contextmanager
def _members(path: Path, error: type[WavesfmError]) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An open archive and its members by array name; what a broken archive raises becomes `error`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
    except _UNREADABLE as reason:
        raise error(path, "contents", f"an unreadable archive ({reason})"[:200], "numpy arrays (npz)") from None


def _load(
    path: Path,
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    limit_bytes: int,
    error: type[WavesfmError],
) -> dict[str, np.ndarray]:
    """The arrays of these members, whose total size is checked first."""
    total = sum(m.file_size for m in members.values())
    if total > limit_bytes:
        raise error(path, "size of the arrays", f"{total} bytes", f"at most {limit_bytes} bytes")
    return {name: _load_array(archive, m, name, path, error) for name, m in members.items()}


def _load_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path, error: type[WavesfmError]
) -> np.ndarray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size  # integers of Python do not overflow
    if dtype.hasobject or claimed > member.file_size:
        found = "Python objects" if dtype.hasobject else f"{claimed} bytes in a member of {member.file_size}"
        raise error(path, name, found, "a complete array of numbers")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
