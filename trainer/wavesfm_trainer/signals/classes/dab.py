# SPDX-License-Identifier: GPL-3.0-or-later
"""DAB ensembles in transmission mode I (ETSI EN 300 401 clause 14)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..ofdm import Band, fits, look, modulate, window
from ..shaping import sample_count

SPACING_HZ = 1e3
CARRIERS = 1536
SAMPLE_S = 1 / 2.048e6
NULL_S, SYMBOL_S, GUARD_S = 2656 * SAMPLE_S, 2552 * SAMPLE_S, 504 * SAMPLE_S  # clause 14.2 table 22
ROWS = 77  # the null symbol, the phase reference and 75 symbols of data
BLOCK_CARRIERS = 1712  # neighbouring channels are 1.712 MHz apart (CEPT Wiesbaden plan)
# Clause 14.3.2 tables 23 (rows from carrier -768 up, without carrier 0) and 24.
TABLE_I = "012301230123012301230123" + "032103210321032103210321"
TABLE_N = "120132232123123322211312" + "311122102233021333303011"
TABLE_H = ("0200001120002211", "0323013021232330", "0002021322022013", "0121033223212132")
PHASES = np.exp(0.25j * np.pi * np.arange(8)).astype(np.complex64)


def _reference() -> NDArray[np.uint8]:
    """Phase reference symbol in eighths of a turn, carriers -768..768 with 0 in the middle, clause 14.3.2."""
    eighths = []
    for i, n in zip(TABLE_I, TABLE_N, strict=True):
        eighths += [2 * (int(h) + int(n)) % 8 for h in 2 * TABLE_H[int(i)]]
    return np.array([*eighths[:768], 0, *eighths[768:]], np.uint8)


REFERENCE = _reference()


def _tii(rng: np.random.Generator, carriers: NDArray) -> NDArray[np.complex64]:
    """Transmitter identification: pairs of carriers in four of eight places of a comb, clause 14.8.1."""
    comb = int(rng.integers(24))
    places = rng.choice(8, 4, replace=False)
    low = (2 * comb + 48 * places[:, None] + 384 * np.arange(-2, 2)).ravel()
    low = np.where(low >= 0, low + 1, low)
    mask = np.isin(carriers, low) | np.isin(carriers, low + 1)
    return np.where(mask, PHASES[REFERENCE[carriers + 768]], 0) * np.float32(np.sqrt(CARRIERS / (48 * 32)))


def ensemble(rng: np.random.Generator, duration_s: float, band: Band, start_s: float | None = None) -> IQ:
    """One ensemble at a random phase of its 96 ms frame, or `start_s` seconds into it."""
    n_frames = int(np.ceil(duration_s / 96e-3)) + 2
    length = np.full(ROWS, SYMBOL_S)
    length[0] = NULL_S
    prefix_s = np.tile(np.concatenate(([NULL_S - 1e-3], np.full(ROWS - 1, GUARD_S))), n_frames)
    length_s = np.tile(length, n_frames)
    if start_s is None:
        start_s = window(rng, length_s, np.arange(len(length_s)) % ROWS > 0, duration_s)
    end = np.cumsum(length_s)
    first = int(np.searchsorted(end, start_s, side="right"))
    last = min(int(np.searchsorted(end, start_s + duration_s, side="right")) + 2, len(end))
    kind = np.arange(first, last) % ROWS
    carriers = band.carriers
    step = (2 * np.frombuffer(rng.bytes(len(kind) * len(carriers)), np.uint8) + 1).reshape(len(kind), -1)
    step[kind == 1] = REFERENCE[carriers + 768]
    for begin in np.flatnonzero(kind == 1):  # the differential modulation starts anew, clause 14.5
        step[begin : begin + ROWS - 1] = np.cumsum(step[begin : begin + ROWS - 1], axis=0, dtype=np.uint8)
    grid = PHASES[step & 7]
    grid[kind == 0] = 0
    if rng.random() < 0.5:
        grid[(kind == 0) & (np.arange(first, last) // ROWS % 2 == 0)] = _tii(rng, carriers)
    grid[:, carriers == 0] = 0
    iq = modulate(grid, band, prefix_s[first:last], length_s[first:last], rng.uniform(0.02, 0.25) * GUARD_S)
    skip = int((start_s - (end[first] - length_s[first])) * band.rate_hz)
    return iq[skip : skip + sample_count(duration_s, band.rate_hz)]


def _middles(rng: np.random.Generator, view_hz: float) -> list[int]:
    """Centres of the ensembles in view, in carriers from the view's centre."""
    room = int(view_hz // (BLOCK_CARRIERS * SPACING_HZ))
    if room < 2 or rng.random() < 0.5:
        if view_hz < 1.5e6 and rng.random() < 0.4:
            return [int(rng.integers(-700, 701))]
        return [0]
    count = int(rng.integers(2, min(room, 4) + 1))
    places = np.sort(rng.choice(min(room, 4), count, replace=False))
    low = rng.integers(0, room - min(room, 4) + 1)
    return [int((low + place - (room - 1) / 2) * BLOCK_CARRIERS) for place in places]


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One ensemble, or two to four neighbouring blocks in wide views, some of them synchronous."""
    middles = _middles(rng, view_hz)
    low, high = min(middles) - 768, max(middles) + 769
    fft_size = look(view_hz, SPACING_HZ, low, high).fft_size
    if len(middles) == 1 and 1.6e6 <= view_hz <= 4.1e6:
        fft_size = 2048  # native rate
    start_s = rng.uniform(2e-3, 80e-3) if rng.random() < 0.4 else None
    iq, seen = None, 0
    for middle in middles:
        band = look(view_hz, SPACING_HZ, -768, 769, -middle, fft_size)
        part = unit_power(ensemble(rng, duration_s, band, start_s))
        part *= np.float32(1 if iq is None else 10 ** (rng.uniform(-15, 6) / 20))
        iq = part if iq is None else iq + part
        seen += band.high - band.low
    placed = len(middles) > 1 or not fits(low, high, SPACING_HZ, view_hz)
    return Emission(unit_power(iq), fft_size * SPACING_HZ, min(seen * SPACING_HZ, view_hz), placed)


SIGNAL = SignalClass(
    label="dab",
    standard="ETSI EN 300 401 V2.1.1 clause 14, transmission mode I",
    views=(View(1.8e6, 2.4e6, 4), View(2.4e6, 10e6, 1)),
    make=make,
    shortest_s=0.02,
)
