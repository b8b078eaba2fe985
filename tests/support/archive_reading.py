# SPDX-License-Identifier: GPL-3.0-or-later
"""A way to open recordings that notes who opens what, waits, and kills its process, as the recording's name says."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Recording


@dataclass(frozen=True)
class WatchedReading:
    """Opens cf32 recordings of 1 MS/s.

    "wait..." is opened once the file `go` exists; "deadly..." kills the process; "once..." kills the first process
    that opens it.
    """

    folder: str
    """Where `opened` and `go` lie."""

    def open(self, path: str | Path) -> Recording:
        """Note the process and the name, then open the recording."""
        name, folder = Path(path).name, Path(self.folder)
        first = name not in opened(folder)
        with open(folder / "opened", "a") as file:
            file.write(f"{os.getpid()} {name}\n")
        if name.startswith("deadly") or (name.startswith("once") and first):
            os.kill(os.getpid(), signal.SIGKILL)
        while name.startswith("wait") and not (folder / "go").exists():
            time.sleep(0.02)
        return open_recording(path, 1e6, "cf32")


def opened(folder: Path) -> list[str]:
    """Names of the recordings that were opened, in order."""
    return [line.split()[1] for line in _lines(folder)]


def processes(folder: Path) -> set[int]:
    """The processes that opened recordings."""
    return {int(line.split()[0]) for line in _lines(folder)}


def _lines(folder: Path) -> list[str]:
    path = folder / "opened"
    return path.read_text().splitlines() if path.exists() else []
