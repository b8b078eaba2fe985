# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared examples in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec

FORMAT = 1  # of the note


@dataclass(frozen=True)
class Examples:
    """N prepared examples in memory."""

    image: NDArray[np.float16] | NDArray[np.uint8]
    """[N, C, H, W] before standardisation: float16 in the spec's range, or uint8 whose 0 to 255 mean 0 to 1."""
    target: NDArray[Any] | None
    """Class int64 [N], position float32 [N, D] in metres, channel float32 [N, 2, A, S * F], or None."""
    log10_rate: NDArray[np.float32] | None
    """float32 [N], log10 of the sample rate in Hz, 0 where unknown; None if unknown for all."""
    snr_db: NDArray[np.float32] | None
    """float32 [N], signal-to-noise ratio in dB, NaN where unknown; None if unknown for all."""
    spec: ImageSpec | SpectrogramSpec
    """Preprocessing, with mean and standard deviation of the training part."""
    note: dict[str, Any]
    """See `cache.write_cache`."""
    source: tuple[str, ...] = ()
    """File and index of every example."""
    group: tuple[str, ...] = ()
    """Group of every example, see `Raw.group`."""

    def __len__(self) -> int:
        return len(self.image)

    def standardised(self, rows: Sequence[int] | slice = slice(None)) -> NDArray[np.float32]:
        """float32 [n, C, H, W], the input of a model; equal to the result of `prepare` up to rounding."""
        image = self.image[rows].astype(np.float32)
        if self.image.dtype == np.uint8:
            image /= 255
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (image - mean) / std
