# SPDX-License-Identifier: GPL-3.0-or-later
"""Use of an estimated channel: combining of antennas, grids for an equaliser, error vector magnitude."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.ofdm_spec import OFDMSpec

Grid = NDArray[np.complex64]


def combine(grid: Grid, channel: Grid) -> tuple[Grid, Grid]:
    """Maximum-ratio combining of antennas.

    With y = h x + n for each antenna, symbols = sum(conj(h) y) / gain and gain = sqrt(sum(|h|^2)), so the noise of the
    symbols has the power of the noise of one antenna, and symbols / gain estimates x.

    Parameters
    ----------
    grid : ndarray
        Received, complex64 [A, S, F].
    channel : ndarray
        Estimated, complex64 [A, S, F].

    Returns
    -------
    symbols, gain : ndarray
        complex64 [S, F] each; zero where the channels of all antennas are zero.
    """
    gain = np.sqrt((channel.real**2 + channel.imag**2).sum(0, dtype=np.float32))
    symbols = (channel.conj() * grid).sum(0, dtype=np.complex64) / np.where(gain > 0, gain, np.float32(1))
    return symbols.astype(np.complex64), gain.astype(np.complex64)


def spread(values: Grid, spec: OFDMSpec) -> Grid:
    """Place subcarriers [..., F] in the whole FFT, complex64 [..., fft_size], with zeros elsewhere.

    The order is rising frequency with DC at fft_size // 2 ("shifted"), as in GNU Radio's OFDM blocks.
    """
    out = np.zeros((*values.shape[:-1], spec.fft_size), np.complex64)
    out[..., spec.frequencies + spec.fft_size // 2] = values
    return out


def error_vector_magnitude(equalised: Grid, sent: Grid) -> float:
    """Root of mean |equalised - sent|^2 over mean |sent|^2 of arrays of equal shape; 0.1 is 10 %."""
    error = np.mean(np.abs(equalised - sent) ** 2, dtype=np.float64)
    return float(np.sqrt(error / np.mean(np.abs(sent) ** 2, dtype=np.float64)))
