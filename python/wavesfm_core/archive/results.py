# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of an archive's results: a manifest, and one record for each recording that was done.

The records are the progress: a recording with one is done. They are written whole or not at all, so that the folder is
right after a process was killed at any moment.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic_file import atomic_path, write_atomically
from ..errors import ConfigurationError
from ..types import Prediction
from .job import ArchiveJob

MANIFEST, LOCK, RECORDS = "manifest.json", ".lock", "recordings"
SCHEMA = 1
RECORD_LIMIT = 64 << 20
"""Most bytes of a record or a manifest that is read."""
DONE, FAILED = "done", "failed"


@dataclass
class RecordingResult:
    """What became of one recording."""

    recording: str
    """Absolute path."""
    state: str
    """DONE or FAILED."""
    error: str = ""
    """Why it failed, "" otherwise."""
    label: str = ""
    """The most probable label."""
    probability: float | None = None
    """Its mean probability; None where no tile was inferred."""
    rate_hz: float = 0.0
    """Sample rate, 0.0 when unknown."""
    centre_hz: float | None = None
    """Centre frequency, None when unknown."""
    n_samples: int = 0
    """Samples that were read."""
    tiles: int = 0
    """Predictions."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Label, confidence, place in time and frequency of each."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed, doubted or left out."""
    engine: str = ""
    """Description of the engine."""
    annotated: str = ""
    """Path of the annotations, "" for none."""
    seconds: float = 0.0
    """Time that it took."""


def record_path(results: Path, recording: str | Path) -> Path:
    """The path of a recording's record: its name, and a hash of its path."""
    path = Path(recording).absolute()
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return results / RECORDS / f"{path.name[:80]}.{digest}.json"


def write_result(results: Path, result: RecordingResult, predictions: Iterable[Prediction] = ()) -> None:
    """Write the predictions as JSON lines, then the record, which makes the recording done. Raises OSError."""
    path = record_path(results, result.recording)
    if result.state == DONE:
        with atomic_path(path.with_suffix(".jsonl")) as scratch, open(scratch, "w", encoding="utf-8") as lines:
            for prediction in predictions:
                line = {"recording": Path(result.recording).name, **prediction.as_dict()}
                lines.write(json.dumps(line, allow_nan=False) + "\n")
    write_atomically(path, json.dumps(dataclasses.asdict(result), allow_nan=False, indent=1) + "\n")


def read_result(results: Path, recording: str | Path) -> RecordingResult | None:
    """The record of a recording; None where there is none, or one that is not this program's."""
    try:
        path = record_path(results, recording)
        if path.stat().st_size > RECORD_LIMIT:
            return None
        result = RecordingResult(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return result if result.state in (DONE, FAILED) and result.recording == str(Path(recording).absolute()) else None


@contextmanager
def opened_results(job: ArchiveJob) -> Iterator[None]:
    """Hold the folder of a job's results: it is made, or continued if the same job was interrupted.

    Raises
    ------
    ConfigurationError
        The folder is another job's, another process holds it, or it cannot be written.
    """
    folder = job.results
    try:
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigurationError(folder, "results", error.strerror or error, "a folder to write to") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(folder, "results", "a run that is under way", "no other run") from error
        _check_manifest(folder / MANIFEST, job)
        yield
    finally:
        os.close(descriptor)


def _check_manifest(path: Path, job: ArchiveJob) -> None:
    """Write the manifest, or compare it with the one of the interrupted job."""
    identity = json.loads(json.dumps(job.identity()))
    if not path.exists():
        text = json.dumps({"schema": SCHEMA, "job": identity, "model": str(job.model.absolute())}, indent=1)
        write_atomically(path, text + "\n")
        return
    try:
        if path.stat().st_size > RECORD_LIMIT:
            raise ValueError("too large")
        found = json.loads(path.read_bytes())
        before = dict(found["job"]) if found["schema"] == SCHEMA else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigurationError(path, "contents", f"no manifest ({error})", "one of this version") from error
    if before is None:
        raise ConfigurationError(path, "schema", found["schema"], str(SCHEMA))
    for name, value in identity.items():
        if before.get(name) != value:
            expected = f"{value!r}, or another folder for the results"
            raise ConfigurationError(path, f"job {name}", repr(before.get(name))[:200], expected)
