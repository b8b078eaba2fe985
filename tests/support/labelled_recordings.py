# SPDX-License-Identifier: GPL-3.0-or-later
"""Small recordings with labelled boxes, as a user has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE_HZ, CENTRE_HZ = 1e6, 433e6
N_SAMPLES, BOX_SAMPLES, WIDTH_HZ = 60_000, 6_000, 60e3


def tone(n: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A carrier with a slow wobble."""
    return np.exp(0.6j * np.sin(2 * np.pi * 40 * np.arange(n) / n) + 2j * np.pi * rng.random())


def keyed(n: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A carrier that is switched on and off."""
    return np.repeat(rng.integers(0, 2, n // 500 + 1), 500)[:n].astype(complex)


def wide(n: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Noise of half the width of the box."""
    coarse = rng.standard_normal((n // 32 + 2, 2)) @ np.array([1, 1j])
    return np.repeat(coarse, 32)[:n]


SIGNALS: dict[str, Callable[[int, np.random.Generator], NDArray[np.complex128]]] = {
    "tone": tone,
    "keyed": keyed,
    "wide": wide,
}


def annotation(start: int, label: str, centre_hz: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A SigMF annotation of BOX_SAMPLES and WIDTH_HZ; changes: without "core:", None takes a field out."""
    fields = {
        "sample_start": start,
        "sample_count": BOX_SAMPLES,
        "label": label,
        "freq_lower_edge": CENTRE_HZ + centre_hz - WIDTH_HZ / 2,
        "freq_upper_edge": CENTRE_HZ + centre_hz + WIDTH_HZ / 2,
    } | changes
    return {f"core:{name}": value for name, value in fields.items() if value is not None}


def write_sigmf(path: Path, samples: NDArray[np.complex64], annotations: Sequence[dict[str, Any]]) -> Path:
    """A recording at RATE_HZ and CENTRE_HZ; returns the path of its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.astype(np.complex64).tofile(path.with_suffix(".sigmf-data"))
    meta = {
        "global": {"core:datatype": "cf32_le", "core:version": "1.0.0", "core:sample_rate": RATE_HZ},
        "captures": [{"core:sample_start": 0, "core:frequency": CENTRE_HZ}],
        "annotations": list(annotations),
    }
    path.with_suffix(".sigmf-meta").write_text(json.dumps(meta))
    return path.with_suffix(".sigmf-meta")


def make_recordings(folder: Path, labels: Sequence[str] = tuple(SIGNALS), files: int = 3, per_file: int = 2) -> Path:
    """SigMF recordings, each with `per_file` boxes of every label, side by side in frequency."""
    for number in range(files):
        rng = np.random.default_rng(number)
        samples = 0.02 * (rng.standard_normal((N_SAMPLES, 2)) @ np.array([1, 1j]))
        annotations = []
        for row in range(per_file):
            for at, label in enumerate(labels):
                centre_hz = (at - (len(labels) - 1) / 2) * 200e3
                start = 5_000 + row * 20_000 + 500 * at
                span = np.arange(start, start + BOX_SAMPLES)
                samples[span] += SIGNALS[label](BOX_SAMPLES, rng) * np.exp(2j * np.pi * centre_hz / RATE_HZ * span)
                annotations.append(annotation(start, label, centre_hz))
        annotations.sort(key=lambda each: each["core:sample_start"])
        write_sigmf(folder / f"recording{number}", samples, annotations)
    return folder
