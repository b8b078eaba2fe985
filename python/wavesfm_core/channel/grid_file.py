# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of received grids, in the layout of published resource grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle.npz import load_arrays
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import InputError
from ..preprocess.pilot_grid import Grid

FILE_LIMIT = 8 << 30
"""Most bytes of the arrays together."""
NAMES = ("y_rg", "h_freq", "x_rg")
PILOT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class GridFile:
    """Contents of a file of grids."""

    received: Grid
    """Received grids, complex64 [B, A, S, F]."""
    channel: Grid | None
    """True channels, complex64 [B, A, S, F]; None where the file has none."""


def read_grids(path: str | Path, spec: OFDMSpec) -> GridFile:
    """Read a file of grids without pickle.

    Parameters
    ----------
    path : str or Path
        npz with y_rg, the received grids, complex [B, A, S, F]; optionally h_freq, the channels, of the same shape,
        and x_rg, the transmitted grids, complex [B, S, F], of which only the pilots are checked.
    spec : OFDMSpec
        Parameters of the slots.

    Returns
    -------
    GridFile
        The grids. Values that are not finite in single precision pass here; estimators refuse such grids one by one.

    Raises
    ------
    InputError
        Names the array whose sizes or pilots are not those of `spec`.
    """
    arrays = load_arrays(Path(path), FILE_LIMIT, InputError, NAMES)
    if "y_rg" not in arrays:
        raise InputError(path, "y_rg", "nothing", "the received grids [B, A, S, F]")
    count = arrays["y_rg"].shape[:1]
    expected = {"y_rg": spec.grid_shape, "h_freq": spec.grid_shape, "x_rg": spec.grid_shape[1:]}
    for name, array in arrays.items():
        if array.shape != (*count, *expected[name]) or array.dtype.kind != "c" or not array.size:
            found = f"{array.dtype} {list(array.shape)}"
            raise InputError(
                path, name, found, f"complex numbers [B, {str(expected[name])[1:-1]}], as the numerology has"
            )
    if "x_rg" in arrays:
        _check_pilots(arrays["x_rg"], spec, path)
    return GridFile(_single(arrays["y_rg"]), _single(arrays["h_freq"]) if "h_freq" in arrays else None)


def _check_pilots(sent: NDArray[np.complex64], spec: OFDMSpec, path: str | Path) -> None:
    pilots = sent[:, list(spec.pilot_symbols), spec.pilot_offset :: spec.pilot_step]
    apart = float(np.abs(pilots - spec.pilots).max())
    if not apart <= PILOT_TOLERANCE:
        raise InputError(path, "x_rg", f"pilots that differ by {apart:.3g}", "the numerology's pilots")


def _single(array: NDArray[np.complex64]) -> Grid:
    with np.errstate(over="ignore"):  # values beyond single precision become infinite
        return np.ascontiguousarray(array, np.complex64)
