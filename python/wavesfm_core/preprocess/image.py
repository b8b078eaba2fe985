# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays of CSI, pilots or powers to prepared tiles; called through `preprocess.tile.prepare`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..bundle.image_spec import ImageSpec
from ..errors import InputError
from ..types import Tensor

SIDE_LIMIT = 65536  # rows or columns of an input array
VALUES_LIMIT = 1 << 28  # values of an input array: 1 GiB


def image_tile(array: NDArray[Any], spec: ImageSpec, where: str) -> Tensor:
    """Prepare one array; `ImageSpec` documents the steps.

    Parameters
    ----------
    array : ndarray of float32 [channels, rows, columns]
        float64 is rounded.
    spec : ImageSpec
        The preprocessing.
    where : str
        Name of the array in errors.

    Returns
    -------
    ndarray
        float32 [channels, height, width].

    Raises
    ------
    InputError
        For another type, number of channels or size (checked before any allocation), for values that are not finite,
        for negative powers where the spec takes decibels, and for values so large that the tile would overflow.
    """
    image = _as_image(array, spec, where)
    if spec.decibel_floor is not None:
        if (least := float(image.min())) < 0:
            raise InputError(where, "values", f"{least:g}", "none below 0, powers to take decibels of")
        image = np.float32(10) * np.log10(image + np.float32(spec.decibel_floor))
    tile = _kernels.resize(np.ascontiguousarray(image), spec.height, spec.width)
    std = np.array(spec.std)
    scale = (spec.range_high - spec.range_low) / (spec.high - spec.low) / std
    offset = (spec.range_low - np.array(spec.mean)) / std
    with np.errstate(over="ignore", invalid="ignore"):  # refused below with an error
        tile -= np.float32(spec.low)
        tile *= scale.astype(np.float32)[:, None, None]
        tile += offset.astype(np.float32)[:, None, None]
    if not np.isfinite(tile).all():
        expected = f"values of the order of {spec.low:g} to {spec.high:g}, the spec's range"
        raise InputError(where, "values", f"up to {np.abs(image).max():.3g}", expected)
    return tile


def _as_image(array: NDArray[Any], spec: ImageSpec, where: str) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        found = getattr(array, "dtype", type(array).__name__)
        raise InputError(where, "array", found, "a numpy array of float32")
    if array.ndim != 3:
        raise InputError(where, "array", f"shape {array.shape}", "channels, rows and columns")
    if array.shape[0] != spec.channels:
        raise InputError(where, "channels", array.shape[0], f"{spec.channels}")
    for name, size in zip(("rows", "columns"), array.shape[1:]):
        if not 1 <= size <= SIDE_LIMIT:
            raise InputError(where, name, size, f"1 to {SIDE_LIMIT}")
    if array.size > VALUES_LIMIT:
        raise InputError(where, "values", array.size, f"at most {VALUES_LIMIT}")
    with np.errstate(over="ignore"):  # too large for float32: becomes infinite and is refused
        image = array.astype(np.float32, copy=False)
    finite = np.isfinite(image)
    if not finite.all():
        bad = image.size - np.count_nonzero(finite)
        raise InputError(where, "values", f"NaN or infinity in {bad} of {image.size}", "finite float32 values")
    return image
