"""How fast the spectrogram kernel is on this machine."""

from __future__ import annotations

import statistics
import time

import numpy as np

from .spec import SpectrogramSpec
from .spectrogram import make_tiler
from .types import Samples

RUNS = 5
CHUNK_SAMPLES = 262_144


def spectrogram_rate(spec: SpectrogramSpec, seconds: float = 2.0) -> float:
    """Samples per second, in MS/s, that one thread turns into tiles of `spec`: the median of 5 runs within `seconds`.

    White noise in chunks of 262,144 samples, so that a chunk comes from the cache as it would from a live source.
    """
    chunk = noise(CHUNK_SAMPLES)
    tiler = make_tiler(spec)
    tiler.push(chunk)  # plans, tables and pages are there before the clock starts
    rates = []
    for _ in range(RUNS):
        start = time.perf_counter()
        pushed = 0
        while (elapsed := time.perf_counter() - start) < seconds / RUNS or pushed == 0:
            tiler.push(chunk)
            pushed += chunk.size
        rates.append(pushed / elapsed / 1e6)
    return statistics.median(rates)


def noise(n: int, seed: int = 0) -> Samples:
    """White Gaussian noise, complex64 [n], of unit power."""
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return np.ascontiguousarray(parts * np.float32(0.5**0.5)).view(np.complex64).ravel()
