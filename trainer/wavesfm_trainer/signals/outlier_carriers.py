# SPDX-License-Identifier: GPL-3.0-or-later
"""Single-carrier signals that are none of the classes: PSK, QAM, TETRA-like, many-level FSK, MSK, spread spectrum.

Each maker takes (rng, duration_s, view_hz) and returns an Emission, as a SignalClass's does. Parameters are random and
scale with the view, so that a family is seen at any width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import IQ, Emission, unit_power
from .shaping import fsk, rrc_taps, sample_count, smooth

PER_SYMBOL = 4  # samples per symbol of the linear modulations
MOST_SYMBOLS = 400_000


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A value between low and high whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def gated(rng: np.random.Generator, iq: IQ, share: float = 0.5) -> IQ:
    """Complex64 [n], in `share` of the draws cut into bursts: periodic slots or one to a few packets."""
    if rng.random() > share:
        return iq
    n = len(iq)
    heard = np.zeros(n, np.float32)
    if rng.random() < 0.5:
        period = log_uniform(rng, max(n / 60, 64), max(n, 65))
        duty, phase = rng.uniform(0.1, 0.9), rng.random()
        heard[(np.arange(n) / period + phase) % 1 < duty] = 1
    else:
        for _ in range(int(rng.integers(1, 6))):
            length = int(log_uniform(rng, max(n / 40, 64), max(n, 65)))
            start = int(rng.uniform(-0.3, 0.9) * n)
            heard[max(start, 0) : max(start, 0) + length] = 1
    if heard.sum() < min(n, 64):
        heard[: n // 2] = 1
    return (iq * heard).astype(np.complex64)


def constellation(rng: np.random.Generator, order: int) -> NDArray[np.complex64]:
    """Points complex64 [order] of mean power 1: PSK up to 8, rings for a third of 16 and 32, else QAM."""
    if order <= 8 or (order <= 32 and rng.random() < 0.33):
        rings = 1 if order <= 8 else 2
        points = np.concatenate(
            [
                (1 + 1.4 * ring) * np.exp(2j * np.pi * np.arange(order // rings) / (order // rings))
                for ring in range(rings)
            ]
        )
    else:
        side = int(np.ceil(np.sqrt(order)))
        grid = np.arange(side) * 2.0 - (side - 1)
        points = (grid[:, None] + 1j * grid).ravel()
        points = points[np.argsort(np.abs(points), kind="stable")[:order]]
    return (points / np.sqrt(np.mean(np.abs(points) ** 2))).astype(np.complex64)


def linear(symbols: NDArray[np.complex64], rolloff: float, offset: bool = False) -> IQ:
    """Symbols [n] as root-raised-cosine pulses, complex64 [n * PER_SYMBOL]; offset: Q half a symbol later."""
    up = np.zeros(len(symbols) * PER_SYMBOL, np.complex64)
    up[::PER_SYMBOL] = symbols
    if offset:
        up = up.real + 1j * np.roll(up.imag, PER_SYMBOL // 2)
    return smooth(up.astype(np.complex64), rrc_taps(max(rolloff, 0.02), PER_SYMBOL, 12))


def _modulated(rng: np.random.Generator, duration_s: float, symbol_rate_hz: float, orders, share: float) -> Emission:
    count = min(int(np.ceil(duration_s * symbol_rate_hz)) + 16, MOST_SYMBOLS)
    points = constellation(rng, int(rng.choice(orders)))
    symbols = points[rng.integers(0, len(points), count)]
    style = rng.random()
    if len(points) == 4 and style < 0.3:  # pi/4-DQPSK
        symbols = np.exp(1j * np.pi / 4 * np.cumsum(2 * rng.integers(0, 4, count) + 1)).astype(np.complex64)
    rolloff = float(rng.choice([0.05, 0.15, 0.2, 0.25, 0.35, 0.5, 0.7, 1.0]))
    iq = linear(symbols, rolloff, len(points) == 4 and style > 0.85)
    if rng.random() < 0.2:  # a frame with a repeated preamble
        period = int(log_uniform(rng, 200, 20_000)) * PER_SYMBOL
        for start in range(0, len(iq) - 64 * PER_SYMBOL, period):
            iq[start : start + 64 * PER_SYMBOL] = iq[: 64 * PER_SYMBOL]
    rate_hz = symbol_rate_hz * PER_SYMBOL
    return Emission(unit_power(gated(rng, iq, share)), rate_hz, symbol_rate_hz * (1 + rolloff / 2))


def psk(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """BPSK to 8PSK of any symbol rate from 1.2 kBd to 30 MBd, continuous or in bursts."""
    return _modulated(
        rng, duration_s, float(np.clip(view_hz * log_uniform(rng, 0.03, 0.8), 1.2e3, 30e6)), (2, 4, 4, 8), 0.5
    )


def qam(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """16 to 256 points, mostly continuous, as on cables, microwave links and satellites."""
    rate_hz = float(np.clip(view_hz * log_uniform(rng, 0.05, 0.85), 5e3, 40e6))
    return _modulated(rng, duration_s, rate_hz, (16, 16, 32, 64, 256), 0.25)


def tetra(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """pi/4-DQPSK of 18 kBd with roll-off 0.35 (ETSI EN 300 392-2 clause 5), a base or single slots of 14 ms."""
    count = min(int(np.ceil(duration_s * 18e3)) + 16, MOST_SYMBOLS)
    phase = np.cumsum(2 * rng.integers(0, 4, count) + 1)
    iq = linear(np.exp(1j * np.pi / 4 * phase).astype(np.complex64), 0.35)
    if rng.random() < 0.5:
        slot = np.floor((np.arange(len(iq)) / (18e3 * PER_SYMBOL) + rng.random() * 0.0567) / 0.014167).astype(int) % 4
        iq = iq * np.isin(slot, rng.permutation(4)[: rng.integers(1, 3)])
        if not iq.any():
            iq = linear(np.exp(1j * np.pi / 4 * phase).astype(np.complex64), 0.35)
    return Emission(unit_power(iq.astype(np.complex64)), 18e3 * PER_SYMBOL, 20e3)


def _tones(rng: np.random.Generator, duration_s: float, rate_hz: float, levels: int, index: float, bt) -> Emission:
    count = min(int(np.ceil(duration_s * rate_hz)) + 4, MOST_SYMBOLS)
    values = (2 * rng.integers(0, levels, count) - (levels - 1)) / max(levels - 1, 1)
    deviation_hz = index * rate_hz * (levels - 1) / 2
    width_hz = 2 * deviation_hz + rate_hz
    sample_rate_hz = rate_hz * max(4, int(np.ceil(1.5 * width_hz / rate_hz)))
    while count * sample_rate_hz / rate_hz > 2_000_000 and count > 64:
        count //= 2
    iq = fsk(values[:count], rate_hz, deviation_hz, sample_rate_hz, bt)
    return Emission(unit_power(gated(rng, iq, 0.4)), sample_rate_hz, width_hz)


def four_level(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """4-FSK of other rates than DMR's, narrow or with wide shifts (paging, telemetry, data radios)."""
    rate_hz = float(np.clip(view_hz * log_uniform(rng, 0.005, 0.15), 600, 3e6))
    if 3.8e3 < rate_hz < 6e3:
        rate_hz *= 2.2
    bt = None if rng.random() < 0.4 else float(rng.uniform(0.3, 1.0))
    return _tones(rng, duration_s, rate_hz, 4, log_uniform(rng, 0.3, 2.5), bt)


def msk(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """GMSK and MSK streams of satellites and data links, at least seconds long: 1.2 to 500 kBd, index about 0.5."""
    rate_hz = float(rng.choice([1200, 2400, 4800, 9600, 9600, 19200, 38400, log_uniform(rng, 50e3, 500e3)]))
    if rate_hz > view_hz * 0.7:
        rate_hz = view_hz * rng.uniform(0.1, 0.7)
    bt = None if rng.random() < 0.2 else float(rng.choice([0.3, 0.5, 1.0]))
    count = min(int(np.ceil(duration_s * rate_hz)) + 4, MOST_SYMBOLS)
    iq = fsk(2.0 * rng.integers(0, 2, count) - 1, rate_hz, rate_hz / 4 * rng.uniform(0.9, 1.4), rate_hz * 8, bt)
    return Emission(unit_power(iq), rate_hz * 8, rate_hz * 1.2)


def fast_fsk(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """2-FSK streams between 0.35 and 8 MBd, away from Bluetooth's and Zigbee's rates (telemetry, video links)."""
    rate_hz = float(np.clip(view_hz * log_uniform(rng, 0.1, 0.5), 0.35e6, 8e6))
    if 0.8e6 < rate_hz < 2.4e6:
        rate_hz *= 3
    return _tones(rng, duration_s, rate_hz, 2, log_uniform(rng, 0.5, 1.5), None if rng.random() < 0.5 else 0.7)


def many_tones(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """8 to 64 tones one at a time (MFSK, Olivia-like, DominoEX-like), each held for a while. Held out of training."""
    levels = int(rng.choice([8, 16, 32, 64]))
    width_hz = float(np.clip(view_hz * log_uniform(rng, 0.05, 0.7), 250.0, 2e6))
    return _tones(
        rng, duration_s, width_hz / levels / rng.choice([1, 1, 2, 4]), levels, float(rng.choice([1, 2])), None
    )


def cdma(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Sums of QPSK codes of one chip rate, roll-off 0.22, 3.84 or 1.2288 Mchip/s or others, with a slotted power."""
    chip_hz = float(rng.choice([3.84e6, 1.2288e6, 1.28e6, log_uniform(rng, 0.2e6, 12e6)]))
    chip_hz = min(chip_hz, 0.85 * view_hz) if rng.random() < 0.7 else chip_hz
    count = min(int(np.ceil(duration_s * chip_hz)) + 16, MOST_SYMBOLS)
    chips = rng.standard_normal(2 * count).astype(np.float32).view(np.complex64)
    slot = max(int(chip_hz * 667e-6), 1)
    power = 1 + rng.uniform(0, 0.6) * rng.standard_normal(count // slot + 1)
    chips *= np.abs(np.repeat(power, slot)[:count]).astype(np.float32) + np.float32(0.1)
    return Emission(unit_power(gated(rng, linear(chips, 0.22), 0.15)), chip_hz * PER_SYMBOL, chip_hz * 1.1)


def direct_sequence(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """BPSK spread by a short code with rectangular chips, whose side lobes are not filtered. Held out of training."""
    chip_hz = float(np.clip(view_hz * log_uniform(rng, 0.05, 0.45), 2e3, 12e6))
    code = 2.0 * rng.integers(0, 2, int(rng.choice([11, 31, 127, 1023]))) - 1
    count = min(int(np.ceil(duration_s * chip_hz)) + 4, MOST_SYMBOLS)
    data = 2.0 * rng.integers(0, 2, count // len(code) + 2) - 1
    chips = (data[:, None] * code).ravel()[:count]
    iq = np.repeat(chips, 6).astype(np.complex64)
    return Emission(unit_power(gated(rng, iq, 0.3)), chip_hz * 6, 1.6 * chip_hz)


def length_of(emission: Emission) -> float:
    """Seconds of an emission."""
    return len(emission.iq) / emission.rate_hz


__all__ = [
    "cdma", "direct_sequence", "fast_fsk", "four_level", "gated", "length_of", "log_uniform", "many_tones", "msk",
    "psk", "qam", "sample_count", "tetra",
]  # fmt: skip
