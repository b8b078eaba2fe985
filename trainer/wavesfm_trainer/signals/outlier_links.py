# SPDX-License-Identifier: GPL-3.0-or-later
"""Satellites, agile radars, hopping radios, links of drones and slow pictures: signals that are none of the classes.

Each maker takes (rng, duration_s, view_hz) and returns an Emission, as a SignalClass's does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .base import IQ, Emission, unit_power
from .narrowband import phasor
from .outlier_carriers import PER_SYMBOL, linear, log_uniform
from .outlier_waves import KNOWN_WIDTHS_HZ
from .shaping import from_turns, fsk, place, sample_count

MOST_SAMPLES = 1_500_000
SATELLITE_HZ = (1200.0, 2400.0, 4800.0, 9600.0, 9600.0, 19_200.0, 38_400.0, 50e3, 57_600.0, 100e3)
SLOW_SCAN_HZ = (1200.0, 1500.0, 2300.0)  # sync, black, white


def _count(duration_s: float, rate_hz: float) -> int:
    return max(256, min(sample_count(duration_s, rate_hz) + 8, MOST_SAMPLES))


def satellite(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Beacons and downlinks of small satellites: GMSK, FSK, BPSK or QPSK of 1.2 to 100 kBd, in frames of 0.1 to 4 s.

    A frame begins with alternating symbols. Doppler moves the carrier over the tile.
    """
    usual = [hz for hz in SATELLITE_HZ if hz < 0.6 * view_hz]
    symbol_hz = float(rng.choice(usual)) if usual else view_hz * rng.uniform(0.1, 0.6)
    kind = rng.choice(["gmsk", "fsk", "bpsk", "qpsk"], p=[0.4, 0.15, 0.25, 0.2])
    per_symbol = PER_SYMBOL if kind in ("bpsk", "qpsk") else 8
    count = _count(duration_s, symbol_hz * per_symbol) // per_symbol
    data = rng.integers(0, 4, count)
    on = np.ones(count, bool)
    if rng.random() < 0.65:
        on = _frames(rng, data, symbol_hz)
    if kind in ("bpsk", "qpsk"):
        points = np.exp(0.5j * np.pi * data) if kind == "qpsk" else 2.0 * (data % 2) - 1
        iq = linear((points * on).astype(np.complex64), float(rng.choice([0.2, 0.35, 0.5])))
        width_hz = symbol_hz * 1.2
    else:
        index = rng.uniform(0.5, 0.55) if kind == "gmsk" else rng.uniform(0.6, 1.1)
        bt = float(rng.choice([0.3, 0.5])) if kind == "gmsk" else None
        iq = fsk(2.0 * (data % 2) - 1, symbol_hz, index * symbol_hz / 2, symbol_hz * per_symbol, bt)
        iq = iq * np.repeat(on, per_symbol)[: len(iq)]
        width_hz = symbol_hz * (0.5 + index)
    rate_hz = symbol_hz * per_symbol
    t = np.arange(len(iq)) / rate_hz
    iq = iq * from_turns(rng.uniform(-1, 1) * min(80.0, 0.05 * symbol_hz) * t**2)
    return Emission(unit_power(iq), rate_hz, width_hz)


def _frames(rng: np.random.Generator, data: NDArray[np.int64], symbol_hz: float) -> NDArray[np.bool_]:
    """Where frames are on the air, bool [n]; writes their preambles into the symbols `data` [n]."""
    on = np.zeros(len(data), bool)
    length = int(np.clip(log_uniform(rng, 0.1, 4) * symbol_hz, 64, 2 * len(data)))
    period = int(length * (1 + log_uniform(rng, 0.05, 5)))
    preamble = int(length * rng.choice([0.0, 0.03, 0.15]))
    for start in range(int(rng.uniform(-0.8 * length, 0.3 * len(data))), len(data), period):
        first = max(start, 0)
        on[first : max(start + length, 0)] = True
        lead = slice(first, max(start + preamble, 0))
        data[lead] = np.arange(len(data[lead])) % 2
    return on


def _agile_pulse(rng: np.random.Generator, length: int) -> IQ:
    """One pulse [n]: a polyphase code, a non-linear chirp, or steps of frequency."""
    x = np.arange(length) / length - 0.5
    kind = rng.random()
    if kind < 0.35:  # P4 code
        chips = int(rng.choice([16, 32, 64]))
        k = np.floor((x + 0.5) * chips)
        return from_turns(k**2 / (2 * chips) - k / 2)
    if kind < 0.7:  # S-shaped chirp
        sweep = rng.uniform(0.1, 0.8) * (x + rng.uniform(-0.2, 0.2) * np.sin(2 * np.pi * x) * 2)
        return from_turns(np.cumsum(sweep))
    steps = rng.permutation(int(rng.integers(4, 12)))
    step = np.minimum(((x + 0.5) * len(steps)).astype(int), len(steps) - 1)
    return from_turns(np.cumsum((steps[step] / len(steps) - 0.5) * rng.uniform(0.2, 0.9)))


def agile_radar(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Coded pulses in groups, each group on another carrier and with another interval."""
    rate_hz = view_hz * 1.1
    n = _count(duration_s, rate_hz)
    length = int(np.clip(log_uniform(rng, 2e-6, 4e-4) * rate_hz, 48, n / 4))
    pulse = _agile_pulse(rng, length)
    iq = np.zeros(n, np.complex64)
    at, carriers = -rng.uniform(0, 2 * length), rng.uniform(-0.3, 0.3, int(rng.choice([1, 2, 5])))
    group = int(rng.integers(4, 40))
    interval = length * log_uniform(rng, 2, 30)
    intervals = interval * (1 + rng.choice([0.0, 0.1, 0.4]) * rng.random(4))
    for k in range(3000):
        turns = np.arange(length) * carriers[(k // group) % len(carriers)] + rng.random()
        place(iq, pulse * from_turns(turns), int(at))
        at += intervals[(k // group) % 4]
        if at > n:
            break
    return Emission(unit_power(iq), rate_hz, rate_hz / 3)


def hopper(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Bursts of 2 to 200 ms that hop over the band, PSK or FSK, of rates that Bluetooth does not have."""
    rate_hz = view_hz * 1.05
    n = _count(duration_s, rate_hz)
    slot_s = log_uniform(rng, 2e-3, 0.2)
    symbol_hz = view_hz * log_uniform(rng, 0.004, 0.08)
    if 0.6e6 < symbol_hz < 2.4e6:
        symbol_hz = 0.3e6
    steps = int(rng.integers(3, 64))
    grid_hz = (np.arange(steps) - (steps - 1) / 2) * (0.9 * view_hz / steps)
    duty, is_fsk = rng.uniform(0.5, 0.98), rng.random() < 0.5
    iq = np.zeros(n, np.complex64)
    count = int(np.clip(slot_s * duty * symbol_hz, 4, n / rate_hz * symbol_hz + 8))
    start_s = -rng.random() * 0.9 * count / symbol_hz  # inside a burst
    while start_s < n / rate_hz and start_s < 400 * slot_s:
        data = rng.integers(0, 4, count)
        per_symbol = rate_hz / symbol_hz
        if is_fsk:
            burst = fsk(2.0 * (data % 2) - 1, symbol_hz, 0.35 * symbol_hz, rate_hz, 0.5)
        else:
            shaped = linear(np.exp(0.5j * np.pi * data).astype(np.complex64), 0.35)
            position = np.arange(int(count * per_symbol)) * (PER_SYMBOL / per_symbol)
            burst = np.interp(position, np.arange(len(shaped)), shaped).astype(np.complex64)
        turns = np.arange(len(burst)) * (float(rng.choice(grid_hz)) / rate_hz)
        place(iq, (burst * from_turns(turns)).astype(np.complex64), int(start_s * rate_hz))
        start_s += slot_s
    return Emission(unit_power(iq), rate_hz, symbol_hz * 1.35, placed=True)


def drone_link(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """OFDM frames of a picture link with a synchronisation symbol each, and short hopping bursts of its control."""
    spacing_hz = float(rng.choice([15e3, 20e3, 31.25e3, 60e3, 100e3]))
    used = _unlike_classes(rng, view_hz, spacing_hz)
    n_fft = fft.next_fast_len(int(view_hz * 1.1 / spacing_hz) + 2)
    rate_hz = n_fft * spacing_hz
    prefix = max(int(n_fft * rng.choice([0.05, 0.07, 0.25])), 1)
    symbol = n_fft + prefix
    count = max(2, min(int(duration_s * rate_hz / symbol) + 2, MOST_SAMPLES // symbol))
    cells = np.exp(0.5j * np.pi * (rng.integers(0, 4, (count, used)) + 0.5)).astype(np.complex64)
    frame = int(rng.integers(8, 120))
    busy = max(int(frame * rng.uniform(0.3, 1)), 2)
    order = (np.arange(count) + int(rng.integers(frame))) % frame
    root = int(rng.integers(1, max(used - 1, 2)))
    cells[order == 0] = np.exp(-1j * np.pi * root * np.arange(used) * (np.arange(used) + 1) / used)
    cells[order >= busy] = 0
    spectrum = np.zeros((count, n_fft), np.complex64)
    spectrum[:, (np.arange(used) - used // 2) % n_fft] = cells
    body = fft.ifft(spectrum, axis=1)
    iq = np.concatenate([body[:, n_fft - prefix :], body], axis=1).ravel().astype(np.complex64)
    if not iq.any():
        iq = body.ravel() + np.complex64(1e-3)
    iq = unit_power(iq)
    if rng.random() < 0.5:
        _add_control(rng, iq, rate_hz)
    return Emission(unit_power(iq), rate_hz, min(used * spacing_hz, view_hz))


def _unlike_classes(rng: np.random.Generator, view_hz: float, spacing_hz: float) -> int:
    """Number of carriers that fill 0.25 to 0.85 of the view, of a width that no class has."""
    while True:
        used = int(max(view_hz * log_uniform(rng, 0.25, 0.85) / spacing_hz, 12))
        if all(abs(used * spacing_hz / known - 1) > 0.05 for known in KNOWN_WIDTHS_HZ):
            return used


def _add_control(rng: np.random.Generator, iq: IQ, rate_hz: float) -> None:
    """Add narrow FSK bursts at random places to samples [n]."""
    symbol_hz = rate_hz * log_uniform(rng, 0.01, 0.05)
    length_s = log_uniform(rng, 3e-4, 3e-3)
    for _ in range(int(rng.integers(1, 12))):
        count = max(min(int(length_s * symbol_hz), int(len(iq) / rate_hz * symbol_hz)), 8)
        burst = fsk(2.0 * rng.integers(0, 2, count) - 1, symbol_hz, symbol_hz / 4, rate_hz, 0.5)
        turns = np.arange(len(burst)) * rng.uniform(-0.4, 0.4)
        place(iq, (burst * from_turns(turns)).astype(np.complex64), int(rng.uniform(-0.1, 1) * len(iq)))


def slow_scan(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """A picture line by line on an audio tone in one sideband or on a carrier: slow-scan television, weather charts."""
    rate_hz = 8e3
    n = _count(min(duration_s, 30.0), rate_hz)
    line_s = float(rng.choice([0.067, 0.128, 0.15, 0.256, 0.446, 0.5]))
    at = np.arange(n) / (rate_hz * line_s) + rng.random()
    x, row = at % 1, np.floor(at).astype(int)
    coarse = rng.random((int(rng.integers(2, 9)), int(rng.integers(2, 24))))
    tone_hz = (
        SLOW_SCAN_HZ[1]
        + (SLOW_SCAN_HZ[2] - SLOW_SCAN_HZ[1]) * coarse[(row // 20) % len(coarse), (x * coarse.shape[1]).astype(int)]
    )
    tone_hz[x < 0.04] = SLOW_SCAN_HZ[0]
    side = rng.choice([-1, 1])
    iq = phasor(side * (tone_hz - 1700.0), rate_hz)
    return Emission(unit_power(iq), rate_hz, 1.6e3)


__all__ = ["agile_radar", "drone_link", "hopper", "satellite", "slow_scan"]
