# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared examples as training has them: arrays in memory with what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import ImageSpec, SpectrogramSpec

FORMAT = 1  # of the note


@dataclass(frozen=True)
class Examples:
    """Prepared examples in memory.

    image: [N, C, H, W] before standardisation, float16 over the spec's range or uint8 whose 0..255 are 0..1.
    target: int64 [N], float32 [N, D] metres, float32 [N, 2, A, S * F] or None. log10_rate, snr_db: float32 [N], or None
    where no example has one; single ones that are unknown are 0 and NaN.
    spec: with mean and std of the training split; note: see `write_cache`; source, group: of every example.
    """

    image: NDArray[np.float16] | NDArray[np.uint8]
    target: NDArray[Any] | None
    log10_rate: NDArray[np.float32] | None
    snr_db: NDArray[np.float32] | None
    spec: ImageSpec | SpectrogramSpec
    note: dict[str, Any]
    source: tuple[str, ...] = ()
    group: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image)

    def standardised(self, rows: Sequence[int] | slice = slice(None)) -> NDArray[np.float32]:
        """float32 [n, C, H, W] as the model takes them (what `prepare` gives for the spec, but for rounding)."""
        image = self.image[rows].astype(np.float32)
        if self.image.dtype == np.uint8:
            image /= 255
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (image - mean) / std
