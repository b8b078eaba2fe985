# SPDX-License-Identifier: GPL-3.0-or-later
"""Model inputs of a bundle's golden tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle.bundle import bundle_inputs
from ..bundle.golden import Golden
from ..bundle.spec import BundleSpec
from ..types import Tensor
from .tile import PREPARERS


def golden_inputs(
    spec: BundleSpec, golden: Golden, rows: Sequence[int] | None = None, tiles: Tensor | None = None
) -> dict[str, Tensor]:
    """The golden tiles, and the model's side inputs as measured from the golden inputs.

    Parameters
    ----------
    spec : BundleSpec
        Contract of the bundle.
    golden : Golden
        Its golden inputs and tiles.
    rows : sequence of int, optional
        Indices of the tiles, in the order of the batch and possibly repeated. Default: all.
    tiles : ndarray, optional
        float32 [B, C, H, W] in place of the golden tiles of `rows`.

    Returns
    -------
    dict of str to ndarray
        By the name of the input: tiles float32 [B, C, H, W], side inputs float32 [B, 1].

    Raises
    ------
    InputError
        Golden grids of which no signal-to-noise ratio can be measured.
    """
    chosen = list(range(len(golden.tiles)) if rows is None else rows)
    measure = PREPARERS[spec.preprocess.kind].snr_db
    snr_db = None if measure is None else measure(golden.inputs, spec.preprocess)[chosen]
    batch = np.stack([golden.tiles[i] for i in chosen]) if tiles is None else tiles
    return bundle_inputs(spec, batch, golden.rate_hz[chosen], snr_db)
