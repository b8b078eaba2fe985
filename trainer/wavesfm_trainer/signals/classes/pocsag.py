# SPDX-License-Identifier: GPL-3.0-or-later
"""POCSAG paging: NRZ FSK batches after a long preamble."""

from __future__ import annotations

import numpy as np

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, hex_bits, phasor, raster, side_by_side, spans
from ..shaping import Reals, bits, hold, sample_count, smooth

RATE_HZ = 48e3
DEVIATION_HZ = 4500.0  # ITU-R M.584-2 annex 1
BIT_RATES_HZ = (512.0, 1200.0, 2400.0)
PREAMBLE_BITS, BATCH_WORDS = 576, 16
SYNC, IDLE = hex_bits("7CD215D8"), hex_bits("7A89C197")
GENERATOR = 0x769  # x^10 + x^9 + x^8 + x^6 + x^5 + x^3 + 1 (annex 1)


def _code(data: np.ndarray) -> np.ndarray:
    """BCH(31,21) check bits and even parity after 21 data bits [words, 21] -> [words, 32]."""
    value = (data.astype(np.int64) << np.arange(30, 9, -1)).sum(axis=1)
    remainder = value.copy()
    for bit in range(30, 9, -1):
        remainder ^= ((remainder >> bit) & 1) * (GENERATOR << (bit - 10))
    word = ((value | remainder)[:, None] >> np.arange(30, -1, -1)) & 1
    return np.concatenate([word, word.sum(axis=1, keepdims=True) % 2], axis=1).astype(np.int8)


def _stream(rng: np.random.Generator, n_bits: int) -> np.ndarray:
    """Preamble, then batches of sync word and 16 codewords: pages of random length between idle words (annex 1)."""
    n_batches = max(-(-(n_bits - PREAMBLE_BITS) // (32 * (BATCH_WORDS + 1))), 0)
    n_words = n_batches * BATCH_WORDS
    data = bits(rng, 21 * n_words).reshape(n_words, 21)
    if rng.random() < 0.5:  # numeric pages are padded with the space digit
        data[:, 1:] = np.where(rng.random((n_words, 1)) < 0.2, np.tile([1, 0, 0, 0], 5), data[:, 1:])
    data[:, 0] = rng.random(n_words) < 0.85  # message words, else address words
    words = _code(data)
    pages = np.repeat(rng.random(n_words // 8 + 1) < rng.uniform(0.3, 1.0), 8)[:n_words]
    words[~pages] = IDLE
    batches = np.empty((n_batches, BATCH_WORDS + 1, 32), np.int8)
    batches[:, 0], batches[:, 1:] = SYNC, words.reshape(n_batches, BATCH_WORDS, 32)
    preamble = 1 - np.arange(PREAMBLE_BITS, dtype=np.int8) % 2
    return np.concatenate([preamble, batches.ravel()])


def _transmission(rng: np.random.Generator, span: tuple[float, float], frequency_hz: Reals, rise: int) -> None:
    """Write one transmission's frequency [n]; a zero bit is the higher frequency."""
    bit_hz = float(rng.choice(BIT_RATES_HZ, p=[0.3, 0.5, 0.2]))
    low, high = (int(np.clip(edge * RATE_HZ, 0, len(frequency_hz))) for edge in span)
    lead_s = rng.uniform(0.0, 0.05)
    skipped = max(int(np.floor((low / RATE_HZ - span[0] - lead_s) * bit_hz)), 0)
    seen = int((high - low) / RATE_HZ * bit_hz) + 2
    stream = _stream(rng, skipped + seen + PREAMBLE_BITS)
    levels = 1 - 2 * stream[skipped:].astype(np.float32)
    silent = max(int((span[0] + lead_s) * RATE_HZ) - low, 0)
    keyed = hold(levels, bit_hz, RATE_HZ, max(high - low - silent, 0))
    if len(keyed):
        taps = np.hanning(rise + 2)[1:-1]
        keyed = smooth(keyed, (taps / taps.sum()).astype(np.float32))
    frequency_hz[low + silent : high] = DEVIATION_HZ * rng.uniform(0.9, 1.08) * keyed[: max(high - low - silent, 0)]


def _channel(rng: np.random.Generator, duration_s: float) -> IQ:
    """One paging transmitter: transmissions of 1 to 10 s with the carrier off in between."""
    n_samples = sample_count(duration_s, RATE_HZ) + 2
    keyed = spans(rng, duration_s, lambda: rng.uniform(0.9, 7.0), lambda: rng.uniform(0.15, 6.0))
    frequency_hz, envelope = np.zeros(n_samples, np.float32), np.zeros(n_samples, np.float32)
    rise = int(rng.uniform(88e-6, 250e-6) * RATE_HZ) * 2 + 1  # transition time
    error_hz = rng.normal(0, 200)
    several = rng.random() < 0.2  # sites of one network take turns
    for index, span in enumerate(keyed):
        _transmission(rng, span, frequency_hz, rise)
        level = amplitude(rng, -15) if several and index else 1.0
        add_gate(envelope, RATE_HZ, span, rng.uniform(0.3e-3, 5e-3), level)
    return phasor(frequency_hz + np.float32(error_hz), RATE_HZ, rng.random()) * envelope


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One paging channel at any offset, or two on the 25 kHz raster."""
    count = int(rng.choice([1, 2], p=[0.85, 0.15]))
    channels = [_channel(rng, duration_s) for _ in range(count)]
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, 12.5e3)
    offsets_hz = raster(rng, count, 25e3, min(0.8 * view_hz, 1e6))
    channels[1] = channels[1] * np.float32(amplitude(rng, -25))
    return side_by_side(channels, offsets_hz, RATE_HZ, 12.5e3, placed=True)


SIGNAL = SignalClass(
    label="pocsag",
    standard="ITU-R M.584-2 annex 1 (Radiopaging Code No. 1: 512, 1200, 2400 bit/s, +-4.5 kHz)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 1.05e6, 2)),
    make=make,
    shortest_s=0.2,
)
