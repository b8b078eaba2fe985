# SPDX-License-Identifier: GPL-3.0-or-later
"""Real samples as a complex signal of half the rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..types import Samples

MARGIN = 64
"""Real samples that `analytic` needs on either side of those it converts."""
_ODD = np.arange(-MARGIN + 1, MARGIN, 2)
_TAPS = (2.0 / (np.pi * _ODD) * np.kaiser(2 * MARGIN + 1, 8.0)[MARGIN + _ODD]).astype(np.float32)


def analytic(values: NDArray[np.float32], first: int = 0) -> Samples:
    """The analytic signal, moved down by a quarter of the real rate and taken at every second sample.

    The real band from 0 to rate/2 becomes the complex band of width rate/2 around rate/4. A tone of amplitude A stays
    a tone of amplitude A. Half-band filter (windowed sinc, Kaiser 8): images below -80 dB outside 3 % of the rate at
    the edges of the band.

    Parameters
    ----------
    values : float32 [2 * MARGIN + 2 * n]
        Real samples, with MARGIN samples before and after those to convert.
    first : int
        Index of the first complex sample in its stream, for the phase of the shift.

    Returns
    -------
    complex64 [n]
    """
    n = (len(values) - 2 * MARGIN) // 2
    even = values[MARGIN : MARGIN + 2 * n : 2]
    odd = values[1 : 2 * MARGIN + 2 * n : 2]  # from sample 1 - MARGIN on
    quadrature = np.convolve(odd, _TAPS, "valid")[:n]
    signs = np.where((first + np.arange(n)) % 2, np.float32(-1), np.float32(1))
    return ((even + 1j * quadrature) * signs).astype(np.complex64)
