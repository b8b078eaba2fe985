# SPDX-License-Identifier: GPL-3.0-or-later
"""The last samples of a stream, and parts of them written as annotated SigMF; no Qt."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.atomic_file import atomic_path, write_atomically
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.recordings.sigmf_meta import META

SIGMF_VERSION = "1.2.0"
GENERATOR = "gr-wavesfm signal_display"


class SampleRing:
    """The newest samples of a stream; may be used by several threads.

    Parameters
    ----------
    size : int
        Samples that are kept.
    """

    def __init__(self, size: int) -> None:
        self._samples = np.zeros(max(1, size), np.complex64)
        self._stop = 0  # number of the sample after the newest
        self._kept = 0
        self._lock = threading.Lock()

    def restart(self, sample: int) -> None:
        """Forget everything; the next sample has this number."""
        with self._lock:
            self._stop, self._kept = sample, 0

    def push(self, samples: NDArray[np.complex64]) -> None:
        """Add the next samples, complex64 [n]."""
        size = len(self._samples)
        with self._lock:
            self._stop += len(samples)
            self._kept = min(size, self._kept + len(samples))
            newest = samples[-size:]
            at = (self._stop - len(newest)) % size
            first = min(len(newest), size - at)
            self._samples[at : at + first] = newest[:first]
            self._samples[: len(newest) - first] = newest[first:]

    def cut(self, start: int, stop: int) -> tuple[int, NDArray[np.complex64]]:
        """The part of start to stop that is still there: number of its first sample, and a copy of the samples."""
        size = len(self._samples)
        with self._lock:
            start, stop = max(start, self._stop - self._kept), min(stop, self._stop)
            places = np.arange(start, max(start, stop)) % size
            return start, self._samples[places]


def save_box(
    directory: str | Path,
    samples: NDArray[np.complex64],
    rate_hz: float,
    centre_hz: float | None,
    box: Mapping[str, Any],
) -> Path:
    """Write samples and one annotation as SigMF cf32_le under a name that is free; returns the path of the metadata.

    Parameters
    ----------
    directory : str or Path
        Made where it does not exist.
    samples : complex64 [n]
        At rate_hz, in Hz.
    rate_hz : float
        Sample rate.
    centre_hz : float or None
        Centre frequency in Hz; None when unknown.
    box : mapping
        core:sample_start, core:sample_count, core:freq_lower_edge, core:freq_upper_edge, core:label, core:comment.

    Raises
    ------
    InputError
        There are no samples.
    ConfigurationError
        The files cannot be written.
    """
    directory = Path(directory).expanduser()
    if not len(samples):
        raise InputError("display", "samples", "none of this box", "a box whose samples are still in memory")
    meta = {
        "global": {
            "core:datatype": "cf32_le",
            "core:version": SIGMF_VERSION,
            "core:sample_rate": rate_hz,
            "core:generator": GENERATOR,
        },
        "captures": [{"core:sample_start": 0, **({} if centre_hz is None else {"core:frequency": centre_hz})}],
        "annotations": [{**box, "core:generator": GENERATOR}],
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = _free_path(directory, str(box.get("core:label") or "signal"))
        with atomic_path(path.with_name(path.name.removesuffix(META) + ".sigmf-data")) as scratch:
            samples.astype("<c8", copy=False).tofile(scratch)
        write_atomically(path, json.dumps(meta, indent=4) + "\n")
    except OSError as error:
        raise ConfigurationError(directory, "directory", error.strerror or error, "room to write in") from None
    return path


def _free_path(directory: Path, label: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", label).strip("-.")[:40] or "signal"
    number = 1
    while (path := directory / f"{name}-{number:04d}{META}").exists():
        number += 1
    return path
