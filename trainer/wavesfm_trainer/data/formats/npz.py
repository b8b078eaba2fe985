# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays of an .npz file: no Python objects, sizes checked against the archive before anything is allocated."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from numpy.lib import format as npy
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

LIMIT_BYTES = 1 << 30


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray]:
    """The arrays `keys`; raises InputError: no such file or key, objects in it, truncated, more than 1 GiB."""
    if not path.is_file():
        raise InputError(path, "file", "nothing", "an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            for key in keys:
                if key not in members:
                    raise InputError(path, key, f"keys {', '.join(members) or 'none'}", f"an array {key}")
            total = sum(members[key].file_size for key in keys)
            if total > LIMIT_BYTES:
                raise InputError(path, "size of the arrays", f"{total} bytes", f"at most {LIMIT_BYTES}")
            return {key: _read_member(path, archive, members[key], key) for key in keys}
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, "contents", f"unreadable ({error})"[:160], "a whole .npz file") from None


def npz_keys(path: Path) -> set[str]:
    """Names of the arrays, nothing read of them; raises InputError for what is no .npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(path, "contents", f"unreadable ({error})"[:160], "an .npz file") from None


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> NDArray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    claimed = dtype.itemsize
    for n in shape:
        claimed *= n
    if dtype.hasobject or claimed > member.file_size:
        found = "Python objects" if dtype.hasobject else f"{claimed} bytes in a member of {member.file_size}"
        raise InputError(path, key, found, "an array of numbers that is all there")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
