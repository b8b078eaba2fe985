# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `wavesfm`: one sentence and exit code 2 for whatever a user can cause, never a traceback."""

from __future__ import annotations

import sys

from ..errors import WavesfmError
from ..packages import install_command

_NEEDS = ("typer", "rich", "click")


def main() -> None:
    """Run the command line of this process; ends it with SystemExit."""
    try:
        from .app import app
    except ImportError as error:
        if (error.name or "").split(".")[0] not in _NEEDS:
            raise
        _end(f"command line: no module {error.name}: install it with: {install_command('typer', 'rich')}")
    try:
        app()
    except WavesfmError as error:
        _end(str(error))


def _end(sentence: str) -> None:
    sys.stderr.write("wavesfm: " + " ".join(sentence.split()) + "\n")
    sys.exit(2)
