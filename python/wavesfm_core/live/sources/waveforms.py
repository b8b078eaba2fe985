# SPDX-License-Identifier: GPL-3.0-or-later
"""Simple transmitters for the simulated radio: cheap, seeded, and as loops without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...bundle.npz import npz_names, read_npz
from ...errors import InputError
from ...types import Samples

LOOP_S = 0.1
KINDS = ("fsk", "psk", "am", "ofdm", "bursts")
MOST_EMITTERS = 1000


@dataclass(frozen=True, eq=False)
class Transmitter:
    """An emitter of the simulated radio."""

    label: str
    centre_hz: float
    """Middle of its channel, Hz."""
    width_hz: float
    """Occupied bandwidth, Hz."""
    power_db: float
    """Mean power while on the air, dB relative to full scale."""
    loop: Samples
    """complex64 [n] with mean power 1 while on the air; repeated without a seam."""
    rate_hz: float
    """Sample rate of `loop`, Hz."""


def plant(seed: int, low_hz: float, high_hz: float, count: int = 10) -> list[Transmitter]:
    """`count` transmitters of the KINDS between two frequencies, each in its own part; deterministic."""
    rng = np.random.default_rng(seed)
    cell_hz = (high_hz - low_hz) / count
    planted = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        width_hz = float(np.exp(rng.uniform(np.log(25e3), np.log(400e3))))
        centre_hz = low_hz + (number + rng.uniform(0.1, 0.9)) * cell_hz
        loop, rate_hz = _loop(rng, kind, width_hz)
        planted.append(Transmitter(kind, centre_hz, width_hz, float(rng.uniform(-50, -35)), loop, rate_hz))
    return planted


def read_scene(path: Path) -> list[Transmitter]:
    """Transmitters of an npz: label_{i} (uint8 text), place_{i} (centre_hz, width_hz, power_db, rate_hz), iq_{i}.

    Raises InputError.
    """
    names = npz_names(path) if path.is_file() else set()
    count = sum(name.startswith("iq_") for name in names)
    if not 0 < count <= MOST_EMITTERS:
        raise InputError(path, "transmitters", count, f"1 to {MOST_EMITTERS} arrays iq_0, iq_1 and so on")
    arrays = read_npz(path, [f"{kind}_{i}" for i in range(count) for kind in ("label", "place", "iq")])
    scene = []
    for i in range(count):
        label, place, loop = (arrays[f"{kind}_{i}"] for kind in ("label", "place", "iq"))
        is_right = loop.dtype == np.complex64 and loop.ndim == 1 and loop.size >= 64
        if not (is_right and place.shape == (4,) and np.isfinite(place).all() and label.dtype == np.uint8):
            found = f"{loop.dtype} {loop.shape}, {place.shape}, {label.dtype}"
            raise InputError(path, f"transmitter {i}", found, "complex64 [64 or more], 4 finite numbers, uint8")
        centre_hz, width_hz, power_db, rate_hz = map(float, place)
        if not (rate_hz >= 1e3 and 0 < width_hz <= rate_hz):
            raise InputError(path, f"place_{i}", f"{width_hz:g} Hz at {rate_hz:g} samples/s", "a width within the rate")
        text = label.tobytes().decode("utf-8", "replace")
        scene.append(Transmitter(text, centre_hz, width_hz, power_db, loop, rate_hz))
    return scene


def _loop(rng: np.random.Generator, kind: str, width_hz: float) -> tuple[Samples, float]:
    """One loop of a kind and its sample rate, twice its width."""
    rate_hz = 2.0 * width_hz
    n = int(LOOP_S * rate_hz)
    if kind == "fsk":
        held = np.repeat(rng.choice([-1.0, 1.0], n // 16 + 1), 16)[:n] * 0.1  # cycles per sample
        held -= np.round(held.sum()) / n if abs(held.sum()) >= 1 else 0.0
        iq = np.exp(2j * np.pi * np.cumsum(held - (held.sum() - np.round(held.sum())) / n))
    elif kind == "am":
        tone = 0.5 * np.cos(2 * np.pi * np.round(0.05 * n) * np.arange(n) / n)
        iq = (1 + 0.6 * tone + 0.4 * _filtered(rng, n, 0.2).real).astype(np.complex128)
    else:
        iq = _filtered(rng, n, 0.5)
    if kind == "psk":
        iq = iq / np.maximum(np.abs(iq), 1e-3) * np.minimum(np.abs(iq), 1.5)
    iq /= np.sqrt(np.mean(np.abs(iq) ** 2))
    if kind == "bursts":
        iq[(np.arange(n) * 10 // n) % 2 == 1] = 0  # on for 10 ms, off for 10 ms
    return iq.astype(np.complex64), rate_hz


def _filtered(rng: np.random.Generator, n: int, share: float) -> Samples:
    """Periodic noise in a share of the band."""
    spectrum = rng.normal(size=n) + 1j * rng.normal(size=n)
    spectrum[np.abs(np.fft.fftfreq(n)) > share / 2] = 0
    iq = np.fft.ifft(spectrum)
    return iq / np.sqrt(np.mean(np.abs(iq) ** 2))
