# SPDX-License-Identifier: GPL-3.0-or-later
"""A few figures of a tile's power and shape, and how far those of white noise scatter: when two tiles look alike."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .. import _kernels
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..types import Tensor, Tile
from .spectrogram import make_tiler

SIGMAS = 6.0  # tolerance in standard deviations that a figure of white noise has from tile to tile
LEVEL_TOLERANCE_DB = 1.0  # least tolerances: what a receiver's gain and passband drift in minutes
COLUMN_TOLERANCE_DB = 0.5
COLUMNS_RMS_TOLERANCE_DB = 0.25
SHAPE_TOLERANCE_DB = 0.05
WIDEST_TOLERANCE_DB = 3.0  # a tile so short that noise scatters more is not compared
CALIBRATION_TILES = 12


Signature = _kernels.TileSignature
"""Power and shape of one tile, in dB; see tile_signature.h."""
Tolerances = _kernels.SignatureTolerances
"""Largest differences in dB between the signatures of two tiles that look alike; see tile_signature.h."""


def comparable(limits: Tolerances) -> bool:
    """Return False for tiles too short to tell noise from a signal by these figures."""
    return max(limits.column, limits.peak, limits.shape[1]) <= WIDEST_TOLERANCE_DB


def signature(tile: Tile, spec: SpectrogramSpec) -> Signature:
    """Figures of a prepared tile."""
    return _signature(tile.data, tile.n_samples, tile.floor_db, tile.peak_db, spec)


def _signature(data: Tensor, n_samples: int, floor_db: float, peak_db: float, spec: SpectrogramSpec) -> Signature:
    span_db = spec.high_db - spec.low_db
    reference_db = max(floor_db, peak_db - spec.high_db) if spec.reference == "median" else 0.0
    offset_db = spec.mean * span_db + spec.low_db + reference_db
    return _kernels.tile_signature(data[0], spec.std * span_db, offset_db, n_samples, floor_db, peak_db)


def alike(a: Signature, b: Signature, tolerances: Tolerances, factor: float = 1.0) -> bool:
    """Whether two tiles look alike: every figure within `factor` times its tolerance."""
    return _kernels.alike(a, b, tolerances, factor)


@lru_cache(maxsize=64)
def tolerances(spec: SpectrogramSpec, n_samples: int) -> Tolerances:
    """Tolerances for tiles of at least n_samples, from tiles of white noise of that length."""
    rng = np.random.default_rng(0)
    made = [_noise_signature(spec, rng, n_samples) for _ in range(CALIBRATION_TILES)]
    columns = np.stack([each.columns for each in made])
    bands = [1 << i for i in range((spec.width // 8).bit_length())]
    scatter = [SIGMAS * float(np.std([_bands(row, band) for row in columns])) for band in bands]
    chosen = next((i for i, db in enumerate(scatter) if db <= WIDEST_TOLERANCE_DB), len(bands) - 1)
    return Tolerances(
        level=LEVEL_TOLERANCE_DB,
        peak=max(COLUMN_TOLERANCE_DB, SIGMAS * float(np.std([each.peak for each in made]))),
        shape=np.maximum(SHAPE_TOLERANCE_DB, SIGMAS * np.std([each.shape for each in made], axis=0)).tolist(),
        column=max(COLUMN_TOLERANCE_DB, scatter[chosen]),
        columns_rms=max(COLUMNS_RMS_TOLERANCE_DB, scatter[chosen] / 3),
        band=bands[chosen],
        noise_peak=max(each.peak + each.level - each.floor for each in made),
    )


def length_class(spec: SpectrogramSpec, n_samples: int) -> int:
    """The longest length of the tile's, half of it, a quarter and so on that n_samples reaches: for `tolerances`."""
    length = spec.tile_samples
    while length > max(n_samples, spec.min_samples):
        length //= 2
    return max(length, spec.min_samples)


def _noise_signature(spec: SpectrogramSpec, rng: np.random.Generator, n_samples: int) -> Signature:
    noise = rng.standard_normal((n_samples, 2), dtype=np.float32).view(np.complex64).ravel() * np.float32(0.1)
    tiler = make_tiler(spec)
    tiles = tiler.push(noise)
    made = tiles[0] if tiles else tiler.flush()
    assert made is not None  # n_samples are at least the spec's min_samples
    return _signature(made[0], made[2], made[4], made[5], spec)


def _bands(columns: Tensor, band: int) -> Tensor:
    if band == 1:
        return columns
    count = columns.size // band
    means: Tensor = columns[: count * band].reshape(count, band).mean(axis=1)
    return means
