# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentation of whole batches on the device; its randomness is a function of the training step (StepRandom)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from wavesfm_core.errors import ConfigurationError

from ..models.step_random import StepRandom

KINDS = ("none", "csi", "spectrogram")
FREQUENCY_ROLL_PX = 12
CROP_AREA = (0.8, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
RATE_BLUR = 0.01  # of log10 of the rate: 2 %


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training batches."""

    kind: str = "none"
    """"none", "csi" or "spectrogram".

    - "csi": random resized crop (0.8 to 1 of the area, bicubic), both flips with probability 1/2, noise.
    - "spectrogram": mirror in frequency and roll in time with probability 1/2 each, shift by up to 12 pixels in
      frequency, noise. It has no crop, which would change the scale that the sample rate stands for.
    """
    noise: float | None = None
    """Standard deviation of the noise in units of the standardised tile; None: 0.05 for csi, 0.1 for spectrogram."""
    rate_hidden: float = 0.0
    """Probability that a sample rate is replaced by 0 (unknown). Above 0, the other rates are blurred by 2 %."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigurationError("augmentation", "kind", self.kind, f"one of {', '.join(KINDS)}")
        if self.noise is not None and (self.kind == "none" or not 0 <= self.noise < math.inf):
            raise ConfigurationError("augmentation", "noise", self.noise, "0 or more, with kind csi or spectrogram")
        if not 0 <= self.rate_hidden <= 1:
            raise ConfigurationError("augmentation", "rate_hidden", self.rate_hidden, "0 to 1")

    @property
    def active(self) -> bool:
        """True if batches are changed at all."""
        return self.kind != "none" or self.rate_hidden > 0

    def move(self, image: Tensor, draws: StepRandom) -> Tensor:
        """Crop, flip, roll or mirror images float32 [B, C, H, W], as `kind` says."""
        return image if self.kind == "none" else _CHANGES[self.kind][0](image, draws)

    def add_noise(self, tile: Tensor, draws: StepRandom) -> Tensor:
        """Add noise to standardised tiles float32 [B, C, H, W]; returns `tile` itself if there is none to add."""
        if self.kind == "none":
            return tile
        noise = _CHANGES[self.kind][1] if self.noise is None else self.noise
        return tile + noise * draws.randn(len(tile), *tile.shape[1:]) if noise else tile

    def rate(self, log10_rate: Tensor, draws: StepRandom) -> Tensor:
        """Blur and hide sample rates, log10 of Hz, float32 [B, 1], 0 where unknown."""
        if not self.rate_hidden:
            return log10_rate
        blurred = log10_rate + RATE_BLUR * draws.randn(len(log10_rate), 1)
        known = (log10_rate > 0) & (draws.rand(len(log10_rate), 1) >= self.rate_hidden)
        return torch.where(known, blurred, torch.zeros_like(blurred))


def crop_and_flip(image: Tensor, draws: StepRandom) -> Tensor:
    """Random resized crop and both flips, each image its own.

    A crop along the axes is separable: rows times image times columns, with resampling matrices. A flip reverses a
    matrix.

    Parameters
    ----------
    image : float32 [B, C, H, W].
    draws : random numbers of the step.
    """
    n, _, height, width = image.shape
    drawn = draws.rand(n, 6)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * drawn[:, 0]
    low, high = (math.log(x) for x in CROP_ASPECT)
    aspect = torch.exp(low + (high - low) * drawn[:, 1])
    high_part, wide_part = (area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)
    rows = _crop_matrix(height, high_part, drawn[:, 2], drawn[:, 4] < 0.5)
    columns = _crop_matrix(width, wide_part, drawn[:, 3], drawn[:, 5] < 0.5)
    return rows[:, None] @ image @ columns[:, None].transpose(-1, -2)


def _crop_matrix(size: int, part: Tensor, place: Tensor, flipped: Tensor) -> Tensor:
    """Bicubic (a = -0.5) resampling [B, size, size] of `part` of an axis back to its size; every row sums to 1."""
    pixel = torch.arange(size, device=part.device, dtype=torch.float32)
    start = (place * (1 - part) * size)[:, None]
    centre = start + (pixel + 0.5) * part[:, None] - 0.5
    centre = torch.where(flipped[:, None], centre.flip(1), centre)
    x = (pixel - centre[..., None]).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight = torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weight / weight.sum(-1, keepdim=True)


def mirror_and_roll(image: Tensor, draws: StepRandom) -> Tensor:
    """Mirror in frequency and roll in time with probability 1/2 each, and shift in frequency.

    The shift of up to FREQUENCY_ROLL_PX pixels imitates a tuning error, and shows narrow signals at every place in a
    patch.

    Parameters
    ----------
    image : float32 [B, C, H, W], time downwards.
    draws : random numbers of the step.
    """
    n, _, height, width = image.shape
    drawn = draws.rand(n, 4)
    later = (drawn[:, 0] * height).long() * (drawn[:, 1] < 0.5)
    higher = (drawn[:, 2] * (2 * FREQUENCY_ROLL_PX + 1)).long() - FREQUENCY_ROLL_PX
    row = (torch.arange(height, device=image.device) - later[:, None]) % height
    column = (torch.arange(width, device=image.device) - higher[:, None]) % width
    column = torch.where((drawn[:, 3] < 0.5)[:, None], width - 1 - column, column)
    each = torch.arange(n, device=image.device)[:, None, None]
    return image.permute(0, 2, 3, 1)[each, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


_CHANGES: dict[str, tuple[Callable[[Tensor, StepRandom], Tensor], float]] = {
    "csi": (crop_and_flip, 0.05),
    "spectrogram": (mirror_and_roll, 0.1),
}
