# SPDX-License-Identifier: GPL-3.0-or-later
"""The only door from samples, arrays and grids to prepared tiles, for training and for live streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.image_spec import ImageSpec
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..bundle.spec import Preprocess
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..types import Tensor
from .image import image_tile
from .pilot_grid import measured_snr_db, pilot_tile
from .spectrogram import spectrogram_tile


@dataclass(frozen=True)
class Preparer:
    """The computations of one kind of preprocessing."""

    tile: Callable[[NDArray[Any], Any, str], Tensor]
    """Input, spec and a name for errors to a tile float32 spec.tile_shape; see `prepare`."""
    snr_db: Callable[[Sequence[NDArray[Any]], Any], NDArray[np.float64]] | None = None
    """n inputs and spec to the signal-to-noise ratios in dB, float64 [n]; None for a kind without the side input."""


PREPARERS = {
    SpectrogramSpec.kind: Preparer(spectrogram_tile),
    ImageSpec.kind: Preparer(image_tile),
    PilotGridSpec.kind: Preparer(pilot_tile, measured_snr_db),
}
"""By PreprocessSpec.kind."""


def prepare(samples: NDArray[Any], spec: Preprocess, where: str = "prepare") -> Tensor:
    """One tile of an input, as the spec says.

    Parameters
    ----------
    samples : ndarray
        SpectrogramSpec: complex64 [n] (complex128 is rounded) with spec.min_samples <= n <= spec.tile_samples. Samples
        after the last whole frame are not used.
        ImageSpec: float32 [channels, rows, columns] (float64 is rounded), finite.
        PilotGridSpec: complex64 [antennas, symbols, subcarriers], finite, with a signal at the pilots.
    spec : Preprocess
        The preprocessing.
    where : str
        Name of the input in errors.

    Returns
    -------
    ndarray
        float32 spec.tile_shape.

    Raises
    ------
    InputError
        Another type, shape, count or size.
    """
    return PREPARERS[spec.kind].tile(samples, spec, where)
