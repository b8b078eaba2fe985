# SPDX-License-Identifier: GPL-3.0-or-later
"""Made streams of one band at 1 MS/s, and an analysis of them with a namer that only looks at the rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.types import Event
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.types import Tile

RATE = 1e6
LABELS = ("noise", "narrow", "wide")


class WidthNamer:
    """ "narrow" for views below 200 kS/s, else "wide"; keeps the tiles."""

    def __init__(self) -> None:
        self.tiles: list[Tile] = []

    def __call__(self, tiles: Sequence[Tile]) -> np.ndarray:
        self.tiles += tiles
        return np.array([[0.05, 0.9, 0.05] if tile.rate_hz < 2e5 else [0.05, 0.05, 0.9] for tile in tiles])


def noise(n: int, seed: int = 0) -> np.ndarray:
    """White complex noise of power 2e-4."""
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel() * np.float32(0.01)


def band_signal(n: int, low_hz: float, high_hz: float, snr_db: float, seed: int, rate_hz: float = RATE) -> np.ndarray:
    """Noise in a part of the band, so much over the noise of `noise`."""
    f = np.fft.fftfreq(n) * rate_hz
    inside = (f >= low_hz) & (f < high_hz)
    part = np.fft.ifft(np.where(inside, np.fft.fft(noise(n, seed)), 0))
    return (part * 10 ** (snr_db / 20)).astype(np.complex64)


def run(x: np.ndarray, chunk: int = 0, options: BandOptions | None = None, **more: object) -> tuple:
    """Events of a stream, the analyser, and its namer."""
    namer = more.pop("namer", None) or WidthNamer()
    rate_hz = more.pop("rate_hz", RATE)
    analyser = BandAnalyser(SpectrogramSpec(), LABELS, rate_hz, namer=namer, options=options, **more)
    events: list[Event] = []
    for at in range(0, x.size, chunk or x.size):
        events += analyser.push(x[at : at + (chunk or x.size)]).events
    return events + analyser.finish().events, analyser, namer
