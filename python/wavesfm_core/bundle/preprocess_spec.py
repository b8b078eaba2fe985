# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a bundle's contract that says how an input becomes a tile: the base class of all kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

SIDE_LIMIT = 4096
"""Largest height and width of a prepared tile."""


class PreprocessSpec(ABC):
    """One kind of preprocessing: everything that follows from the specification alone.

    A new kind is a frozen dataclass derived from this class in a new file, an entry in `spec.Preprocess`, and
    the function that computes its tiles with an entry in `preprocess.tile.PREPARERS`.
    """

    kind: ClassVar[str]
    """Name of the kind in bundle.json."""

    input_name: ClassVar[str]
    """Prefix of the golden inputs in golden.npz."""

    input_dtype: ClassVar[str]
    """Type of the values of an input."""

    tasks: ClassVar[tuple[str, ...]]
    """Tasks that a head may have, of `spec.TASKS`."""

    side_inputs: ClassVar[tuple[str, ...]] = ()
    """Model inputs beside the tile, of `spec.SOURCES`, each float32 [B, 1]."""

    has_covariances: ClassVar[bool] = False
    """Whether a bundle may have covariances of the channel."""

    @property
    @abstractmethod
    def tile_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a prepared tile."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int | str, ...]:
        """Shape of an input; an axis of any length is a name."""

    @property
    def channel_grid(self) -> tuple[int, int, int] | None:
        """Antennas, symbols and subcarriers that a head of task "channel" must have; None for any."""
        return None

    @property
    def stride_samples(self) -> int | None:
        """Samples of a stream from the start of one tile to the start of the next; None where inputs are no stream."""
        return None

    @abstractmethod
    def unscaled(self) -> Self:
        """The same preprocessing without the standardisation (mean 0, std 1), as caches of tiles hold it."""

    def rescaled(self, images: NDArray[np.float32], prepared_by: PreprocessSpec) -> NDArray[np.float32]:
        """Convert images from the range of another specification of this kind to the range of this one.

        Parameters
        ----------
        images : ndarray
            float32 [n, C, H, W], prepared without the standardisation.
        prepared_by : PreprocessSpec
            The specification that prepared them.

        Returns
        -------
        ndarray
            float32 [n, C, H, W]; `images` itself where the range is no statistic of the training data.
        """
        return images

    @abstractmethod
    def input_rows(self) -> dict[str, str]:
        """Description of an input for people, by title."""

    @abstractmethod
    def limits(self) -> str:
        """For the model card: inputs for which the model was not trained, in a sentence."""

    def steps(self) -> str:
        """Description of the steps for people: the fields and their values."""
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())

    def input_mismatch(self, array: NDArray[Any]) -> str:
        """Type and shape that an input must have, where `array` has others; "" where it fits."""
        shape = self.input_shape
        fits = array.dtype == self.input_dtype and array.ndim == len(shape)
        if fits and all(isinstance(n, str) or n == found for n, found in zip(shape, array.shape)):
            return ""
        return f"{self.input_dtype} [{', '.join(map(str, shape))}]"
