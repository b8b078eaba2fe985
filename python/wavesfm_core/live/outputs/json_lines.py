# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON lines to standard output or to files that rotate."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from ..bus import Record


def json_text(record: Record) -> str:
    """The record as one line of JSON without a line end."""
    return json.dumps(record.as_dict(), allow_nan=False)


class JSONLines:
    """One line for each record.

    Parameters
    ----------
    path : str
        File that is appended to; "-" for standard output. A full file becomes `path`.1, that one `path`.2, and so on.
    kinds : frozenset of str
        Kinds of records.
    most_bytes : int
        Size at which a file is full.
    keep : int
        Full files that are kept.
    on_broken_pipe : callable, optional
        Called when the reader of standard output is gone.
    """

    def __init__(
        self,
        path: str,
        kinds: frozenset[str] = frozenset({"event"}),
        most_bytes: int = 100 << 20,
        keep: int = 5,
        on_broken_pipe: Callable[[], object] | None = None,
    ) -> None:
        self.name = f"json {path}"
        self.kinds = kinds
        self._path, self._most_bytes, self._keep = path, most_bytes, keep
        self._on_broken_pipe = on_broken_pipe
        self._file: FileIO | None = None

    def connect(self) -> None:
        """See `Output.connect`."""
        self._file = None if self._path == "-" else FileIO(self._path, "a")

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        line = json_text(record) + "\n"
        if self._path == "-":
            self._write_to_stdout(line)
        else:
            self._append(line.encode())

    def close(self) -> None:
        """See `Output.close`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write_to_stdout(self, line: str) -> None:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            if self._on_broken_pipe is not None:
                self._on_broken_pipe()
            raise

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        if size > 0 and size + len(line) > self._most_bytes:
            self._rotate()
            size = 0
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "the line was written in part", self._path)
        except OSError:
            self._file.truncate(size)  # no half lines: the record is sent again
            raise

    def _rotate(self) -> None:
        self.close()
        paths = [Path(self._path), *(Path(f"{self._path}.{number}") for number in range(1, self._keep + 1))]
        for older, newer in zip(paths[::-1], paths[-2::-1]):
            if newer.exists():
                newer.replace(older)
        paths[0].unlink(missing_ok=True)  # only where none are kept
        self._file = FileIO(self._path, "a")
