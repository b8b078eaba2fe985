# SPDX-License-Identifier: GPL-3.0-or-later
"""How an array of CSI, pilots or powers becomes a tile: resized, brought to a range and standardised."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ..checks import require_rules
from ..errors import BundleError
from .preprocess_spec import SIDE_LIMIT, PreprocessSpec

CHANNELS_LIMIT = 64
VALUES_LIMIT = 1 << 26
"""Most values of a prepared tile, all channels together: 256 MiB."""


@final
@dataclass(frozen=True)
class ImageSpec(PreprocessSpec):
    """Steps: decibels where `decibel_floor` is set, bicubic antialiased resize, range, standardise.

    All steps but the decibels are affine and the weights of the resize sum to 1. The orders in which the paper has the
    steps (the range before the resize in pre-training, after it in most tasks; the resize last for channel estimation)
    therefore give the same numbers but for rounding, and this one order serves all of them.

    Raises
    ------
    BundleError
        A field contradicts another or lies outside its range.
    """

    kind: ClassVar[str] = "image"
    input_name: ClassVar[str] = "array"
    input_dtype: ClassVar[str] = "float32"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "position", "channel")

    channels: int
    """Channels of the array and of the tile."""
    low: float
    """Value that becomes range_low: the least of the training data. Nothing is clipped."""
    high: float
    """Value that becomes range_high: the greatest of the training data. Nothing is clipped."""
    mean: tuple[float, ...]
    """Subtracted after the range, one number for each channel."""
    std: tuple[float, ...]
    """Divides after the mean is subtracted, one number for each channel."""
    range_low: float = 0.0
    """Lower end of the range."""
    range_high: float = 1.0
    """Upper end of the range."""
    decibel_floor: float | None = None
    """For powers: x becomes 10 log10(x + decibel_floor) first (1e-12 in the paper). None for no decibels."""
    height: int = 224
    """Rows of the prepared tile."""
    width: int = 224
    """Columns of the prepared tile."""

    def __post_init__(self) -> None:
        each = f"{self.channels} finite numbers, one for each channel"
        rules = {
            "channels": (1 <= self.channels <= CHANNELS_LIMIT, f"1 to {CHANNELS_LIMIT}"),
            "low": (math.isfinite(self.low), "a finite number"),
            "high": (self.low < self.high < math.inf, "more than low"),
            "mean": (len(self.mean) == self.channels and all(map(math.isfinite, self.mean)), each),
            "std": (
                len(self.std) == self.channels and all(math.isfinite(std) and std > 0 for std in self.std),
                f"{self.channels} positive numbers, one for each channel",
            ),
            "range_low": (math.isfinite(self.range_low), "a finite number"),
            "range_high": (self.range_low < self.range_high < math.inf, "more than range_low"),
            "decibel_floor": (
                self.decibel_floor is None or 0 < self.decibel_floor < math.inf,
                "a positive number, or null for no decibels",
            ),
            "height": (1 <= self.height <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "width": (1 <= self.width <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "tile_shape": (math.prod(self.tile_shape) <= VALUES_LIMIT, f"at most {VALUES_LIMIT} values"),
        }
        require_rules("preprocess", self, rules, BundleError)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a prepared tile."""
        return self.channels, self.height, self.width

    @property
    def input_shape(self) -> tuple[int | str, ...]:
        """Channels, and rows and columns of any number."""
        return self.channels, "rows", "columns"

    def unscaled(self) -> ImageSpec:
        """The same preprocessing without the standardisation."""
        return dataclasses.replace(self, mean=(0.0,) * self.channels, std=(1.0,) * self.channels)

    def rescaled(self, images: NDArray[np.float32], prepared_by: PreprocessSpec) -> NDArray[np.float32]:
        """See `PreprocessSpec.rescaled`; the range maps low and high linearly, so one follows from the other."""
        if not isinstance(prepared_by, ImageSpec) or (self.low, self.high) == (prepared_by.low, prepared_by.high):
            return images
        span, low = self.high - self.low, self.range_low
        step = (prepared_by.high - prepared_by.low) / span
        shift = (prepared_by.low - self.low) / span * (self.range_high - low)
        return (images - np.float32(low)) * np.float32(step) + np.float32(low + shift)

    def input_rows(self) -> dict[str, str]:
        """Shape of an array."""
        return {"a tile": f"an array [{self.channels}, rows, columns]"}

    def limits(self) -> str:
        """Range of the values in training."""
        unit = " dB" if self.decibel_floor is not None else ""
        return f"Arrays in training lay between {self.low:g} and {self.high:g}{unit}."
