# SPDX-License-Identifier: GPL-3.0-or-later
"""NB-IoT downlink (3GPP TS 36.211 clause 10.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ
from ..ofdm import Band, look, render, runs
from .lte import SPACING_HZ, SUBFRAME_ROWS, symbol_times

COVER = (1, 1, 1, 1, -1, -1, 1, 1, 1, -1, 1)  # S(l) of table 10.2.7.1.1-1


def npss() -> NDArray[np.complex64]:
    """Narrowband primary synchronisation signal [11 symbols, 12 carriers], the last carrier silent."""
    n = np.arange(11)
    row = np.exp(-1j * np.pi * 5 * n * (n + 1) / 11)
    out = np.zeros((11, 12), np.complex64)
    out[:, :11] = np.array(COVER)[:, None] * row
    return out


def nsss(identity: int, frame: int) -> NDArray[np.complex64]:
    """Narrowband secondary synchronisation signal [11 symbols, 12 carriers] of identities below 126 (b_q all ones)."""
    n = np.arange(132)
    ramp = 33 / 132 * (frame // 2 % 4) * n
    turned = (identity % 126 + 3) * (n % 131) * (n % 131 + 1) / 2 / 131
    return np.exp(-2j * np.pi * (ramp + turned)).astype(np.complex64).reshape(11, 12)


def draw_band(rng: np.random.Generator, view_hz: float) -> tuple[Band, int]:
    """The carriers in view and the number of 180 kHz carriers (one anchor, more in wide views)."""
    count = int(rng.integers(2, 4)) if view_hz > 0.8e6 and rng.random() < 0.25 else 1
    return look(view_hz, SPACING_HZ, 0, 12 * count, 6 * count), count


def _carrier(rng: np.random.Generator, n_subframes: int, anchor: bool, first: int, shift: int) -> NDArray[np.float32]:
    """Amplitudes [subframes, 14, 12] of one carrier: NPBCH, NPDSCH, NPDCCH and NRS, clauses 10.2.3 to 10.2.6."""
    number = np.arange(n_subframes) % 10
    load = float(rng.choice([0.05, rng.uniform(0.1, 0.9), 1.0], p=[0.35, 0.4, 0.25]))
    on, _ = runs(rng, n_subframes, load, float(rng.integers(1, 30)))
    if anchor:
        on |= number == 0
        on |= (number == 4) & (np.arange(n_subframes) // 10 % 2 == 0)  # SIB1-NB, TS 36.213 clause 16.4.1.3
    gain = np.zeros((n_subframes, SUBFRAME_ROWS, 12), np.float32)
    gain[on, first:] = 1
    pilots = np.ones(n_subframes, bool) if anchor else on
    ports = int(rng.integers(1, 3))
    level = 10 ** (rng.uniform(-1, 3) / 20)
    for port in range(ports):
        for order, symbol in enumerate((5, 6, 12, 13)):  # the last two symbols of each slot, clause 10.2.6.2
            v = 3 * ((order + port) % 2)
            gain[np.flatnonzero(pilots)[:, None], symbol, np.arange((v + shift) % 6, 12, 6)] = level
    return gain


def cell(rng: np.random.Generator, duration_s: float, band: Band, count: int) -> IQ:
    """One cell with an anchor carrier and count - 1 others, in-band (without the first symbols) or stand-alone."""
    n_subframes = int(np.ceil(duration_s * 1e3)) + 22
    identity = int(rng.integers(126))
    first = int(rng.choice([0, 0, 3]))
    anchor = int(rng.integers(count))
    parts = [_carrier(rng, n_subframes, i == anchor, first, identity % 6) for i in range(count)]
    fixed: list[tuple[int, int, NDArray]] = []
    for i, part in enumerate(parts):
        part *= np.float32(1 if i == anchor else 10 ** (rng.uniform(-6, 3) / 20))
    level = np.float32(10 ** (rng.uniform(-1, 2) / 20))
    for subframe in range(n_subframes):
        number, frame = subframe % 10, subframe // 10
        if number == 5 or (number == 9 and frame % 2 == 0):
            parts[anchor][subframe] = 0
            values = npss() if number == 5 else nsss(identity, frame)
            row = subframe * SUBFRAME_ROWS + 3
            fixed += [(row + symbol, 12 * anchor, values[symbol] * level) for symbol in range(11)]
    gain = np.concatenate(parts, axis=2)[:, :, band.low : band.high]
    prefix_s, length_s = symbol_times(n_subframes)
    return render(rng, gain.reshape(-1, band.high - band.low), fixed, band, prefix_s, length_s, duration_s, 4, 2e-6)
