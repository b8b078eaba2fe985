# SPDX-License-Identifier: GPL-3.0-or-later
"""The only door from samples or arrays to prepared tiles, for training and for live streams."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.spec import ImageSpec, PilotGridSpec, Preprocess
from ..errors import InputError
from ..types import Samples, Tensor
from .image import image_tile
from .pilot_grid import pilot_tile
from .spectrogram import make_tiler


def prepare(samples: NDArray[Any], spec: Preprocess, where: str = "prepare") -> Tensor:
    """One tile, float32 [C, height, width], of samples or of an array, as the spec says.

    SpectrogramSpec: complex64 [n] (complex128 is rounded) with spec.min_samples <= n <= spec.tile_samples; C = 1. What
    is left over after the last whole frame is not used.
    ImageSpec: float32 [channels, rows, columns] (float64 is rounded), finite; C = channels; see `ImageSpec`.
    PilotGridSpec: complex64 [antennas, symbols, subcarriers], finite, with pilots that are not all zero; the tile is
    float32 spec.tile_shape; see `PilotGridSpec`.
    where: what the samples are, for errors. Raises InputError for another type, shape, count or size.
    """
    if isinstance(spec, ImageSpec):
        return image_tile(samples, spec, where)
    if isinstance(spec, PilotGridSpec):
        return pilot_tile(samples, spec, where)
    samples = as_samples(samples, where)
    if not spec.min_samples <= samples.size <= spec.tile_samples:
        expected = f"{spec.min_samples} to {spec.tile_samples}, what one tile is made of"
        raise InputError(where, "samples", samples.size, expected)
    tiler = make_tiler(spec)
    tiles = tiler.push(samples)
    made = tiles[0] if tiles else tiler.flush()
    assert made is not None  # min_samples are min_rows rows
    return made[0]


def as_samples(samples: NDArray[Any], where: str) -> Samples:
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.complex64, np.complex128):
        found = getattr(samples, "dtype", type(samples).__name__)
        raise InputError(where, "samples", found, "a numpy array of complex64")
    if samples.ndim != 1:
        raise InputError(where, "samples", f"shape {samples.shape}", "one dimension")
    return np.ascontiguousarray(samples, dtype=np.complex64)
