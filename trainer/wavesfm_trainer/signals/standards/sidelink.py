# SPDX-License-Identifier: GPL-3.0-or-later
"""LTE sidelink of vehicles, C-V2X mode 4 (3GPP TS 36.211 clause 9, TS 36.213 clause 14)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ
from ..ofdm import Band, look, qam, render
from .lte import SPACING_HZ, SUBFRAME_ROWS, pss, symbol_times

GUARD_ROW = 13  # the last symbol of every subframe stays silent, clause 9.3.5 and 9.4.5
SUBCHANNELS = {50: ((5, 10), (10, 5), (12, 4), (16, 3), (25, 2)), 100: ((10, 10), (20, 5), (25, 4), (50, 2))}


def band_of(view_hz: float, n_rb: int, centre: int = 0) -> Band:
    """The carriers of the sidelink in view."""
    return look(view_hz, SPACING_HZ, -6 * n_rb, 6 * n_rb, centre)


def _spread(rng: np.random.Generator, n_carriers: int) -> NDArray[np.complex64]:
    """SC-FDMA symbols [13, carriers]: DFT of QPSK, with constant-amplitude reference rows (clauses 9.3 and 9.8)."""
    rows = np.fft.fft(qam(rng, (GUARD_ROW, n_carriers), 4), axis=1) / np.sqrt(n_carriers)
    reference = np.array([2, 5, 8, 11])
    rows[reference] = qam(rng, (4, n_carriers), 4)
    return rows.astype(np.complex64)


def _message(
    rng: np.random.Generator, subframe: int, low: int, n_rb: int, level: float
) -> list[tuple[int, int, NDArray]]:
    """One transmission: two blocks of PSCCH, 3 dB stronger, and the PSSCH beside them (TS 36.213 clause 14.1.1.4)."""
    control = _spread(rng, 24) * np.float32(level * np.sqrt(2))
    shared = _spread(rng, 12 * (n_rb - 2)) * np.float32(level)
    rows = np.concatenate((control, shared), axis=1)
    return [(subframe * SUBFRAME_ROWS + symbol, low, rows[symbol]) for symbol in range(GUARD_ROW)]


def _slss(rng: np.random.Generator, subframe: int, level: float) -> list[tuple[int, int, NDArray]]:
    """Synchronisation: PSSS in symbols 1 and 2, SSSS in 11 and 12, PSBCH around them, six blocks (clauses 9.6, 9.7)."""
    rows = _spread(rng, 72)
    rows[[1, 2]] = 0
    rows[[11, 12]] = 0
    primary = np.delete(pss(26), 31)  # root 26 or 37, mapped without the silent middle carrier
    rows[[1, 2], 5:67] = primary
    rows[[11, 12], 5:67] = rng.choice([-1, 1], 62)
    rows *= np.float32(level)
    return [(subframe * SUBFRAME_ROWS + symbol, -36, rows[symbol]) for symbol in range(GUARD_ROW)]


def traffic(rng: np.random.Generator, duration_s: float, n_rb: int, band: Band) -> IQ:
    """Vehicles with a message (sometimes repeated) every 20 to 100 ms at individual levels, and synchronisation."""
    n_subframes = int(np.ceil(duration_s * 1e3)) + 102
    width, count = SUBCHANNELS[n_rb][int(rng.integers(len(SUBCHANNELS[n_rb])))]
    offset = int(rng.integers(0, n_rb - width * count + 1))
    fixed: list[tuple[int, int, NDArray]] = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 6, 15]))):
        level = 10 ** (rng.uniform(-18, 0) / 20)
        period = int(rng.choice([20, 50, 100]))
        used = int(rng.integers(1, count + 1))
        first = int(rng.integers(0, count - used + 1))
        low = 12 * (offset + first * width) - 6 * n_rb
        again = int(rng.integers(1, 16)) if rng.random() < 0.5 else 0
        for subframe in range(int(rng.integers(0, period)), n_subframes - 18, period):
            fixed += _message(rng, subframe, low, used * width, level)
            if again:
                fixed += _message(rng, subframe + again, low, used * width, level)
    if rng.random() < 0.35:
        level = 10 ** (rng.uniform(-12, 0) / 20)
        for subframe in range(int(rng.integers(0, 100)), n_subframes - 1, 160):
            fixed += _slss(rng, subframe, level)
    gain = np.zeros((n_subframes * SUBFRAME_ROWS, band.high - band.low), np.float32)
    prefix_s, length_s = symbol_times(n_subframes)
    return render(rng, gain, fixed, band, prefix_s, length_s, duration_s, 4, 1e-6)
