# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames of IEEE 802.11 in a receiver's band: OFDM (clauses 17, 19, 21) and DSSS (clauses 15, 16)."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..base import IQ
from ..ofdm import Band, modulate, qam

SPACING_HZ = 312.5e3
CHIP_HZ = 11e6
LEGACY = np.array([k for k in range(-26, 27) if k])
LTF = (  # L_{-26,26} without the middle, clause 17.3.3
    "11001101011111100110101111" + "10011010100000110010101111"
)
STF = {-24: 1, -20: -1, -16: 1, -12: -1, -8: -1, -4: 1, 4: -1, 8: -1, 12: 1, 16: 1, 20: 1, 24: 1}  # clause 17.3.3
BARKER = np.array([1, -1, 1, 1, -1, 1, 1, 1, -1, -1, -1], np.float32)  # clause 15.4.4.4
# Outermost tone and first tone beside the middle of HT and VHT data symbols, by bandwidth in MHz (table 21-5).
EDGES = {20: (28, 1), 40: (58, 2), 80: (122, 2)}
SHORT_S, LONG_S, SYMBOL_S, GUARD_S = 8e-6, 8e-6, 4e-6, 0.8e-6


def legacy_centres(width_mhz: int) -> NDArray[np.int64]:
    """Centre tones of the 20 MHz parts of a channel, relative to the channel's centre."""
    return 64 * np.arange(width_mhz // 20) - 32 * (width_mhz // 20) + 32


def wide_tones(width_mhz: int) -> NDArray[np.int64]:
    """Tones of an HT or VHT data symbol."""
    outer, inner = EDGES[width_mhz]
    tones = np.arange(-outer, outer + 1)
    return tones[abs(tones) >= inner]


class _Frame:
    """Rows of tones in view, with their times."""

    def __init__(self, rng: np.random.Generator, band: Band, width_mhz: int) -> None:
        self.rng, self.band, self.width_mhz = rng, band, width_mhz
        self.rows: list[NDArray[np.complex64]] = []
        self.prefix_s: list[float] = []
        self.length_s: list[float] = []

    def add(self, tones: NDArray, values: NDArray, prefix_s: float, length_s: float) -> None:
        """Add symbols `values` [rows, tones] with unit mean power per symbol over all tones."""
        seen = (tones >= self.band.low) & (tones < self.band.high)
        row = np.zeros((len(values), self.band.high - self.band.low), np.complex64)
        row[:, tones[seen] - self.band.low] = values[:, seen] / np.float32(np.sqrt(len(tones)))
        self.rows.append(row)
        self.prefix_s += [prefix_s] * len(values)
        self.length_s += [length_s] * len(values)

    def legacy(self, parts: NDArray, values: NDArray, prefix_s: float, length_s: float) -> None:
        """Add symbols of 52 tones to every 20 MHz part, each rotated by a quarter turn against the previous part."""
        turned = [values * 1j ** (i % 2) for i in range(len(parts))]
        tones = np.concatenate([part + LEGACY for part in parts])
        self.add(tones, np.concatenate(turned, axis=1), prefix_s, length_s)

    def preamble(self, parts: NDArray) -> None:
        """Short and long training field and SIGNAL, clauses 17.3.3 and 17.3.4."""
        short = np.array([STF.get(int(k), 0) for k in LEGACY]) * (1 + 1j) * np.sqrt(13 / 6)
        long = np.array([2 * int(c) - 1 for c in LTF], np.complex64)
        self.legacy(parts, short[None].astype(np.complex64), SHORT_S - 3.2e-6, SHORT_S)
        self.legacy(parts, long[None], 1.6e-6, LONG_S)
        self.legacy(parts, self.bpsk(1, 52), GUARD_S, SYMBOL_S)

    def bpsk(self, count: int, tones: int) -> NDArray[np.complex64]:
        """Random BPSK symbols."""
        return (1 - 2 * self.rng.integers(0, 2, (count, tones))).astype(np.complex64)

    def samples(self) -> IQ:
        """The samples of the frame, with mean power 1 if all of it is in view."""
        grid = np.concatenate(self.rows) * np.float32(self.band.fft_size)
        return modulate(grid, self.band, np.array(self.prefix_s), np.array(self.length_s), 0.1e-6)


def legacy_duration_s(n_symbols: int) -> float:
    """Length in seconds of a clause 17 frame."""
    return SHORT_S + LONG_S + SYMBOL_S * (1 + n_symbols)


def legacy_frame(rng: np.random.Generator, band: Band, parts: NDArray, n_symbols: int, order: int) -> IQ:
    """Clause 17 frame of `n_symbols` data symbols, in each of the 20 MHz `parts`; order 2 is BPSK."""
    frame = _Frame(rng, band, 20 * len(parts))
    frame.preamble(parts)
    if n_symbols:
        data = frame.bpsk(n_symbols, 52) if order == 2 else qam(rng, (n_symbols, 52), order)
        pilots = np.flatnonzero(np.isin(LEGACY, (-21, -7, 7, 21)))
        data[:, pilots] = rng.choice([-1, 1], (n_symbols, 1)) * np.array([1, 1, 1, -1])  # clause 17.3.5.10
        frame.legacy(parts, data, GUARD_S, SYMBOL_S)
    return frame.samples()


def wide_duration_s(n_symbols: int, streams: int, vht: bool, short_guard: bool) -> float:
    """Length in seconds of an HT-mixed or VHT frame."""
    training = 4e-6 * (1 + streams)
    return (
        SHORT_S + LONG_S + 12e-6 + training + (SYMBOL_S if vht else 0) + n_symbols * (3.6e-6 if short_guard else 4e-6)
    )


def wide_frame(
    rng: np.random.Generator,
    band: Band,
    width_mhz: int,
    n_symbols: int,
    order: int,
    streams: int,
    vht: bool,
    short_guard: bool,
) -> IQ:
    """HT-mixed (clause 19.3.2) or VHT (clause 21.3.2) frame.

    Parameters
    ----------
    rng : random generator.
    band : carriers in view.
    width_mhz : 20, 40 or 80.
    n_symbols : data symbols.
    order : points of the QAM.
    streams : spatial streams, which set the number of training symbols.
    vht : VHT instead of HT.
    short_guard : guard interval of 0.4 instead of 0.8 us.
    """
    frame = _Frame(rng, band, width_mhz)
    parts = legacy_centres(width_mhz)
    frame.preamble(parts)
    frame.legacy(parts, 1j * frame.bpsk(2, 52), GUARD_S, SYMBOL_S)  # HT-SIG or VHT-SIG-A
    short = np.array([STF.get(int(k), 0) for k in LEGACY])[None] * (1 + 1j) * np.sqrt(13 / 6)
    frame.legacy(parts, short.astype(np.complex64), GUARD_S, SYMBOL_S)
    tones = wide_tones(width_mhz)
    frame.add(tones, np.repeat(frame.bpsk(1, len(tones)), streams, axis=0), GUARD_S, SYMBOL_S)
    if vht:
        frame.add(tones, frame.bpsk(1, len(tones)), GUARD_S, SYMBOL_S)  # VHT-SIG-B
    data = qam(rng, (n_symbols, len(tones)), order)
    guard_s = 0.4e-6 if short_guard else GUARD_S
    frame.add(tones, data, guard_s, 3.2e-6 + guard_s)
    return frame.samples()


def dsss_frame(rng: np.random.Generator, band: Band, n_octets: int, mbps: float, short: bool) -> IQ:
    """Clause 15 and 16 frame: Barker preamble and header, payload at 1, 2, 5.5 or 11 Mb/s."""
    slow = 72 + 24 if short else 144 + 48  # microseconds of preamble and header, of 11 chips each
    payload = int(n_octets * 8 / mbps)
    head = slow + (payload if mbps <= 2 else 0)
    turns = rng.choice([1, -1], head) if mbps < 2 else rng.choice([1, 1j, -1, -1j], head)
    chips = (turns[:, None] * BARKER).ravel().astype(np.complex64)
    if mbps > 2:  # CCK code words look like random QPSK chips in the spectrum
        chips = np.concatenate((chips, rng.choice(np.array([1, 1j, -1, -1j], np.complex64), payload * 11)))
    n_chips = 11 * scipy.fft.next_fast_len(-(-len(chips) // 11))
    spectrum = scipy.fft.fft(np.pad(chips, (0, n_chips - len(chips))), workers=1)
    size = round(n_chips * band.rate_hz / CHIP_HZ)
    step_hz = CHIP_HZ / n_chips
    bins = np.arange(size) - size // 2
    offset = round(band.centre * SPACING_HZ / step_hz)
    frequency_hz = (bins + offset) * step_hz
    cut_hz = rng.uniform(8.5e6, 11e6)  # the pulse filter differs between makers within the mask of clause 16.3.7.4
    shape = np.sinc(0.8 * frequency_hz / CHIP_HZ) / (1 + (frequency_hz / cut_hz) ** 12)
    wide = spectrum[(bins + offset) % n_chips] * (shape * (size / n_chips)).astype(np.float32)
    iq = scipy.fft.ifft(np.fft.ifftshift(wide), workers=1)
    return iq[: int(len(chips) / n_chips * size)].astype(np.complex64, copy=False)
