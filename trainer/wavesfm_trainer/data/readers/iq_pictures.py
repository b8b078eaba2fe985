# SPDX-License-Identifier: GPL-3.0-or-later
"""What readers of short IQ examples share: options, and the power spectrogram that an example becomes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import InputError

from .base import Array

LEAST_SAMPLES = 16
SAMPLES_LIMIT = 1 << 24
"""Of one example."""


@dataclass(frozen=True)
class IqPictures:
    """How examples of IQ become pictures, and which are taken.

    Raises
    ------
    ConfigurationError : a value outside its range.
    """

    fft_size: int = 0
    """Samples of a row's transform; 0: the power of two next to the square root of twice the number of samples."""
    overlap: float = 0.75
    """Share of a transform's samples that the next one shares."""
    every: int = 1
    """Take every so manieth example of a file."""
    rate_hz: float = 0.0
    """Sample rate of all examples; 0: as the file says, otherwise unknown."""

    def __post_init__(self) -> None:
        power_of_two = self.fft_size & (self.fft_size - 1) == 0
        rules = {
            "fft_size": (self.fft_size == 0 or (8 <= self.fft_size <= 65536 and power_of_two), "0, or 8 to 65536, 2^n"),
            "overlap": (0 <= self.overlap <= 0.95, "0 to 0.95"),
            "every": (self.every >= 1, "1 or more"),
            "rate_hz": (0 <= self.rate_hz < 1e12, "0 or more"),
        }
        require_rules("reader", self, rules)

    def size(self, n_samples: int) -> int:
        """Samples of a transform for an example of this length."""
        if self.fft_size:
            return min(self.fft_size, 1 << int(math.log2(n_samples)))
        return 1 << round(math.log2(math.sqrt(2 * n_samples)))

    def log10_rate(self, rate_hz: float = 0.0) -> float:
        """log10 of the option's rate, of the file's, or 0."""
        rate_hz = self.rate_hz or rate_hz
        return math.log10(rate_hz) if rate_hz > 0 else 0.0

    def picture(self, samples: NDArray[np.complex64]) -> Array:
        """Power spectrogram float32 [1, size, columns] of complex64 [n], lowest frequency in the first row.

        The Hann window has the sum 1. The mean power of the samples is 1, since these data sets have no common level.
        """
        size = self.size(len(samples))
        hop = max(1, round(size * (1 - self.overlap)))
        window = np.hanning(size + 1)[:-1]
        frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
        power = np.abs(np.fft.fft(frames * (window / window.sum()), axis=1)) ** 2
        level = float(np.mean(np.abs(samples) ** 2))
        picture = np.fft.fftshift(power, axes=1).T / (level or 1.0)
        return np.ascontiguousarray(picture, np.float32)[None]


def complex_samples(values: NDArray, source: str) -> NDArray[np.complex64]:
    """complex64 [n] of one example: complex [n], or real [n, 2] or [2, n] of I and Q.

    Raises
    ------
    InputError : another shape, too few or too many samples.
    """
    if values.dtype.kind == "c" and values.ndim == 1:
        samples = values.astype(np.complex64)
    elif values.dtype.kind in "fiu" and values.ndim == 2 and 2 in values.shape:
        pairs = values if values.shape[1] == 2 else values.T
        samples = (pairs[:, 0] + 1j * pairs[:, 1]).astype(np.complex64)
    else:
        raise InputError(source, "samples", f"{values.dtype} {list(values.shape)}", "complex [n], or I and Q [n, 2]")
    if not LEAST_SAMPLES <= len(samples) <= SAMPLES_LIMIT:
        raise InputError(source, "samples", len(samples), f"{LEAST_SAMPLES} to {SAMPLES_LIMIT}")
    return samples
