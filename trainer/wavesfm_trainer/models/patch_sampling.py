# SPDX-License-Identifier: GPL-3.0-or-later
"""Random subsets of a tile's patches, for cheaper training steps."""

from __future__ import annotations

import torch
from torch import Tensor

from .step_random import StepRandom


def draw_patches(tile: Tensor, patch: int, n_keep: int, step_random: StepRandom) -> Tensor:
    """Draw patches without replacement, those with strong peaks more often.

    A short burst fills one or two patches of a tile. Drawn uniformly it would mostly be lost, and its label with it.
    The probability is exponential in the patch's peak, standardised over the tile, with a weight drawn from 0 (uniform)
    to 1.5 for each tile, so that the background is seen too.

    Parameters
    ----------
    tile : float32 [B, C, H, W].
    patch : side of a patch in pixels.
    n_keep : patches to draw.
    step_random : random numbers of the step.

    Returns
    -------
    int64 [B, n_keep], ascending indices of the drawn patches.

    References
    ----------
    Gumbel top-k sampling: Kool et al., 2019.
    """
    batch, channels, height, width = tile.shape
    cells = tile.reshape(batch, channels, height // patch, patch, width // patch, patch)
    peak = cells.amax(dim=(1, 3, 5)).flatten(1).float()
    score = (peak - peak.mean(dim=1, keepdim=True)) / (peak.std(dim=1, keepdim=True) + 1e-3)
    uniform = step_random.rand(batch, peak.shape[1] + 1)
    gumbel = -torch.log(-torch.log(uniform[:, 1:].clamp(1e-6, 1 - 1e-6)))
    chosen = (1.5 * uniform[:, :1] * score + gumbel).topk(n_keep, dim=1).indices
    return chosen.sort(dim=1).values
