# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of arrays (npz), read without trusting the file: no pickle, sizes from the headers first."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..errors import WavesfmError

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError)


def load_arrays(
    path: Path, limit_bytes: int, error: type[WavesfmError], names: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an npz by name; names: only those of them that are there, None for all.

    Raises `error` for an archive that cannot be read, for arrays of more than limit_bytes together, for Python objects
    and for headers that claim more than is there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            named = [(m.filename.removesuffix(".npy"), m) for m in archive.infolist()]
            members = [(name, m) for name, m in named if names is None or name in names]
            total = sum(m.file_size for _, m in members)
            if total > limit_bytes:
                raise error(path, "size of the arrays", f"{total} bytes", f"at most {limit_bytes} bytes")
            return {name: _load_array(archive, m, path, error) for name, m in members}
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error) as reason:
        raise error(path, "contents", f"an unreadable archive ({reason})"[:200], "numpy arrays (npz)") from None


def _load_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, error: type[WavesfmError]) -> np.ndarray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size  # Python's integers do not overflow
    if dtype.hasobject or claimed > member.file_size:
        found = "Python objects" if dtype.hasobject else f"{claimed} bytes in a member of {member.file_size}"
        raise error(path, member.filename, found, "an array of numbers that is all there")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
