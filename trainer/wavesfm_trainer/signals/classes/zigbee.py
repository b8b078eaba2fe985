# SPDX-License-Identifier: GPL-3.0-or-later
"""Zigbee, Thread and other IEEE 802.15.4 networks at 2.4 GHz.

IEEE Std 802.15.4-2015 clause 12 (O-QPSK PHY: 2 Mchip/s, half-sine pulses, 32-chip sequences of table 12-1, SHR of eight
zero symbols and the SFD), clauses 6.2.5 (CSMA-CA) and 6.7.4 (acknowledgment after 192 us).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import place, sample_count, shift, window_start

CHIP_RATE_HZ = 2e6
BYTE_S = 32e-6
SHR_PHR_BYTES = 6
ACK_BYTES = 5
TURNAROUND_S = 192e-6
BACKOFF_S = 320e-6
SUPERFRAME_S = 15.36e-3


def _chip_table() -> NDArray[np.float32]:
    """The 16 sequences of 32 chips, -1 or 1: rotations of the first, then the same with every odd chip inverted."""
    base = np.array([int(chip) for chip in "11011001110000110101001000101110"]) * 2 - 1
    lower = np.stack([np.roll(base, 4 * symbol) for symbol in range(8)])
    upper = lower * np.where(np.arange(32) % 2, -1, 1)
    return np.concatenate([lower, upper]).astype(np.float32)


CHIPS = _chip_table()


def packet(rng: np.random.Generator, psdu_bytes: int, samples_per_chip: int) -> IQ:
    """One PPDU of random payload at `samples_per_chip` times 2 Mchip/s."""
    head = np.array([0] * 8 + [0x7, 0xA, psdu_bytes & 15, psdu_bytes >> 4])
    chips = CHIPS[np.concatenate([head, rng.integers(0, 16, 2 * psdu_bytes)])].ravel()
    pulse = np.sin(np.pi * (np.arange(2 * samples_per_chip) + 0.5) / (2 * samples_per_chip)).astype(np.float32)
    iq = np.zeros((len(chips) + 1) * samples_per_chip, np.complex64)
    iq.real[:-samples_per_chip] = (chips[0::2, None] * pulse).ravel()
    iq.imag[samples_per_chip:] = (chips[1::2, None] * pulse).ravel()
    return iq


def _schedule(rng: np.random.Generator, span_s: float) -> list[tuple[float, int, int]]:
    """Packets (start in s, PSDU bytes, node) of a network: data with acknowledgments, bulk data, beacons."""
    kind = rng.choice(["poll", "mixed", "bulk", "beacon"], p=[0.2, 0.45, 0.25, 0.1])
    gap_s = {"poll": (20e-3, 250e-3), "mixed": (2e-3, 150e-3), "bulk": (1e-3, 5e-3), "beacon": (5e-3, 60e-3)}[kind]
    mean_gap_s = np.exp(rng.uniform(*np.log(gap_s)))
    ack_share = rng.choice([0.0, 0.5, 0.95], p=[0.2, 0.2, 0.6])
    nodes, usual_bytes = int(rng.integers(2, 6)), int(rng.integers(12, 128))
    period_s = SUPERFRAME_S * 2 ** int(rng.integers(0, 5))
    packets, now, next_beacon = [], 0.0, period_s
    while now < span_s:
        if kind == "beacon" and now > next_beacon:
            packets.append((now, int(rng.integers(11, 40)), 0))
            now += (SHR_PHR_BYTES + packets[-1][1]) * BYTE_S + 1e-3
            next_beacon += period_s * np.ceil((now - next_beacon) / period_s)
            continue
        size = usual_bytes if rng.uniform() < 0.6 else int(rng.integers(9, 128))
        size = 12 if kind == "poll" else size
        sender = int(rng.integers(nodes))
        packets.append((now, size, sender))
        now += (SHR_PHR_BYTES + size) * BYTE_S
        if rng.uniform() < ack_share:
            packets.append((now + TURNAROUND_S, ACK_BYTES, (sender + 1) % nodes))
            now += TURNAROUND_S + (SHR_PHR_BYTES + ACK_BYTES) * BYTE_S
        now += 640e-6 + BACKOFF_S * int(rng.integers(0, 8)) + rng.exponential(mean_gap_s)
    return packets


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """The packets of one net on one channel."""
    samples_per_chip = max(int(np.ceil(1.25 * view_hz / CHIP_RATE_HZ)), 2)
    rate_hz = samples_per_chip * CHIP_RATE_HZ
    packets = _schedule(rng, 3 * duration_s)
    starts = np.array([start for start, _, _ in packets])
    lengths = np.array([(SHR_PHR_BYTES + size) * BYTE_S for _, size, _ in packets])
    origin_s = window_start(rng, starts, lengths, duration_s)
    amplitudes = 10 ** (-rng.uniform(0, rng.choice([3, 20]), 6) / 20)
    offsets_hz = rng.uniform(-1, 1, 6) * rng.choice([10e3, 50e3, 95e3])
    target = np.zeros(sample_count(duration_s, rate_hz), np.complex64)
    for (start, size, node), length in zip(packets, lengths, strict=True):
        if start - origin_s < duration_s and start + length > origin_s:
            burst = shift(packet(rng, size, samples_per_chip), offsets_hz[node], rate_hz)
            phase = np.exp(2j * np.pi * rng.uniform())
            place(target, (amplitudes[node] * phase * burst).astype(np.complex64), int((start - origin_s) * rate_hz))
    return Emission(unit_power(target), rate_hz, 2.2e6)


SIGNAL = SignalClass(
    label="zigbee",
    standard="IEEE Std 802.15.4-2015 clauses 6.2.5, 6.7.4, 12",
    views=(View(3.9e6, 4.2e6, 3.0), View(4.2e6, 10e6, 1.0), View(10e6, 20e6, 0.7)),
    make=make,
    shortest_s=0.002,
)
