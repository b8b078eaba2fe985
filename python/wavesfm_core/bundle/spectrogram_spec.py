# SPDX-License-Identifier: GPL-3.0-or-later
"""How complex samples become a tile: a spectrogram in decibels, resized and standardised."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar, final

from ..checks import require_rules
from ..errors import BundleError
from .preprocess_spec import SIDE_LIMIT, PreprocessSpec

WINDOWS = ("hann", "hamming", "blackman", "rectangular")
REFERENCES = ("median", "full_scale")


@final
@dataclass(frozen=True)
class SpectrogramSpec(PreprocessSpec):
    """Steps: window, FFT, squared magnitude, mean over frames, decibels, FFT shift, resize, range, standardise.

    Raises
    ------
    BundleError
        A field contradicts another or lies outside its range.
    """

    kind: ClassVar[str] = "spectrogram"
    input_name: ClassVar[str] = "iq"
    input_dtype: ClassVar[str] = "complex64"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    side_inputs: ClassVar[tuple[str, ...]] = ("log10_rate",)

    fft_size: int = 512
    """Samples of one frame."""
    hop_samples: int = 512
    """Samples from the start of one frame to the start of the next."""
    window: str = "hann"
    """One of WINDOWS, scaled to unit mean power."""
    frames_averaged: int = 2
    """Frames whose power is averaged into one row."""
    rows_per_tile: int = 448
    """Rows of a full tile before the resize."""
    min_rows: int = 4
    """Fewest rows of a partial tile."""
    floor_db: float = -160.0
    """Least power of an FFT bin in dB. A tone of amplitude 1 in one bin is 0 dB with the rectangular window."""
    height: int = 224
    """Rows of the prepared tile: time, downwards. The resize is bicubic and antialiased."""
    width: int = 224
    """Columns of the prepared tile: frequency, from -rate/2 to rate/2."""
    reference: str = "median"
    """One of REFERENCES. "median" subtracts the tile's median in dB, or as much more as brings the tile's 99.9 %
    quantile down to high_db; the tile is then independent of the receiver's gain. "full_scale" subtracts nothing."""
    low_db: float = -20.0
    """Power after the reference that becomes 0; what is lower is clipped."""
    high_db: float = 60.0
    """Power after the reference that becomes 1; what is higher is clipped."""
    mean: float = 0.25
    """Subtracted from the values in [0, 1]."""
    std: float = 0.1
    """Divides the values after the mean is subtracted."""
    remove_dc: bool = field(default=False, metadata={"omit_default": True})
    """True subtracts the mean of the tile's samples, which takes a receiver's line at 0 Hz out. Absent in bundle.json
    where False, as in bundles from before the field."""

    def __post_init__(self) -> None:
        rules = {
            "fft_size": (self.fft_size >= 8 and self.fft_size % 2 == 0 and self.fft_size <= 65536, "even, 8 to 65536"),
            "hop_samples": (0 < self.hop_samples <= self.fft_size, "1 to fft_size"),
            "window": (self.window in WINDOWS, f"one of {', '.join(WINDOWS)}"),
            "frames_averaged": (1 <= self.frames_averaged <= 65536, "1 to 65536"),
            "rows_per_tile": (1 <= self.rows_per_tile <= 65536, "1 to 65536"),
            "min_rows": (1 <= self.min_rows <= self.rows_per_tile, "1 to rows_per_tile"),
            "floor_db": (math.isfinite(self.floor_db), "a finite number"),
            "height": (1 <= self.height <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "width": (1 <= self.width <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "reference": (self.reference in REFERENCES, f"one of {', '.join(REFERENCES)}"),
            "high_db": (math.isfinite(self.low_db) and self.low_db < self.high_db < math.inf, "more than low_db"),
            "mean": (math.isfinite(self.mean), "a finite number"),
            "std": (math.isfinite(self.std) and self.std > 0, "a positive number"),
        }
        require_rules("preprocess", self, rules, BundleError)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Channels (one), height and width of a prepared tile."""
        return 1, self.height, self.width

    @property
    def input_shape(self) -> tuple[int | str, ...]:
        """Samples of one stream."""
        return ("samples",)

    @property
    def frames_per_tile(self) -> int:
        """FFT frames of a full tile."""
        return self.rows_per_tile * self.frames_averaged

    @property
    def stride_samples(self) -> int:
        """Samples from the start of one tile to the start of the next."""
        return self.frames_per_tile * self.hop_samples

    @property
    def tile_samples(self) -> int:
        """Samples of a full tile; equals the stride where frames do not overlap."""
        return self.stride_samples + self.fft_size - self.hop_samples

    @property
    def min_samples(self) -> int:
        """Fewest samples of a partial tile."""
        return (self.min_rows * self.frames_averaged - 1) * self.hop_samples + self.fft_size

    def unscaled(self) -> SpectrogramSpec:
        """The same preprocessing without the standardisation."""
        return dataclasses.replace(self, mean=0.0, std=1.0)

    def input_rows(self) -> dict[str, str]:
        """Length of a tile."""
        return {"a tile": f"{self.tile_samples} samples, at least {self.min_samples}"}

    def limits(self) -> str:
        """A tile has one answer."""
        return "It gives one answer for a tile with several signals."
