# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with every recording of an archive."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..preprocess.power_gate import DEFAULT_GATE_DB
from ..recordings.iqstream import IQStream
from ..recordings.recording import Recording

ACTIONS = ("classify", "annotate")


class Reading(Protocol):
    """How a recording is opened: a frozen dataclass, which another process can import."""

    def open(self, path: str | Path) -> Recording | IQStream:
        """Open a recording. Raises InputError or ConfigurationError."""
        ...


@dataclass(frozen=True)
class ArchiveJob:
    """The model, its options and what is done; the same for all recordings and all processes."""

    action: str
    """One of ACTIONS: "classify" writes results, "annotate" also SigMF annotations."""
    model: Path
    """Directory of the bundle."""
    bundle_id: str
    """Identity of the bundle; another one at `model` is refused."""
    results: Path
    """Folder of the results."""
    reading: Reading
    """How recordings are opened."""
    device: str = "auto"
    """See `open_engine`, as the next three."""
    precision: str = "auto"
    device_id: int = 0
    threads: int = 1
    gate_db: float | None = DEFAULT_GATE_DB
    """See `Pipeline.open`, as the next one."""
    threshold: float | None = None
    detect: str = "auto"
    """See `analyse`."""
    annotations: Path | None = None
    """Folder of the annotations; None: beside each recording."""

    def identity(self) -> dict[str, object]:
        """What decides the results, in plain types. A run with another identity does not continue this one."""
        return {
            "action": self.action,
            "bundle": self.bundle_id,
            "reading": dataclasses.asdict(self.reading),  # type: ignore[call-overload]
            "gate_db": self.gate_db,
            "threshold": self.threshold,
            "detect": self.detect,
            "annotations": None if self.annotations is None else str(self.annotations.resolve()),
        }
