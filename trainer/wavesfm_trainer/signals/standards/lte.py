# SPDX-License-Identifier: GPL-3.0-or-later
"""LTE cells: FDD and TDD downlink and the uplink of phones (3GPP TS 36.211 clauses 4 to 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ
from ..ofdm import Band, Gain, allocate, look, render, runs

SPACING_HZ = 15e3
RESOURCE_BLOCKS = (6, 15, 25, 50, 75, 100)  # 1.4, 3, 5, 10, 15 and 20 MHz, TS 36.104 table 5.6-1
CHIP_S = 1 / 30.72e6
PREFIX = np.tile([160, 144, 144, 144, 144, 144, 144], 2) * CHIP_S  # clause 6.12, normal prefix
SUBFRAME_ROWS = 14
# Clause 4.2 table 4.2-2: uplink-downlink configurations.
TDD = ("DSUUUDSUUU", "DSUUDDSUUD", "DSUDDDSUDD", "DSUUUDDDDD", "DSUUDDDDDD", "DSUDDDDDDD", "DSUUUDSUUD")
DWPTS_SYMBOLS = (3, 6, 9, 10, 11, 12)  # clause 4.2 table 4.2-1
GROUP = {6: 1, 15: 2, 25: 2, 50: 3, 75: 4, 100: 4}  # TS 36.213 table 7.1.6.1-1


def symbol_times(n_subframes: int) -> tuple[NDArray, NDArray]:
    """Cyclic prefix and whole length in seconds of every symbol, normal prefix."""
    prefix = np.tile(PREFIX, n_subframes)
    return prefix, prefix + 2048 * CHIP_S


def band_of(view_hz: float, n_rb: int, centre: int = 0, fft_size: int = 0) -> Band:
    """The carriers of a cell in view; carrier 0 is the silent one at its centre."""
    return look(view_hz, SPACING_HZ, -6 * n_rb, 6 * n_rb + 1, centre, fft_size)


def pss(root: int) -> NDArray[np.complex64]:
    """Primary synchronisation signal on carriers -31..31, clause 6.11.1."""
    n = np.arange(31)
    low = np.exp(-1j * np.pi * root * n * (n + 1) / 63)
    high = np.exp(-1j * np.pi * root * (n + 32) * (n + 33) / 63)
    return np.concatenate((low, [0], high)).astype(np.complex64)


def _m_sequence(taps: tuple[int, ...]) -> NDArray[np.int64]:
    """+-1 sequence of length 31 with x(i + 5) = sum of x(i + tap), clause 6.11.2.1."""
    x = [0, 0, 0, 0, 1]
    for i in range(26):
        x.append(sum(x[i + tap] for tap in taps) % 2)
    return 1 - 2 * np.array(x)


def sss(group: int, identity: int, second: bool) -> NDArray[np.complex64]:
    """Secondary synchronisation signal on carriers -31..31 of subframe 0 or (`second`) 5, clause 6.11.2."""
    q_prime = group // 30
    q = (group + q_prime * (q_prime + 1) // 2) // 30
    m_prime = group + q * (q + 1) // 2
    m0 = m_prime % 31
    m1 = (m0 + m_prime // 31 + 1) % 31
    s, c, z = _m_sequence((0, 2)), _m_sequence((0, 3)), _m_sequence((0, 1, 2, 4))
    n = np.arange(31)
    first, other = (m1, m0) if second else (m0, m1)
    d = np.empty(62)
    d[0::2] = s[(n + first) % 31] * c[(n + identity) % 31]
    d[1::2] = s[(n + other) % 31] * c[(n + identity + 3) % 31] * z[(n + first % 8) % 31]
    return np.concatenate((d[:31], [0], d[31:])).astype(np.complex64)


def _uplink(rng: np.random.Generator, gain: Gain, uplink: NDArray, block: NDArray, n_rb: int) -> None:
    """Bursts of phones in the uplink subframes: PUSCH blocks and PUCCH at both edges (clauses 5.3 and 5.4)."""
    gain[uplink] = 0
    level = 10 ** (rng.uniform(-20, 8) / 20)
    on, number = runs(rng, len(gain), rng.choice([0.0, 0.05, 0.3, 0.8]), float(rng.integers(1, 12)))
    width = np.ceil(rng.beta(0.7, 2.0, number[-1] + 1) * n_rb)[number, None]
    begin = np.floor(rng.random(number[-1] + 1)[number, None] * (n_rb - width + 1))
    chosen = (block >= begin) & (block < begin + width) & (on & uplink)[:, None]
    gain += (level * chosen).astype(np.float32)[:, None, :]
    control = np.flatnonzero(uplink & (rng.random(len(gain)) < rng.choice([0.0, 0.1, 0.5])))
    edge, other = (block == 0), (block == n_rb - 1)
    gain[control[:, None, None], np.arange(7)[:, None], np.flatnonzero(edge)] = level
    gain[control[:, None, None], np.arange(7, 14)[:, None], np.flatnonzero(other)] = level


def _pilots(gain: Gain, index: NDArray, shift: int, ports: int, level: float, mbsfn: NDArray) -> None:
    """Cell-specific reference signals of 1, 2 or 4 antenna ports, clause 6.10.1.2."""
    for port in range(ports):
        for order, symbol in enumerate((0, 4, 7, 11) if port < 2 else (1, 8)):
            v = 3 * ((order + port) % 2)
            rows = np.flatnonzero(~mbsfn) if symbol > 1 else np.arange(len(gain))
            chosen = np.flatnonzero(index % 6 == (v + shift) % 6)
            gain[rows[:, None], symbol, chosen] = level


def _control(rng: np.random.Generator, gain: Gain, symbols: int, load: float) -> None:
    """PDCCH, PHICH and PCFICH: groups of four carriers in the first symbols of each subframe, clauses 6.7 to 6.9."""
    n_subframes, _, n_carriers = gain.shape
    use = np.clip(load * rng.uniform(0.3, 1.3) + 0.04, 0, 1) * (rng.random(n_subframes) < 0.5 + load)
    regs = rng.random((n_subframes, symbols, n_carriers // 4 + 1), dtype=np.float32) < use[:, None, None]
    regs[:, 0, :: max(regs.shape[2] // 4, 1)] = True  # PCFICH is in every subframe
    gain[:, :symbols] = np.repeat(regs, 4, axis=2)[:, :, :n_carriers]


def draw_load(rng: np.random.Generator) -> float:
    """Share of the downlink that carries data: idle, light, busy or full."""
    kind = rng.choice(4, p=[0.2, 0.35, 0.25, 0.2])
    return float((0.0, rng.uniform(0.02, 0.3), rng.uniform(0.3, 0.95), 1.0)[kind])


def _broadcast(rng: np.random.Generator, gain: Gain, block: NDArray, n_rb: int) -> None:
    """SIB1 in subframe 5 of every second frame, and other system information (TS 36.331 clause 5.2.1.2)."""
    width = min(n_rb, int(rng.integers(3, 9)))
    begin = int(rng.integers(0, n_rb - width + 1))
    chosen = np.flatnonzero((block >= begin) & (block < begin + width))
    rows = np.arange(5, len(gain), 20)
    extra = np.arange(int(rng.integers(0, 40)), len(gain), int(rng.choice([40, 80, 160])))
    gain[np.ix_(np.concatenate((rows, extra)), np.arange(14), chosen)] = 1


def cell(rng: np.random.Generator, duration_s: float, n_rb: int, band: Band, load: float | None = None) -> IQ:
    """Downlink of one cell (in TDD with the uplink of its phones) at a random phase of its frame.

    Parameters
    ----------
    rng : random generator.
    duration_s : length in seconds.
    n_rb : resource blocks.
    band : carriers in view.
    load : share of the capacity that is used, 0 to 1; None: drawn.
    """
    load = draw_load(rng) if load is None else load
    tdd = TDD[int(rng.choice(7, p=[0.05, 0.25, 0.4, 0.05, 0.1, 0.1, 0.05]))] if rng.random() < 0.3 else None
    n_subframes = int(np.ceil(duration_s * 1e3)) + 12
    number = np.arange(n_subframes) % 10
    carriers = band.carriers
    index = carriers + 6 * n_rb - (carriers > 0)
    block = index // 12
    data = allocate(rng, n_subframes, n_rb, load, GROUP[n_rb]) * 10 ** (rng.uniform(-4, 1) / 20)
    gain = np.repeat(data[:, None, block], SUBFRAME_ROWS, axis=1)
    _broadcast(rng, gain, block, n_rb)
    mbsfn = np.isin(number, rng.choice([1, 2, 3, 6, 7, 8], int(rng.integers(1, 7)), replace=False))
    mbsfn &= bool(rng.random() < 0.08)
    if rng.random() < 0.7:
        gain[mbsfn] = 0
    _control(rng, gain, int(rng.integers(2, 5) if n_rb == 6 else rng.integers(1, 4)), load)
    identity, group = int(rng.integers(3)), int(rng.integers(168))
    ports = int(rng.choice([1, 2, 4], p=[0.15, 0.6, 0.25]))
    _pilots(gain, index, (3 * group + identity) % 6, ports, 10 ** (rng.uniform(-1, 3) / 20), mbsfn)
    gain[np.ix_(np.flatnonzero(number == 0), np.arange(7, 11), np.flatnonzero(abs(carriers) <= 36))] = 1  # PBCH, 6.6.4
    if tdd:
        special = np.array(list(tdd))[number] == "S"
        gain[special, int(rng.choice(DWPTS_SYMBOLS)) :] = 0
        _uplink(rng, gain, np.array(list(tdd))[number] == "U", block, n_rb)
    if n_rb > 15 and rng.random() < 0.06:
        gain[:, 3:, block == int(rng.integers(n_rb))] = 2  # an NB-IoT block inside the cell, boosted by 6 dB
    gain[:, :, carriers == 0] = 0
    prefix_s, length_s = symbol_times(n_subframes)
    rows = gain.reshape(-1, len(carriers))
    fixed = _sync(number, group, identity, tdd is not None, 10 ** (rng.uniform(-1, 3) / 20))
    return render(rng, rows, fixed, band, prefix_s, length_s, duration_s, int(rng.choice([4, 16, 64])),
                  rng.uniform(0.5e-6, 3.5e-6))  # fmt: skip


def _sync(number: NDArray, group: int, identity: int, tdd: bool, level: float) -> list[tuple[int, int, NDArray]]:
    """Rows of the synchronisation signals: subframes 0 and 5, TDD's PSS in 1 and 6, clause 6.11."""
    silent = np.zeros(5, np.complex64)

    def framed(values: NDArray) -> NDArray:
        return np.concatenate((silent, values * np.float32(level), silent))

    primary = framed(pss((25, 29, 34)[identity]))
    fixed = []
    for subframe in np.flatnonzero(number % 5 == 0):
        row = int(subframe) * SUBFRAME_ROWS
        fixed.append((row + (13 if tdd else 5), -36, framed(sss(group, identity, bool(number[subframe] == 5)))))
        if not tdd:
            fixed.append((row + 6, -36, primary))
        elif subframe + 1 < len(number):
            fixed.append((row + SUBFRAME_ROWS + 2, -36, primary))
    return fixed


def uplink(rng: np.random.Generator, duration_s: float, n_rb: int, band: Band) -> IQ:
    """Uplink of an FDD cell: PUSCH and PUCCH bursts of one or more subframes at several levels."""
    n_subframes = int(np.ceil(duration_s * 1e3)) + 42
    carriers = band.carriers
    block = np.minimum((carriers + 6 * n_rb) // 12, n_rb - 1)
    total = np.zeros((n_subframes, SUBFRAME_ROWS, len(carriers)), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        gain = np.zeros_like(total)
        _uplink(rng, gain, np.ones(n_subframes, bool), block, n_rb)
        total = np.maximum(total, gain)
    if not total.any():
        total[int(rng.integers(2, n_subframes - 2))] = 1
    prefix_s, length_s = symbol_times(n_subframes)
    return render(rng, total.reshape(-1, len(carriers)), [], band, prefix_s, length_s, duration_s, 16, 2e-6)
