# SPDX-License-Identifier: GPL-3.0-or-later
"""DVB-T multiplexes (ETSI EN 300 744 clause 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..ofdm import Band, fits, look, modulate, qam
from ..shaping import sample_count

# Clause 4.5.3 table 7 and clause 4.6.1 table 8: carriers of one 2k symbol; 8k repeats them every 1704 carriers.
CONTINUAL = (
    0, 48, 54, 87, 141, 156, 192, 201, 255, 279, 282, 333, 432, 450, 483, 525, 531, 618, 636, 714, 759, 765,
    780, 804, 873, 888, 918, 939, 942, 969, 984, 1050, 1101, 1107, 1110, 1137, 1140, 1146, 1206, 1269, 1323,
    1377, 1491, 1683, 1704,
)  # fmt: skip
TPS = (34, 50, 209, 346, 413, 569, 595, 688, 790, 901, 1073, 1219, 1262, 1286, 1469, 1594, 1687)
ELEMENTARY_S = {6e6: 7 / 48e6, 7e6: 1 / 8e6, 8e6: 7 / 64e6}  # clause 4.4 and annexes for 6 and 7 MHz
PILOT = 4 / 3  # clause 4.5.1: boosted amplitude of the pilots


def _prbs(count: int) -> NDArray[np.float32]:
    """Pilot signs +-1 of every carrier from X^11 + X^2 + 1, clause 4.5.2."""
    register = [1] * 11
    sign = np.empty(count, np.float32)
    for carrier in range(count):
        sign[carrier] = 1 - 2 * register[10]
        register = [register[10] ^ register[8], *register[:10]]
    return sign


SIGNS = _prbs(6817)


def _grid(rng: np.random.Generator, n_rows: int, number: NDArray, blocks: int) -> NDArray[np.complex64]:
    """Symbols [n_rows, carriers]: data, scattered and continual pilots, TPS; `number` counts carriers from 0."""
    base = 1704 * np.arange(blocks)[:, None]
    grid = qam(rng, (n_rows, len(number)), int(rng.choice([4, 16, 64], p=[0.15, 0.35, 0.5])))
    pilot = (SIGNS[number] * PILOT).astype(np.complex64)
    for phase in range(4):  # clause 4.5.3: the scattered pilots move by 3 carriers a symbol
        scattered = np.flatnonzero((number - 3 * phase) % 12 == 0)
        grid[phase::4, scattered] = pilot[scattered]
    continual = np.flatnonzero(np.isin(number, base + np.array(CONTINUAL)))
    grid[:, continual] = pilot[continual]
    tps = np.flatnonzero(np.isin(number, base + np.array(TPS)))
    grid[:, tps] = SIGNS[number[tps]] * rng.choice([-1.0, 1.0], (n_rows, 1))  # one DBPSK bit a symbol, clause 4.6.3
    return grid


def multiplex(rng: np.random.Generator, duration_s: float, size: int, guard: float, band: Band) -> IQ:
    """One continuous multiplex of unit power at a random phase; carrier 0 of `band` is the middle one."""
    length_s = (1 + guard) / band.spacing_hz
    n_rows = int(np.ceil(duration_s / length_s)) + 3
    number = band.carriers + 852 * size // 2048
    grid = _grid(rng, n_rows, number, size // 2048)
    prefix_s = guard / band.spacing_hz
    ramp_s = rng.uniform(0.05, 0.4) * prefix_s  # stands for the transmitter's mask filter, clause 4.8.2
    iq = modulate(grid, band, np.full(n_rows, prefix_s), np.full(n_rows, length_s), ramp_s)
    start = int(rng.uniform(0, length_s) * band.rate_hz)
    return unit_power(iq[start : start + sample_count(duration_s, band.rate_hz)])


def _neighbours(rng: np.random.Generator, view_hz: float, channel_hz: float, spacing_hz: float) -> tuple[int, ...]:
    """Centre carriers, relative to the view's centre, of the multiplexes in view."""
    step = round(channel_hz / spacing_hz)
    if view_hz > 1.9 * channel_hz and rng.random() < 0.5:
        return (-(step // 2), step - step // 2) if rng.random() < 0.7 else (0, int(rng.choice([-step, step])))
    if view_hz < 1.08 * channel_hz:
        # Inside a multiplex the spectrum is flat and steady like noise: a narrow view must contain one of its edges.
        inwards = 0.475 * channel_hz - rng.uniform(-0.3, 0.3) * view_hz
        return (int(rng.choice([-1, 1]) * inwards / spacing_hz),)
    return (0,)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One or two neighbouring multiplexes; a view narrower than the channel shows an edge."""
    channel_hz = float(rng.choice([6e6, 7e6, 8e6], p=[0.1, 0.15, 0.75]))
    size = 8192 if rng.random() < 0.8 else 2048
    guard = float(rng.choice([1 / 4, 1 / 8, 1 / 16, 1 / 32]))
    spacing_hz = 1 / (size * ELEMENTARY_S[channel_hz])
    reach = 852 * size // 2048
    middles = _neighbours(rng, view_hz, channel_hz, spacing_hz)
    low, high = min(middles) - reach, max(middles) + reach + 1
    size_seen = look(view_hz, spacing_hz, low, high).fft_size
    iq, seen = None, 0
    for middle in middles:
        band = look(view_hz, spacing_hz, -reach, reach + 1, -middle, size_seen)
        level = np.float32(1 if iq is None else 10 ** (rng.uniform(-15, 3) / 20))
        part = multiplex(rng, duration_s, size, guard, band) * level
        iq = part if iq is None else iq + part
        seen += band.high - band.low
    placed = len(middles) > 1 or not fits(low, high, spacing_hz, view_hz)
    return Emission(unit_power(iq), size_seen * spacing_hz, min(seen * spacing_hz, view_hz), placed)


SIGNAL = SignalClass(
    label="dvb-t",
    standard="ETSI EN 300 744 V1.6.2 clauses 4.4 to 4.6",
    views=(View(8e6, 12e6, 4), View(2e6, 3.2e6, 1), View(12e6, 21e6, 0.5)),
    make=make,
    shortest_s=0.02,
)
