# SPDX-License-Identifier: GPL-3.0-or-later
"""5G NR cells: downlink with SSB bursts, control resource sets and little data (3GPP TS 38.211 clauses 5.3 and 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ
from ..ofdm import Band, Fixed, Gain, allocate, look, render, runs

# TS 38.101-1 table 5.3.2-1: resource blocks of the usual carriers (5 to 100 MHz).
RESOURCE_BLOCKS = {15e3: (25, 52, 79, 106, 216), 30e3: (24, 38, 51, 106, 133, 217, 273)}
CHIP_S = 1 / (480e3 * 4096)  # T_c, clause 4.1
# TS 38.213 clause 4.1: first symbols of the SSBs of a burst, cases A (15 kHz), C and B (30 kHz).
CASE_A = tuple(s + 14 * n for n in range(4) for s in (2, 8))
CASE_B = tuple(s + 28 * n for n in range(2) for s in (4, 8, 16, 20))
TDD = {15e3: ("DDDSU", "DSUUU", "DDDDDDDSUU"), 30e3: ("DDDSU", "DDDDDDDSUU", "DDDSUUDDDD")}
SSB_CARRIERS = 240


def symbol_times(spacing_hz: float, n_slots: int) -> tuple[NDArray, NDArray]:
    """Cyclic prefix and whole length in seconds of every symbol, clause 5.3.1.

    The first symbol of each half subframe is longer.
    """
    per_half = 7 * int(spacing_hz // 15e3)
    prefix = np.full(n_slots * 14, 144 * 64 * CHIP_S * 15e3 / spacing_hz)
    prefix[::per_half] += 16 * 64 * CHIP_S
    return prefix, prefix + 1 / spacing_hz


def _m_sequence(taps: tuple[int, int], first: tuple[int, ...]) -> NDArray[np.int64]:
    """Length-127 sequence x(i + 7) = x(i + tap) + x(i + other tap), clause 7.4.2."""
    x = list(first)
    for i in range(120):
        x.append((x[i + taps[0]] + x[i + taps[1]]) % 2)
    return np.array(x)


PSS_X = _m_sequence((4, 0), (0, 1, 1, 0, 1, 1, 1))
SSS_X0 = _m_sequence((4, 0), (1, 0, 0, 0, 0, 0, 0))
SSS_X1 = _m_sequence((1, 0), (1, 0, 0, 0, 0, 0, 0))


def _ssb(rng: np.random.Generator, identity: int, level: float) -> NDArray[np.complex64]:
    """SS/PBCH block [4 symbols, 240 carriers] of a cell identity, clause 7.4.3.1."""
    n = np.arange(127)
    group, sector = identity // 3, identity % 3
    block = np.zeros((4, SSB_CARRIERS), np.complex64)
    block[1:4] = (rng.choice([-1, 1], (3, 240)) + 1j * rng.choice([-1, 1], (3, 240))) / np.sqrt(2)
    block[2, 48:192] = 0
    block[0, 56:183] = 1 - 2 * PSS_X[(n + 43 * sector) % 127]
    m0, m1 = 15 * (group // 112) + 5 * sector, group % 112
    block[2, 56:183] = (1 - 2 * SSS_X0[(n + m0) % 127]) * (1 - 2 * SSS_X1[(n + m1) % 127])
    return block * np.float32(level)


def _ssb_rows(rng: np.random.Generator, spacing_hz: float, n_slots: int) -> tuple[NDArray, NDArray]:
    """First rows of all SSBs, and the beam of each."""
    starts = np.array(CASE_B if spacing_hz == 30e3 and rng.random() < 0.3 else CASE_A)
    starts = starts[: int(rng.choice([4, 8]))]
    if rng.random() < 0.6:
        sent = np.array([0])  # one wide beam, as in most low bands
    else:
        sent = np.flatnonzero(rng.random(len(starts)) < 0.8)
        sent = sent if len(sent) else np.array([0])
    period_s = float(rng.choice([5e-3, 10e-3, 20e-3, 40e-3], p=[0.12, 0.13, 0.65, 0.1]))
    step = round(period_s * spacing_hz / 15e3 * 1e3) * 14
    bursts = np.arange(0, n_slots * 14 - 100, step)
    return (bursts[:, None] + starts[sent]).ravel(), np.tile(sent, len(bursts))


def _control_set(rng: np.random.Generator, gain: Gain, block: NDArray, n_rb: int, load: float) -> int:
    """PDCCH in groups of six blocks over one to three symbols, clause 7.3.2; returns the number of symbols."""
    symbols = int(rng.integers(1, 4))
    width = min(n_rb // 6 * 6, int(rng.choice([24, 48, 96, 270])))
    begin = int(rng.integers(0, (n_rb - width) // 6 + 1)) * 6
    used = (rng.random((len(gain), n_rb // 6 + 2)) < rng.uniform(0.1, 0.5)) & (
        rng.random(len(gain)) < np.clip(load * 2 + 0.03, 0, 1)
    )[:, None]
    chosen = used[:, block // 6] & (block >= begin) & (block < begin + width)
    gain[:, :symbols] = chosen[:, None, :]
    return symbols


def _data(
    rng: np.random.Generator, gain: Gain, carriers: NDArray, block: NDArray, n_rb: int, load: float, first: int
) -> None:
    """PDSCH from symbol `first` on with reference signals of type 1, clauses 7.3.1 and 7.4.1.1."""
    data = allocate(rng, len(gain), n_rb, load, int(rng.choice([2, 4, 8, 16])))[:, block]
    gain[:, first:] = data[:, None, :]
    if rng.random() < 0.3:  # short allocations end before the slot does
        gain[:, int(rng.integers(first + 2, 14)) :] = 0
    comb = carriers % 2 == 0
    shared = rng.random() < 0.4
    for symbol in (max(first, 2), *((7, 11)[: int(rng.integers(0, 3))])):
        pilot = data * np.float32(1 if shared else np.sqrt(2))
        gain[:, symbol] = pilot if shared else pilot * comb


def _tracking(rng: np.random.Generator, gain: Gain, carriers: NDArray, slots_per_ms: int) -> None:
    """Tracking reference signals: every fourth carrier, two symbols in two slots, every 10 to 80 ms, clause 7.4.1.5."""
    period = int(rng.choice([10, 20, 40, 80])) * slots_per_ms
    begin = int(rng.integers(0, min(period, len(gain))))
    comb = np.flatnonzero((carriers + int(rng.integers(4))) % 4 == 0)
    for slot in (begin, begin + 1):
        rows = np.arange(slot, len(gain), period)
        gain[np.ix_(rows, np.array([4, 8]) + int(rng.integers(0, 3)), comb)] = 1


def _uplink(rng: np.random.Generator, gain: Gain, pattern: str, block: NDArray, n_rb: int) -> None:
    """Silence the uplink slots of a TDD pattern, except for bursts of phones at another level."""
    kind = np.array(list(pattern))[np.arange(len(gain)) % len(pattern)]
    gain[kind == "S", int(rng.choice([6, 8, 10, 12])) :] = 0
    gain[kind == "U"] = 0
    on, _ = runs(rng, len(gain), rng.choice([0.0, 0.1, 0.5]), 6.0)
    width = int(np.ceil(rng.beta(0.8, 2) * n_rb))
    begin = int(rng.integers(0, n_rb - width + 1))
    chosen = (block >= begin) & (block < begin + width)
    gain[np.ix_(np.flatnonzero(on & (kind == "U")), np.arange(14), np.flatnonzero(chosen))] = 10 ** (
        rng.uniform(-20, 6) / 20
    )


def draw_carrier(rng: np.random.Generator, view_hz: float) -> tuple[float, int, int]:
    """Subcarrier spacing, resource blocks and first carrier of the SSB of a cell that suits a view."""
    spacing_hz = 15e3 if rng.random() < 0.5 else 30e3
    sizes = np.array(RESOURCE_BLOCKS[spacing_hz])
    weight = np.where(sizes * 12 * spacing_hz < view_hz * 1.15, 3.0, 1.0)
    n_rb = int(rng.choice(sizes, p=weight / weight.sum()))
    return spacing_hz, n_rb, int(rng.integers(0, 12 * n_rb - SSB_CARRIERS + 1)) - 6 * n_rb


def band_of(view_hz: float, spacing_hz: float, n_rb: int, centre: int) -> Band:
    """The carriers of a cell in view."""
    return look(view_hz, spacing_hz, -6 * n_rb, 6 * n_rb, centre)


def cell(rng: np.random.Generator, duration_s: float, band: Band, n_rb: int, ssb_low: int, load: float) -> IQ:
    """One cell at a random phase of its frame; with load 0 it has little but SSB bursts.

    Parameters
    ----------
    rng : random generator.
    duration_s : length in seconds.
    band : carriers in view.
    n_rb : resource blocks.
    ssb_low : first carrier of the SSB.
    load : share of the capacity that is used, 0 to 1.
    """
    spacing_hz = band.spacing_hz
    slots_per_ms = int(spacing_hz // 15e3)
    n_slots = (int(np.ceil(duration_s * 1e3)) + 43) * slots_per_ms
    carriers = band.carriers
    block = (carriers + 6 * n_rb) // 12
    gain = np.zeros((n_slots, 14, len(carriers)), np.float32)
    quiet = np.zeros_like(gain[:, :3])
    first = _control_set(rng, quiet, block, n_rb, load)
    _data(rng, gain, carriers, block, n_rb, load, first)
    gain[:, :first] = quiet[:, :first]
    if rng.random() < 0.7:
        _tracking(rng, gain, carriers, slots_per_ms)
    if rng.random() < 0.6:
        _uplink(rng, gain, str(rng.choice(TDD[spacing_hz])), block, n_rb)
    identity, level = int(rng.integers(1008)), 10 ** (rng.uniform(-1, 4) / 20)
    beams = 10 ** (rng.uniform(-12, 0, 8) / 20)
    fixed: list[tuple[int, int, NDArray]] = []
    rows, beam = _ssb_rows(rng, spacing_hz, n_slots)
    for row, number in zip(rows, beam, strict=True):
        values = _ssb(rng, identity, level * beams[number])
        fixed += [(int(row) + symbol, ssb_low, values[symbol]) for symbol in range(4)]
    prefix_s, length_s = symbol_times(spacing_hz, n_slots)
    known: Fixed = fixed
    return render(rng, gain.reshape(-1, len(carriers)), known, band, prefix_s, length_s, duration_s,
                  int(rng.choice([4, 16, 64, 256])), rng.uniform(0.2e-6, 1.5e-6))  # fmt: skip
