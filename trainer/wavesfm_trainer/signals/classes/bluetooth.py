# SPDX-License-Identifier: GPL-3.0-or-later
"""Bluetooth BR/EDR and LE, and proprietary GFSK devices of the same band (nRF24-like mice, toys, remote controls).

Bluetooth Core Specification 5.4: Vol 2 Part A 3 (GFSK BT 0.5, h 0.28-0.35; EDR pi/4-DQPSK and 8DPSK, roll-off 0.4),
Vol 2 Part B 2.2 and 6 (slots of 625 us, packets), Vol 6 Part A 3 (LE GFSK BT 0.5, h 0.45-0.55), Part B 2.1 and 4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import bits, fsk, place, rrc_taps, sample_count, shift, smooth, window_start

SYMBOL_RATE_HZ = 1e6
SLOT_S = 625e-6
IFS_S = 150e-6
ADVERTISING_ADDRESS = 0x8E89BED6
CHANNEL_HZ = 1e6
EDGE_HZ = 0.6e6
TOY_VIEW_HZ = 4.5e6  # below this rate, recordings of toys and remote controls are usual


@dataclass(frozen=True)
class Packet:
    """One packet of a network."""

    start_s: float
    """Start in seconds."""
    length_s: float
    """Length in seconds."""
    channel: int
    """Index of the channel among those in view."""
    device: int
    """Index of the sender."""
    render: Callable[[float], IQ]
    """Function of the sample rate in Hz that returns the samples."""


def _signs(data: NDArray) -> NDArray[np.float32]:
    return (2 * data - 1).astype(np.float32)


def _field(value: int, count: int) -> NDArray[np.int8]:
    """`count` bits of a value, least significant first, the order of transmission."""
    return np.array([(value >> k) & 1 for k in range(count)], np.int8)


def _dpsk(rng: np.random.Generator, count: int, levels: int, rate_hz: float) -> IQ:
    """`count` symbols of pi/4-DQPSK (4 levels) or 8DPSK after their reference symbol."""
    step = rng.integers(0, levels, count) * (2 * np.pi / levels) + (np.pi / 4 if levels == 4 else 0.0)
    per_symbol = round(rate_hz / SYMBOL_RATE_HZ)
    impulses = np.zeros(count * per_symbol, np.complex64)
    impulses[::per_symbol] = np.exp(1j * np.cumsum(step)) * np.sqrt(per_symbol)
    return smooth(impulses, rrc_taps(0.4, per_symbol))


def _basic(rng: np.random.Generator, access: NDArray, payload_us: int, levels: int, index: float) -> tuple:
    """Length in s and renderer of a BR (levels 2) or EDR packet: access code 72 us, header 54 us, payload."""
    head = np.concatenate([access, np.repeat(bits(rng, 18), 3)]) if payload_us >= 0 else access[:68]
    enhanced = payload_us > 0 and levels > 2
    body = bits(rng, payload_us) if payload_us > 0 and not enhanced else np.zeros(0, np.int8)
    seed = int(rng.integers(2**31))

    def render(rate_hz: float) -> IQ:
        gfsk = fsk(_signs(np.concatenate([head, body])), SYMBOL_RATE_HZ, index / 2 * SYMBOL_RATE_HZ, rate_hz, 0.5)
        if not enhanced:
            return gfsk
        guard = np.zeros(int(5e-6 * rate_hz), np.complex64)
        return np.concatenate([gfsk, guard, _dpsk(np.random.default_rng(seed), payload_us, levels, rate_hz)])

    return (len(head) + max(payload_us, 0) + 5 * enhanced) * 1e-6, render


def _piconet(rng: np.random.Generator, span_s: float, channels: int, hop_set: int) -> list[Packet]:
    """BR/EDR traffic in 625 us slots that hops over `hop_set` channels, of which `channels` are in view."""
    access = np.concatenate([[0, 1, 0, 1], bits(rng, 64), [0, 1, 0, 1]]).astype(np.int8)
    kind = rng.choice(["acl5", "acl3", "acl1", "voice", "poll", "inquiry"], p=[0.3, 0.14, 0.14, 0.2, 0.1, 0.12])
    levels, index = int(rng.choice([2, 4, 8])), rng.uniform(0.28, 0.35)
    slots, most_us = {"acl5": (5, 2744), "acl3": (3, 1496), "acl1": (1, 240)}.get(str(kind), (1, 240))
    every = {"voice": int(rng.choice([6, 6, 12, 2])), "poll": int(rng.choice([2, 8, 24, 40]))}.get(str(kind), slots + 1)
    pause = rng.choice([0.0, 0.3, 0.8])
    packets, now = [], 0.0
    while now < span_s:
        if kind == "inquiry":  # two ID packets of 68 us in a slot, on two channels, then a slot to listen
            for half in (0.0, SLOT_S / 2):
                sent = _basic(rng, access, -1, 2, index)
                packets.append(Packet(now + half, *_on_channel(rng, channels, hop_set, 0, *sent)))
            now += 2 * SLOT_S
            continue
        if rng.uniform() >= pause:
            sent_us = 0 if kind == "poll" else int(most_us * (rng.uniform(0.05, 1) if rng.uniform() < 0.3 else 1.0))
            sent = _basic(rng, access, sent_us, levels, index)
            packets.append(Packet(now, *_on_channel(rng, channels, hop_set, 0, *sent)))
            answer = _basic(rng, access, int(rng.choice([0, most_us])) if kind == "voice" else 0, levels, index)
            packets.append(Packet(now + slots * SLOT_S, *_on_channel(rng, channels, hop_set, 1, *answer)))
        now += max(every, slots + 1) * SLOT_S
    return [packet for packet in packets if packet.channel >= 0]


def _on_channel(rng: np.random.Generator, channels: int, hop_set: int, device: int, length_s: float, render) -> tuple:
    """The other fields of a Packet, with a channel drawn from the hop set; -1 if it is out of view."""
    drawn = int(rng.integers(max(hop_set, channels)))
    return length_s, (drawn if drawn < channels else -1), device, render


def _low_energy_bits(rng: np.random.Generator, address: int, octets: int, fast: bool) -> NDArray[np.int8]:
    """Preamble, access address, header, whitened payload and CRC of an LE packet (Vol 6 Part B 2.1)."""
    preamble = _field(0xAAAA if address & 1 == 0 else 0x5555, 16 if fast else 8)
    return np.concatenate([preamble, _field(address, 32), bits(rng, 8 * (2 + octets + 3))])


def _low_energy(rng: np.random.Generator, span_s: float, channels: int, hop_set: int) -> list[Packet]:
    """LE advertising on one channel in view, or connection events that hop over 37 channels 2 MHz apart."""
    advertising = rng.uniform() < 0.5
    address = ADVERTISING_ADDRESS if advertising else int(rng.integers(2**32))
    fast = not advertising and rng.uniform() < 0.4
    index, symbol_rate_hz = rng.uniform(0.45, 0.55), 2e6 if fast else 1e6
    interval_s = rng.uniform(20e-3, 150e-3) if advertising else 1.25e-3 * int(rng.integers(6, 40))
    advertisers = int(rng.integers(1, 30)) if advertising else 1
    busy = rng.choice([1, 1, 4, 12])
    size = int(rng.choice([0, 20, 27, 100, 244]))
    home = int(rng.integers(channels))
    packets, now = [], 0.0
    while now < span_s:
        channel = home if advertising else 2 * int(rng.integers(max(37, channels)))
        advertiser, at = int(rng.integers(6)), now
        count = int(rng.choice([1, 1, 3])) if advertising else 2 * int(rng.integers(1, busy + 1))
        for k in range(count if channel < channels else 0):
            short = 12 if advertising else 0
            octets = int(rng.integers(9, 38)) if advertising and k == 0 else (size if k % 2 == 0 else short)
            data = _low_energy_bits(rng, address, octets, fast)
            signs, deviation_hz = _signs(data), index / 2 * symbol_rate_hz
            packets.append(
                Packet(
                    at, len(data) / symbol_rate_hz, channel, (advertiser + k % 2) % 6,
                    lambda rate_hz, signs=signs, dev=deviation_hz: fsk(signs, symbol_rate_hz, dev, rate_hz, 0.5),
                )
            )  # fmt: skip
            at += len(data) / symbol_rate_hz + IFS_S
        now = at + (rng.exponential(interval_s / advertisers) if advertising else max(interval_s - (at - now), 1e-3))
    return packets


def _proprietary(rng: np.random.Generator, span_s: float, channels: int, hop_set: int) -> list[Packet]:
    """Bursts of a toy, mouse or remote control at a steady pace on one or few channels, long ones from simple chips."""
    symbol_rate_hz = float(rng.choice([250e3, 1e6, 1e6, 2e6, rng.uniform(0.1e6, 1e6)]))
    narrow = {250e3: 160e3, 1e6: 160e3, 2e6: 320e3}.get(symbol_rate_hz, 0.25 * symbol_rate_hz)
    deviation_hz = narrow if rng.uniform() < 0.5 else min(rng.uniform(0.25, 0.8) * symbol_rate_hz, 450e3)
    bt = rng.choice([0.5, 1.0, 0.0])
    length_s = np.exp(rng.uniform(np.log(0.1e-3), np.log(1.5e-3 if rng.uniform() < 0.6 else 8e-3)))
    gap_s = np.exp(rng.uniform(np.log(0.05e-3), np.log(20e-3)))
    used = rng.permutation(channels)[: int(rng.choice([1, 1, 2, 4, 16]))]
    answer, jitter = rng.uniform() < 0.3, rng.choice([0.0, 0.01, 0.3])
    # Remote controls repeat a command in groups of packets with a pause after each group.
    group = int(rng.integers(3, 16)) if rng.uniform() < 0.4 else 0
    pause_s = rng.uniform(2e-3, 25e-3)
    address = np.concatenate([[0, 1] * 4, bits(rng, 40)])
    packets, now, turn, count = [], 0.0, 0, 0
    while now < span_s:
        spot = int(used[turn % len(used)])
        for device, share in ((0, 1.0), (1, 0.4))[: 1 + answer]:
            payload = bits(rng, max(int(length_s * share * symbol_rate_hz) - 48, 8))
            signs = _signs(np.concatenate([address, payload]))
            packets.append(
                Packet(
                    now, len(signs) / symbol_rate_hz, spot, device,
                    lambda rate_hz, signs=signs: fsk(signs, symbol_rate_hz, deviation_hz, rate_hz, bt or None),
                )
            )  # fmt: skip
            now += len(signs) / symbol_rate_hz + (130e-6 if answer and device == 0 else 0.0)
        now += gap_s * (1 + jitter * rng.uniform(-1, 1))
        count += 1
        if group and count % group == 0:
            now += pause_s
        turn += int(rng.uniform() < 0.8) if len(used) > 4 else 1
    return packets


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """The packets in view of one network or device."""
    rate_hz = max(np.ceil(view_hz / 1e6), 4) * 1e6
    channels = max(int((min(view_hz, rate_hz) - 2 * EDGE_HZ) // CHANNEL_HZ), 1)
    shares = (0.3, 0.2, 0.5) if view_hz < TOY_VIEW_HZ else (0.4, 0.25, 0.35)
    kind = (_piconet, _low_energy, _proprietary)[int(rng.choice(3, p=shares))]
    if channels < 6 and rng.uniform() < 0.7:
        channels = 1
    hop_set = int(rng.choice([79, 79, 40, 20]))
    packets: list[Packet] = []
    span_s = max(3 * duration_s, 10e-3)
    while not packets:
        packets = kind(rng, span_s, channels, hop_set)
        span_s *= 4
    starts, lengths = (np.array([getattr(p, name) for p in packets]) for name in ("start_s", "length_s"))
    order = np.argsort(starts)
    origin_s = window_start(rng, starts[order], lengths[order], duration_s)
    grid_hz = (np.arange(channels) - (channels - 1) / 2) * CHANNEL_HZ
    grid_hz += rng.uniform(-0.5, 0.5) * CHANNEL_HZ if channels > 1 and rng.uniform() < 0.6 else 0.0
    drift_hz = rng.uniform(-75e3, 75e3, 6)
    amplitudes = 10 ** (-rng.uniform(0, rng.choice([2, 10, 25]), 6) / 20)
    target = np.zeros(sample_count(duration_s, rate_hz), np.complex64)
    for packet in packets:
        start_s = packet.start_s - origin_s
        if start_s < duration_s and start_s + packet.length_s > 0:
            offset_hz = grid_hz[packet.channel] + drift_hz[packet.device]
            burst = shift(packet.render(rate_hz), offset_hz, rate_hz)
            gain = np.complex64(amplitudes[packet.device] * np.exp(2j * np.pi * rng.uniform()))
            place(target, gain * burst, int(start_s * rate_hz))
    # A toy is recorded from a metre away: its skirts show.
    near = kind is _proprietary and view_hz < TOY_VIEW_HZ and rng.uniform() < 0.4
    least_snr_db = float(rng.uniform(20, 50)) if near else -np.inf
    return Emission(unit_power(target), rate_hz, 1.0e6, channels > 1, least_snr_db)


SIGNAL = SignalClass(
    label="bluetooth",
    standard="Bluetooth Core 5.4 Vol 2 Part A 3, Part B 2.2, 6; Vol 6 Part A 3, Part B 2.1, 4.4",
    views=(View(2e6, 4e6, 2.0), View(4e6, 8e6, 0.7), View(8e6, 25e6, 1.5)),
    make=make,
    shortest_s=0.002,
)
