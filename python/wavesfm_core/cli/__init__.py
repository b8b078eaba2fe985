# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `wavesfm`. Errors that a user can cause are one line on stderr, with exit status 2."""

from __future__ import annotations

import sys

from ..errors import WavesfmError
from ..packages import install_command

_NEEDS = ("typer", "rich", "click")


def main() -> None:
    """Run the command line of this process. Always raises SystemExit."""
    try:
        from .app import app
    except ImportError as error:
        if (error.name or "").split(".")[0] not in _NEEDS:
            raise
        _exit(f"command line: no module {error.name}: install it with: {install_command('typer', 'rich')}")
    try:
        app()
    except WavesfmError as error:
        _exit(str(error))


def _exit(sentence: str) -> None:
    sys.stderr.write("wavesfm: " + " ".join(sentence.split()) + "\n")
    sys.exit(2)
