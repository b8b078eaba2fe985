# SPDX-License-Identifier: GPL-3.0-or-later
"""What a receiver does with an estimated channel: antennas combined, a grid laid out for an equaliser, its error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.ofdm_spec import OFDMSpec

Grid = NDArray[np.complex64]


def combine(grid: Grid, channel: Grid) -> tuple[Grid, Grid]:
    """Maximum-ratio combining of antennas: symbols and gain, complex64 [S, F] each, with symbols / gain what was sent.

    grid: received, channel: estimated, complex64 [A, S, F]. With y = h x + n per antenna, symbols are
    sum(conj(h) y) / gain and gain is sqrt(sum(|h|^2)), so that the noise of the symbols has the power of one antenna's.
    Where every antenna's h is zero, both are zero.
    """
    gain = np.sqrt((channel.real**2 + channel.imag**2).sum(0, dtype=np.float32))
    symbols = (channel.conj() * grid).sum(0, dtype=np.complex64) / np.where(gain > 0, gain, np.float32(1))
    return symbols.astype(np.complex64), gain.astype(np.complex64)


def spread(values: Grid, spec: OFDMSpec) -> Grid:
    """Subcarriers [..., F] laid out over the whole FFT: complex64 [..., fft_size], zero elsewhere.

    The order is that of rising frequency with DC at fft_size // 2 ("shifted"), as GNU Radio's OFDM blocks have it.
    """
    out = np.zeros((*values.shape[:-1], spec.fft_size), np.complex64)
    out[..., spec.frequencies + spec.fft_size // 2] = values
    return out


def error_vector_magnitude(equalised: Grid, sent: Grid) -> float:
    """Root of the mean |equalised - sent|^2 over the mean |sent|^2, of arrays of one shape; 0.1 is 10 %."""
    error = np.mean(np.abs(equalised - sent) ** 2, dtype=np.float64)
    return float(np.sqrt(error / np.mean(np.abs(sent) ** 2, dtype=np.float64)))
