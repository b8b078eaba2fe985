# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON lines to a file or to standard output."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import IO

from ..errors import ConfigurationError


def write_line(lines: IO[str], values: object) -> None:
    """Write one JSON line at once."""
    lines.write(json.dumps(values, allow_nan=False) + "\n")
    lines.flush()


@contextlib.contextmanager
def json_lines(path: str | None) -> Iterator[IO[str] | None]:
    """The file at `path`, standard output for "-", None for None; ConfigurationError where it cannot be written."""
    try:
        if path is None or path == "-":
            yield None if path is None else sys.stdout
        else:
            with open(path, "w", encoding="utf-8") as file:
                yield file
    except BrokenPipeError:
        raise  # the reader has enough: the command ends quietly
    except OSError as error:
        expected = "a file that can be written"
        raise ConfigurationError(path or "output", "--json", error.strerror or error, expected) from error
