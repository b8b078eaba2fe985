# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | Path, *, mode: int | None = None, follow_links: bool = False) -> Iterator[Path]:
    """Yield an empty scratch file beside `path`, which replaces `path` when the block ends without an exception.

    A reader sees the old file or the new one, never a part. On an exception the scratch file is removed and `path`
    stays as it was. The data and the new name are on the disk before the block is left.

    Parameters
    ----------
    path : str or Path
        File to write. Its directory must exist.
    mode : int, optional
        Permissions of the file. Default: those of the file that is replaced, or those that the umask gives a new file.
    follow_links : bool
        Where `path` is a symbolic link: True replaces the file that it points to, False replaces the link.

    Yields
    ------
    Path
        The scratch file, in the directory of the file that is replaced. Fill it by name, in place.

    Raises
    ------
    OSError
        The directory cannot be written or the disk is full.
    """
    target = Path(os.path.realpath(path)) if follow_links else Path(path)
    scratch = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.part")
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(target).st_mode) if mode is None else mode
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    os.close(os.open(scratch, flags, 0o600 if mode is not None else 0o666))
    try:
        yield scratch
        descriptor = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(scratch, target)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    _sync_directory(target.parent)


def write_atomically(
    path: str | Path, data: bytes | str, *, mode: int | None = None, follow_links: bool = False
) -> None:
    """Write a whole file, or leave what was there.

    Parameters
    ----------
    path, mode, follow_links
        As in `atomic_path`.
    data : bytes or str
        Contents of the file; text is written as UTF-8 without translating line ends.

    Raises
    ------
    OSError
        The directory cannot be written or the disk is full.
    """
    with atomic_path(path, mode=mode, follow_links=follow_links) as scratch:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)


def _sync_directory(directory: Path) -> None:
    """Put a rename on the disk. A directory that cannot be opened for reading is left to the operating system."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
