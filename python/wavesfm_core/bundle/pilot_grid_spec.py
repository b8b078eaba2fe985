# SPDX-License-Identifier: GPL-3.0-or-later
"""How the received grid of an OFDM slot becomes a tile of its pilots."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, final

from ..checks import require_rules
from ..errors import BundleError
from .image_spec import ImageSpec
from .ofdm_spec import OFDMSpec
from .preprocess_spec import PreprocessSpec

LAYOUTS = ("image", "least_squares")


@final
@dataclass(frozen=True)
class PilotGridSpec(PreprocessSpec):
    """An input is a received grid, complex64 [A, S, F]; the tile holds what its P pilot symbols say at Fp subcarriers.

    Raises
    ------
    BundleError
        A field contradicts another or lies outside its range.
    """

    kind: ClassVar[str] = "pilot_grid"
    input_name: ClassVar[str] = "grid"
    input_dtype: ClassVar[str] = "complex64"
    tasks: ClassVar[tuple[str, ...]] = ("channel",)
    side_inputs: ClassVar[tuple[str, ...]] = ("snr_db",)
    has_covariances: ClassVar[bool] = True

    numerology: OFDMSpec
    """Numerology of the slot."""
    layout: str
    """One of LAYOUTS. "image" is the paper's: float32 [2, 1 + A, P * Fp], real and imaginary part; row 0 holds the
    transmitted pilots and the rows below the received ones of each antenna, pilot symbol after pilot symbol; the steps
    of `image` follow. "least_squares" is received over transmitted pilots, divided by the root of the slot's mean power
    of that quotient: float32 [2 P, A, Fp], real and imaginary part of the first pilot symbol, then of the second."""
    image: ImageSpec | None = None
    """Of 2 channels for layout "image"; None for "least_squares"."""

    def __post_init__(self) -> None:
        is_image = self.layout == "image"
        fits = self.image is not None and self.image.channels == 2 if is_image else self.image is None
        rules = {
            "layout": (self.layout in LAYOUTS, f"one of {', '.join(LAYOUTS)}"),
            "image": (fits, "an image of 2 channels" if is_image else "null, since the layout is least_squares"),
        }
        require_rules("preprocess", self, rules, BundleError)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Shape of a prepared tile: the image's, or 2 P, A and Fp."""
        if self.image is not None:
            return self.image.tile_shape
        symbols, subcarriers = self.numerology.pilots.shape
        return 2 * symbols, self.numerology.antennas, subcarriers

    @property
    def input_shape(self) -> tuple[int | str, ...]:
        """Antennas, symbols and subcarriers of the numerology."""
        return self.numerology.grid_shape

    @property
    def channel_grid(self) -> tuple[int, int, int]:
        """The numerology's grid."""
        return self.numerology.grid_shape

    def unscaled(self) -> PilotGridSpec:
        """The same preprocessing without the standardisation of its image."""
        return self if self.image is None else dataclasses.replace(self, image=self.image.unscaled())

    def input_rows(self) -> dict[str, str]:
        """Numerology and pilots."""
        numerology, (_, pilots) = self.numerology, self.numerology.pilots.shape
        symbols = ", ".join(map(str, numerology.pilot_symbols))
        return {
            "numerology": f"{numerology.id}: FFT {numerology.fft_size}, {numerology.spacing_hz / 1e3:g} kHz, "
            f"{numerology.rate_hz / 1e6:g} MS/s, {numerology.slot_samples} samples a slot",
            "pilots": f"on symbols {symbols}, {pilots} subcarriers each, every {numerology.pilot_step}. from "
            f"{numerology.pilot_offset} on",
        }

    def limits(self) -> str:
        """Channels unlike those of the training."""
        return (
            "On channels unlike those of its training (faster, of longer delays, of another array) it may be worse "
            "than least squares; the residual at the pilots shows where, and core's BackOff goes by it."
        )

    def steps(self) -> str:
        """The layout, and the image's steps."""
        return self.layout if self.image is None else f"{self.layout}: {self.image.steps()}"
