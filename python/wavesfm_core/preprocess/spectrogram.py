# SPDX-License-Identifier: GPL-3.0-or-later
"""Complex samples to prepared tiles by the C++ kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import SpectrogramTiler
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import InputError
from ..types import Samples, Tensor


def make_tiler(spec: SpectrogramSpec) -> SpectrogramTiler:
    """A fresh streaming kernel for `spec`; one per stream.

    `push(complex64 [n])` returns the tiles that the samples complete, `flush()` the partial one or None, each a tuple
    (float32 [1, height, width], start_sample, n_samples, partial, floor_db, peak_db, n_nonfinite, n_gap_samples) with
    start_sample counted from the construction or the last flush. The same samples give the same bits in any chunk
    sizes. Samples that are NaN, infinite or 1e15 and more in magnitude count as non-finite and are taken as zero.
    """
    return SpectrogramTiler(**dataclasses.asdict(spec))


def spectrogram_tile(samples: NDArray[Any], spec: SpectrogramSpec, where: str) -> Tensor:
    """One tile, float32 [1, height, width], of complex64 [n]; see `preprocess.tile.prepare`."""
    samples = as_samples(samples, where)
    if not spec.min_samples <= samples.size <= spec.tile_samples:
        expected = f"{spec.min_samples} to {spec.tile_samples}, what one tile is made of"
        raise InputError(where, "samples", samples.size, expected)
    tiler = make_tiler(spec)
    tiles = tiler.push(samples)
    made = tiles[0] if tiles else tiler.flush()
    if made is None:
        found = f"digital silence in {tiler.counts['silent']} of {samples.size}"
        raise InputError(where, "samples", found, f"at least {spec.min_samples} that were received")
    return made[0]


def as_samples(samples: NDArray[Any], where: str) -> Samples:
    """The samples as contiguous complex64 [n]; InputError, naming `where`, for anything but complex vectors."""
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.complex64, np.complex128):
        found = getattr(samples, "dtype", type(samples).__name__)
        raise InputError(where, "samples", found, "a numpy array of complex64")
    if samples.ndim != 1:
        raise InputError(where, "samples", f"shape {samples.shape}", "one dimension")
    return np.ascontiguousarray(samples, dtype=np.complex64)
