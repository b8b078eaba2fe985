# SPDX-License-Identifier: GPL-3.0-or-later
"""AX.25 packet radio: Bell 202 AFSK at 1200 bit/s and G3RUH FSK at 9600 bit/s, in bursts on a shared channel."""

from __future__ import annotations

import numpy as np

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, nrzi, phasor, raster, side_by_side, spans, stuffed
from ..shaping import Reals, bits, hold, rrc_taps, sample_count, smooth

RATE_HZ = 48e3
MARK_HZ, SPACE_HZ = 1200.0, 2200.0  # Bell 202
FLAG = np.array([0, 1, 1, 1, 1, 1, 1, 0], np.int8)  # AX.25 v2.2 clause 3


def _frame(rng: np.random.Generator, n_octets: int) -> np.ndarray:
    """A frame between flags: shifted address characters, control, PID, text and check sum, bit stuffed (clause 3)."""
    n_address = int(7 * rng.integers(2, 5))
    octets = np.concatenate(
        [
            rng.integers(0x20, 0x5B, n_address) << 1,
            [0x03, 0xF0],
            rng.integers(0x20, 0x7F, max(n_octets - n_address - 4, 1)),
            rng.integers(0, 256, 2),
        ]
    ).astype(np.uint8)
    return stuffed(np.unpackbits(octets, bitorder="little").astype(np.int8))


def _packet(rng: np.random.Generator, bit_hz: float) -> np.ndarray:
    """NRZI levels of a whole transmission: flags for the key-up delay, one to three frames, closing flags."""
    delay = int(rng.uniform(0.15, 0.6) * bit_hz / 8)
    parts = [np.tile(FLAG, delay)]
    for _ in range(int(rng.choice([1, 2, 3], p=[0.85, 0.1, 0.05]))):
        n_octets = int(rng.uniform(25, 120) if bit_hz < 2400 else rng.uniform(40, 700))
        parts += [_frame(rng, n_octets), FLAG]
    parts.append(np.tile(FLAG, int(rng.integers(1, 6))))
    return nrzi(np.concatenate(parts), int(rng.integers(2)))


def _afsk(rng: np.random.Generator, levels: np.ndarray, twist: float, peak_hz: float) -> Reals:
    """Instantaneous frequency in Hz of 1200 bit/s AFSK; `twist` is the amplitude of the high tone over the low one."""
    n_samples = int(len(levels) * RATE_HZ / 1200)
    held = hold(levels.astype(np.float32), 1200, RATE_HZ, n_samples)
    tone = phasor(MARK_HZ + (SPACE_HZ - MARK_HZ) * held, RATE_HZ, rng.random()).imag
    gain = smooth(1 + (twist - 1) * held, np.full(9, 1 / 9, np.float32))
    return peak_hz / max(twist, 1.0) * tone * gain


def _fsk9600(rng: np.random.Generator, count: int, peak_hz: float) -> Reals:
    """Instantaneous frequency in Hz of 9600 bit/s FSK; the x^17 + x^12 + 1 scrambler makes the line bits random."""
    impulses = np.zeros(count * 5, np.float32)
    impulses[::5] = 2.0 * bits(rng, count) - 1
    half = rrc_taps(0.6, 5, 6)
    return peak_hz * smooth(impulses, np.convolve(half, half))


def _channel(rng: np.random.Generator, duration_s: float) -> IQ:
    """Stations that take turns on one channel; level, tone balance, deviation and frequency error vary."""
    n_samples = sample_count(duration_s, RATE_HZ) + 2
    fast = rng.random() < 0.3
    bit_hz = 9600.0 if fast else 1200.0
    packets: list[np.ndarray] = []

    def draw_on() -> float:
        """Length in seconds of the next packet, which is appended to `packets`."""
        packets.append(_packet(rng, bit_hz))
        return len(packets[-1]) / bit_hz + rng.uniform(0.01, 0.12)

    busy = rng.uniform(0.1, 2.5)
    keyed = spans(rng, duration_s, draw_on, lambda: 0.06 + rng.exponential(busy))
    # Both in order of length, so that every packet fits into its span.
    packets = sorted(packets, key=len)
    keyed_by_length = sorted(keyed, key=lambda span: span[1] - span[0])
    frequency_hz, envelope = np.zeros(n_samples, np.float32), np.zeros(n_samples, np.float32)
    for index, (span, levels) in enumerate(zip(keyed_by_length, packets, strict=True)):
        peak_hz = rng.uniform(2.2e3, 4.2e3)
        wave = (
            _fsk9600(rng, len(levels), peak_hz)
            if fast
            else _afsk(rng, levels, 10 ** (rng.uniform(-3, 7) / 20), peak_hz)
        )
        lead_s = max((span[1] - span[0]) - len(levels) / bit_hz, 0) * rng.uniform(0.2, 0.8)
        start = int((span[0] + lead_s) * RATE_HZ)
        low, high = max(start, 0), min(start + len(wave), n_samples)
        if low < high:
            frequency_hz[low:high] = wave[low - start : high - start]
        cut = add_gate(envelope, RATE_HZ, span, rng.uniform(0.3e-3, 5e-3), amplitude(rng, -20) if index else 1.0)
        frequency_hz[cut] += rng.normal(0, 300)
    return phasor(frequency_hz, RATE_HZ, rng.random()) * envelope


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One packet channel at any offset, rarely two."""
    count = int(rng.choice([1, 2], p=[0.9, 0.1]))
    channels = [_channel(rng, duration_s) for _ in range(count)]
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, 11e3)
    offsets_hz = raster(rng, count, 25e3, min(0.8 * view_hz, 400e3))
    channels[1] = channels[1] * np.float32(amplitude(rng, -20))
    return side_by_side(channels, offsets_hz, RATE_HZ, 11e3, placed=True)


SIGNAL = SignalClass(
    label="ax25-packet",
    standard="AX.25 Link Access Protocol v2.2 clause 3 (frames, stuffing); Bell 202 AFSK; G3RUH 9600 bit/s FSK (1988)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 0.55e6, 1.5)),
    make=make,
    shortest_s=0.3,
)
