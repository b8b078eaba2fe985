# SPDX-License-Identifier: GPL-3.0-or-later
"""RF-S captures: about 0.1 s of wide bands below 6 GHz with several signals each.

Layout: SigMF pairs `<band>_<n>.sigmf-meta/.sigmf-data`, ci16_le, 10 to 60 MS/s. One half of the published set is SigMF;
the authors' own captures are .npy files whose third record is a pickled object, and are not generated. Names begin as
in the published set where its reader drops a share of the crops ("analog", "ism"). Annotations contain the labels and
frequencies of the signals. Signals of one capture have the same receiver impairments and are otherwise independent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from wavesfm_core.errors import ConfigurationError

from ...signals import CLASSES
from ...signals.base import IQ, Emission, SilentWindow
from ...signals.channel import draw_reception, receive
from .output import finish, for_each, rng_for, start

RATES_HZ = (10e6, 15.36e6, 20e6, 25e6, 30.72e6, 40e6, 50e6, 60e6)
DURATION_S = (0.08, 0.12)
SILENT_DRAWS = 20
# Classes that fill a wide view with many signals. A narrow view yields one station (cell, remote).
VIEWS_HZ = {"wbfm": 0.28e6, "gsm": 0.4e6, "dab": 2e6, "lora": 0.6e6, "fsk-ism": 0.5e6, "ook-ism": 0.5e6, "dvb-t": 9e6}


@dataclass(frozen=True)
class Band:
    """A part of the spectrum."""

    name: str
    """Name, the beginning of file names."""
    centre_hz: tuple[float, float]
    """Range of the centre frequency."""
    labels: tuple[str, ...]
    """Signal classes of the band, drawn with replacement."""
    signals: tuple[int, int]
    """Fewest and most signals of a capture."""
    share: float
    """Share of the captures."""


BANDS = (
    Band("ism-2400", (2.412e9, 2.462e9), ("wifi", "wifi", "bluetooth", "zigbee"), (2, 4), 0.25),
    Band("lte", (0.74e9, 2.66e9), ("cellular",), (1, 3), 0.25),
    Band("gsm-900", (0.93e9, 0.955e9), ("gsm", "gsm", "cellular"), (2, 5), 0.1),
    Band("analog-fm", (92e6, 104e6), ("wbfm",), (4, 10), 0.15),
    Band("ism-900", (0.904e9, 0.926e9), ("lora", "fsk-ism", "ook-ism"), (2, 5), 0.1),
    Band("broadcast", (0.18e9, 0.22e9), ("dab", "dvb-t"), (1, 3), 0.07),
    Band("ads-b", (1.088e9, 1.092e9), ("ads-b",), (1, 2), 0.05),
    Band("empty", (3.0e9, 5.9e9), ("noise",), (1, 1), 0.03),
)


@dataclass(frozen=True)
class WidebandCapture:
    """One capture."""

    band: str
    """Name of the band."""
    iq: IQ
    """complex64 [n], full scale 1."""
    rate_hz: float
    """Sample rate."""
    centre_hz: float
    """Centre frequency."""
    signals: tuple[tuple[str, float, float], ...]
    """(label, lower edge, upper edge in Hz) of each signal."""


def capture(
    seed: int, index: int, rates_hz: tuple[float, ...] = RATES_HZ, duration_s: tuple[float, float] = DURATION_S
) -> WidebandCapture:
    """Capture `index`: a band, a rate, and some signals of the band at random frequencies."""
    rng = rng_for(seed, index)
    band = BANDS[int(rng.choice(len(BANDS), p=[b.share for b in BANDS]))]
    rate_hz, centre_hz = float(rng.choice(rates_hz)), float(rng.uniform(*band.centre_hz))
    n_samples = int(rng.uniform(*duration_s) * rate_hz)
    labels = [str(label) for label in rng.choice(band.labels, int(rng.integers(band.signals[0], band.signals[1] + 1)))]
    emissions = [_emission(rng, label, n_samples / rate_hz, rate_hz) for label in labels]
    rooms_hz = [max(0.0, 0.46 * rate_hz - emission.occupied_hz / 2) for emission in emissions]
    offsets_hz = [float(rng.uniform(-room_hz, room_hz)) for room_hz in rooms_hz]
    reception = replace(
        draw_reception(rng, rate_hz, float(rng.uniform(5, 35))),
        offset_hz=offsets_hz[0],
        bits=16,
        neighbours=tuple(
            (e, f, float(rng.uniform(-15, 8))) for e, f in zip(emissions[1:], offsets_hz[1:], strict=True)
        ),
    )
    iq = receive(rng, emissions[0], reception, rate_hz, n_samples)
    edges = [(f - e.occupied_hz / 2, f + e.occupied_hz / 2) for e, f in zip(emissions, offsets_hz, strict=True)]
    signals = tuple((s, centre_hz + a, centre_hz + b) for s, (a, b) in zip(labels, edges, strict=True) if s != "noise")
    return WidebandCapture(band.name, iq, rate_hz, centre_hz, signals)


def _emission(rng: np.random.Generator, label: str, duration_s: float, rate_hz: float) -> Emission:
    """An emission for the capture's rate, or the view in VIEWS_HZ, or the widest view of its class."""
    signal = CLASSES[label]
    view_hz = min(rate_hz, VIEWS_HZ.get(label) or max(view.high_hz for view in signal.views))
    for _ in range(SILENT_DRAWS):
        try:
            return signal.make(rng, duration_s * 1.01 + 1e-5, view_hz)
        except SilentWindow:
            continue
    raise SilentWindow(f"{label}: found {SILENT_DRAWS} silent draws of {duration_s} s, expected a signal")


def _meta(recording: WidebandCapture, seed: int) -> dict:
    annotations = [
        {
            "core:sample_start": 0, "core:sample_count": len(recording.iq), "core:label": label,
            "core:freq_lower_edge": lower, "core:freq_upper_edge": upper,
        }
        for label, lower, upper in recording.signals
    ]  # fmt: skip
    return {
        "global": {
            "core:datatype": "ci16_le", "core:version": "1.2.0", "core:sample_rate": recording.rate_hz,
            "core:description": f"synthetic capture, band {recording.band}, seed {seed}",
        },
        "captures": [{"core:sample_start": 0, "core:frequency": recording.centre_hz}],
        "annotations": annotations,
    }  # fmt: skip


def _write(
    directory: Path, seed: int, index: int, rates_hz: tuple[float, ...], duration_s: tuple[float, float]
) -> tuple[str, dict]:
    recording = capture(seed, index, rates_hz, duration_s)
    name = f"{recording.band}_{index:04d}"
    values = np.clip(np.rint(recording.iq.view(np.float32) * 32768), -32768, 32767).astype("<i2")
    (directory / f"{name}.sigmf-data").write_bytes(values.tobytes())
    (directory / f"{name}.sigmf-meta").write_text(json.dumps(_meta(recording, seed), indent=1) + "\n", encoding="ascii")
    return f"{name}.sigmf-meta", {"band": recording.band, "labels": [label for label, _, _ in recording.signals]}


def generate(
    directory: Path, count: int, seed: int, jobs: int = 1, rates_hz: tuple[float, ...] = RATES_HZ,
    duration_s: tuple[float, float] = DURATION_S,
) -> None:  # fmt: skip
    """Write captures of 4 bytes per sample (3 to 29 MB each), about six 16 ms crops each.

    Parameters
    ----------
    directory : empty or new.
    count : number of captures.
    seed : of the captures.
    jobs : processes.
    rates_hz : sample rates to draw from.
    duration_s : range of the duration in seconds.

    Raises
    ------
    ConfigurationError : invalid rates or durations, or a directory that is not empty.
    """
    if not rates_hz or min(rates_hz) < 1e6:
        raise ConfigurationError("rfs_captures", "rates_hz", list(rates_hz), "one or more of at least 1 MS/s")
    if not 0.001 <= duration_s[0] <= duration_s[1] <= 1.0:
        raise ConfigurationError("rfs_captures", "duration_s", list(duration_s), "0.001 to 1 s, the shorter one first")
    directory = start(directory, count)
    files = for_each(_write, ((directory, seed, i, rates_hz, duration_s) for i in range(count)), jobs)
    settings = {"count": count, "rates_hz": list(rates_hz), "duration_s": list(duration_s)}
    finish(directory, "rfs_captures", seed, settings, dict(files))
