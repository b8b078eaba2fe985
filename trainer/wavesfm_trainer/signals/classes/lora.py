# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRa: chirp spread spectrum.

Semtech AN1200.22 (modulation, packet: preamble of upchirps, two sync symbols, 2.25 downchirps, payload) and the SX1276
data sheet 4.1.1.7 (symbols of a packet); Chiani and Elzanaty 2019 for the phase, which is continuous over symbols.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import place, sample_count, shift, window_start

DOWN = -1  # marks a downchirp among the symbol values
BANDWIDTHS_HZ = np.array([62.5e3, 125e3, 250e3, 500e3])
BANDWIDTH_SHARES = np.array([0.06, 0.6, 0.22, 0.12])
SYNC_WORDS = (0x34, 0x12, 0x2B)  # public LoRaWAN, private, Meshtastic


def payload_symbols(payload_bytes: int, spreading: int, bandwidth_hz: float, coding: int) -> int:
    """Symbols after the preamble (SX1276 data sheet 4.1.1.7), with header and CRC."""
    slow = 2**spreading / bandwidth_hz > 16e-3
    groups = np.ceil((8 * payload_bytes - 4 * spreading + 44) / (4 * (spreading - 2 * slow)))
    return 8 + max(int(groups), 0) * (coding + 4)


def _packet_symbols(rng: np.random.Generator, spreading: int, bandwidth_hz: float) -> tuple[NDArray, int]:
    """Symbol values of a packet and the length of its preamble with the sync symbols."""
    preamble = int(rng.choice([6, 8, 8, 8, 12, 16]))
    word = int(rng.choice(SYNC_WORDS))
    size = int(np.exp(rng.uniform(np.log(6), np.log(120))))
    if spreading >= 11:
        size = min(size, 51)
    count = payload_symbols(size, spreading, bandwidth_hz, int(rng.integers(1, 5)))
    chips = 2**spreading
    sync = [(word >> 4) * 8 % chips, (word & 15) * 8 % chips]
    values = np.concatenate([np.zeros(preamble, int), sync, [DOWN] * 3, rng.integers(0, chips, count)])
    return values, preamble + 2


def _chirps(values: NDArray, spreading: int, oversampling: int) -> IQ:
    """Chirps [len(values) * 2**spreading * oversampling], each from phase zero to phase zero."""
    length = 2**spreading * oversampling
    n = np.arange(length)
    turns = n.astype(np.float64) ** 2 / (2 * 2**spreading * oversampling**2) - n / (2 * oversampling)
    base = np.exp(2j * np.pi * (turns - np.floor(turns))).astype(np.complex64)
    shifts = np.maximum(values, 0) * oversampling
    chirps = sliding_window_view(np.tile(base, 2), length)[shifts] * base[shifts].conj()[:, None]
    chirps[values == DOWN] = base.conj()
    return chirps.ravel()


def _place_packet(target: IQ, values: NDArray, before_down: int, start: int, spreading: int, oversampling: int) -> None:
    """Add the symbols of a packet that are inside `target`; only a quarter of the third downchirp is sent."""
    length = 2**spreading * oversampling
    quarter = before_down + 2
    starts = start + length * np.arange(len(values))
    starts[quarter + 1 :] -= length - length // 4
    inside = (starts < len(target)) & (starts + length > 0)
    parts = (slice(0, quarter), slice(quarter, quarter + 1), slice(quarter + 1, None))
    for part, cut in zip(parts, (None, length // 4, None), strict=True):
        chosen = values[part][inside[part]]
        if len(chosen):
            place(target, _chirps(chosen, spreading, oversampling)[:cut], int(starts[part][inside[part]][0]))


def _node(rng: np.random.Generator, duration_s: float, bandwidth_hz: float, oversampling: int) -> IQ:
    """The packets of one node, sampled at `oversampling` times the bandwidth."""
    rate_hz = oversampling * bandwidth_hz
    target = np.zeros(sample_count(duration_s, rate_hz), np.complex64)
    spreading = int(rng.integers(7, 13))
    mean_gap_s = np.exp(rng.uniform(np.log(0.03), np.log(4.0)))
    packets, starts, lengths, now = [], [], [], 0.0
    while now < 3 * duration_s:
        values, before_down = _packet_symbols(rng, spreading, bandwidth_hz)
        length_s = (len(values) - 0.75) * 2**spreading / bandwidth_hz
        packets.append((values, before_down))
        starts.append(now)
        lengths.append(length_s)
        now += length_s + 5e-3 + rng.exponential(mean_gap_s)
    origin_s = window_start(rng, np.array(starts), np.array(lengths), duration_s)
    for (values, before_down), start in zip(packets, starts, strict=True):
        _place_packet(target, values, before_down, int((start - origin_s) * rate_hz), spreading, oversampling)
    return target


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Packets of one node, or of two nodes on one channel or on neighbouring channels."""
    shares = BANDWIDTH_SHARES * ((view_hz / 20 <= BANDWIDTHS_HZ) & (1.02 * view_hz >= BANDWIDTHS_HZ))
    bandwidth_hz = float(rng.choice(BANDWIDTHS_HZ, p=shares / shares.sum())) if shares.any() else 500e3
    others = int(rng.uniform() < 0.2)
    apart = 1.6 * bandwidth_hz * int(rng.integers(0, 3)) if others else 0.0
    if apart + bandwidth_hz > 0.9 * view_hz:
        apart = 0.0
    oversampling = 2 * int(2 ** np.ceil(np.log2(max((apart + bandwidth_hz) / (2 * bandwidth_hz), 1))))
    rate_hz = oversampling * bandwidth_hz
    iq = _node(rng, duration_s, bandwidth_hz, oversampling)
    if apart:
        iq = shift(iq, -apart / 2, rate_hz)
    if others:
        second = _node(rng, duration_s, bandwidth_hz, oversampling) * np.float32(10 ** (-rng.uniform(0, 20) / 20))
        iq += shift(second, apart / 2, rate_hz) if apart else second
    return Emission(unit_power(iq), rate_hz, bandwidth_hz + apart)


SIGNAL = SignalClass(
    label="lora",
    standard="Semtech AN1200.22; SX1276 data sheet 4.1.1",
    views=(View(0.25e6, 1.05e6, 4.0), View(1.05e6, 2.4e6, 1.0)),
    make=make,
    shortest_s=0.05,
)
