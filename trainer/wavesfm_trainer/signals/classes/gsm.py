# SPDX-License-Identifier: GPL-3.0-or-later
"""GSM cells and handsets.

3GPP TS 45.002 clause 4.3.2 (slots), 5.2 (bursts and training sequences) and 7 (51-frame multiframe); TS 45.010 clause
5.7 (slots of 157 and 156 symbols); TS 45.004 clause 2 (GMSK) and 3 (8-PSK with the linearised GMSK pulse, which also
carries GMSK here: Laurent's first pulse has over 99 % of its energy).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import ndtr

from ..base import IQ, Emission, SignalClass, View, unit_power

SYMBOL_RATE_HZ = 1.625e6 / 6
RASTER_HZ = 200e3
FRAME_SYMBOLS = 1250
BURST_SYMBOLS = 148
SLOT_STARTS = np.array([0, 157, 313, 469, 625, 782, 938, 1094])
PAD_SYMBOLS = 8


def _table(text: str) -> NDArray[np.int8]:
    return np.frombuffer(text.encode(), np.int8) - ord("0")


TRAINING = [
    _table(text)
    for text in (
        "00100101110000100010010111", "00101101110111100010110111", "01000011101110100100001110",
        "01000111101101000100011110", "00011010111001000001101011", "01001110101100000100111010",
        "10100111110110001010011111", "11101111000100101110111100",
    )
]  # fmt: skip
SYNC_TRAINING = _table("1011100101100010000001000000111100101101010001010111011000011011")
ACCESS_SYNC = _table("01001011011111111001100110101010001111000")
DUMMY = _table(
    "0001111101101110110000010100100111000001001000100000001111100011100010111000101110001010111010010100011001100111"
    "001111010011111000100101111101010000"
)


def _pulse_spectrum() -> tuple[NDArray, NDArray]:
    """Spectrum of the pulse c0(t) of TS 45.004 clause 3.5 over frequency in symbol rates."""
    step = 1 / 32
    t = np.arange(0, 4, step) + step / 2
    scale = 2 * np.pi * 0.3 / np.sqrt(np.log(2))
    g = 0.5 * (ndtr(-scale * (t - 2.5)) - ndtr(-scale * (t - 1.5)))
    phase = np.pi * np.cumsum(g) * step
    s = np.sin(np.concatenate([[0.0], phase, np.pi / 2 - phase]))
    per = int(1 / step)
    padded = np.concatenate([s, np.zeros(4 * per)])
    c0 = np.prod([padded[i * per : i * per + 5 * per + 1] for i in range(4)], axis=0)
    frequency = np.linspace(-1, 1, 513)
    lag = np.arange(len(c0)) * step - 2.5
    return frequency, (c0 * np.cos(2 * np.pi * frequency[:, None] * lag)).sum(axis=1)


PULSE_FREQUENCY, PULSE_GAIN = _pulse_spectrum()


def _random_bits(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    count = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(rng.bytes(count // 8 + 1), np.uint8))[:count].reshape(shape).astype(np.int8)


def _normal_bits(rng: np.random.Generator, frames: int) -> NDArray[np.int8]:
    """Frames [frames, 1250] of normal bursts: tails, training sequence, random payload (TS 45.002 clause 5.2.3)."""
    data = _random_bits(rng, frames, FRAME_SYMBOLS)
    training = TRAINING[int(rng.integers(8))]
    for start in SLOT_STARTS:
        data[:, start : start + 3] = 0
        data[:, start + 145 : start + BURST_SYMBOLS] = 0
        data[:, start + 61 : start + 87] = training
    return data


def _beacon_bits(rng: np.random.Generator, frames: int, first_frame: int) -> NDArray[np.int8]:
    """The C0 carrier: FCCH, SCH and control channels in slot 0, traffic or dummy bursts in the others."""
    data = _normal_bits(rng, frames)
    number = (first_frame + np.arange(frames)) % 51
    data[(number < 50) & (number % 10 == 0), :BURST_SYMBOLS] = 0
    data[(number < 50) & (number % 10 == 1), 42 : 42 + 64] = SYNC_TRAINING
    data[number == 50, :BURST_SYMBOLS] = DUMMY
    busy = rng.uniform(size=7) < rng.uniform(0, 0.9)
    silent = rng.uniform(size=(frames, 7)) < rng.choice([0.0, 0.3])
    for slot, start in enumerate(SLOT_STARTS[1:]):
        idle = silent[:, slot] | (not busy[slot])
        data[idle, start : start + BURST_SYMBOLS] = DUMMY
    return data


def _slots_to_symbols(levels: NDArray, guard: NDArray | float) -> NDArray:
    """Symbol amplitudes [frames, 1250] from those of the slots [frames, 8]; `guard` is the level between slots."""
    amplitude = np.empty((len(levels), FRAME_SYMBOLS), np.float32)
    for slot, start in enumerate(SLOT_STARTS):
        end = SLOT_STARTS[slot + 1] if slot < 7 else FRAME_SYMBOLS
        amplitude[:, start:end] = levels[:, slot, None]
        amplitude[:, start + BURST_SYMBOLS : end] *= guard
    return amplitude


def _phases(rng: np.random.Generator, data: NDArray[np.int8], edge: NDArray | None) -> NDArray:
    """Symbol phases in sixteenths of a turn [n]; `edge` [frames, 8] marks the slots in 8-PSK."""
    flat = data.ravel()
    differential = flat.copy()
    differential[1:] ^= flat[:-1]
    sixteenths = (4 * np.cumsum(1 - 2 * differential, dtype=np.int32)) & 15
    if edge is not None and edge.any():
        psk = (2 * rng.integers(0, 8, len(flat)) + 3 * np.arange(len(flat))) & 15
        sixteenths = np.where(_slots_to_symbols(edge, 1.0).ravel() > 0, psk, sixteenths)
    return sixteenths


def _traffic_levels(rng: np.random.Generator, carriers: int, frames: int, first_frame: int) -> NDArray:
    """Amplitudes [carriers, frames, 8] of traffic slots: some empty, power control, idle frames, DTX, hopping."""
    used = rng.uniform(size=(carriers, 1, 8)) < rng.uniform(0.15, 1.0)
    levels = 10 ** (-rng.uniform(0, rng.choice([2, 12, 20]), (carriers, 1, 8)) / 20) * used
    levels = np.repeat(levels, frames, axis=1)
    number = (first_frame + np.arange(frames)) % 26  # idle in frame 25 of even slots, 12 of odd ones: clause 7 table 1
    idle = np.stack([number == (12 if slot % 2 else 25) for slot in range(8)], axis=1)
    levels *= 1 - idle * rng.choice([0, 1], p=[0.3, 0.7])
    if rng.uniform() < 0.4:  # discontinuous transmission
        talk = np.repeat(rng.uniform(size=(carriers, frames // 100 + 2, 8)) < 0.6, 100, axis=1)
        for slot in range(8):
            levels[:, :, slot] *= np.roll(talk[:, :, slot], int(rng.integers(100)), axis=1)[:, :frames]
    if carriers > 1 and rng.uniform() < 0.5:
        levels = rng.permuted(levels, axis=0)
    return levels


def _handset(rng: np.random.Generator, frames: int) -> tuple[NDArray, NDArray]:
    """Uplink bits and amplitudes of one handset: one to three slots per frame, sometimes access bursts."""
    data = _normal_bits(rng, frames)
    levels = np.zeros((frames, 8))
    first, count = int(rng.integers(8)), int(rng.choice([1, 1, 1, 2, 3]))
    levels[:, first : first + count] = 1
    levels[rng.uniform(size=frames) < rng.choice([0.0, 0.1, 0.6])] = 0
    levels[int(rng.integers(frames)), first] = 1
    amplitude = _slots_to_symbols(levels, 0.0)
    if rng.uniform() < 0.15:
        start = SLOT_STARTS[first]  # access burst of 88 symbols, TS 45.002 clause 5.2.7
        data[:, start + 8 : start + 49] = ACCESS_SYNC
        amplitude[:, start + 88 :] = 0
        amplitude[:, :start] = 0
    return data, amplitude


def _carriers(rng: np.random.Generator, frames: int, spots: NDArray) -> list[NDArray]:
    """Symbols [frames * 1250] of each carrier at the raster `spots`: the beacon, then traffic carriers."""
    first_frame = int(rng.integers(51 * 26))
    table = np.exp(2j * np.pi * np.arange(16) / 16).astype(np.complex64)
    traffic = _traffic_levels(rng, len(spots), frames, first_frame)
    edge_share = rng.choice([0.0, 0.5], p=[0.8, 0.2])
    symbols = []
    beacons = rng.uniform(size=len(spots)) < rng.choice([0.0, 0.25], p=[0.6, 0.4])  # of other cells
    for number in range(len(spots)):
        edge = None
        if edge_share:
            edge = np.repeat(rng.uniform(size=(1, 8)) < edge_share, frames, axis=0)
            edge[:, 0] &= number > 0 and not beacons[number]
        if number == 0 or beacons[number]:  # C0 has full power in every slot, TS 45.008 clause 7.1
            data = _beacon_bits(rng, frames, first_frame + 7 * number)
            levels, guard = np.ones((frames, 8)), float(rng.choice([0.0, 0.7, 1.0]))
        else:
            data, levels, guard = _normal_bits(rng, frames), traffic[number], 0.0
        amplitude = _slots_to_symbols(levels, guard).ravel() * 10 ** (-rng.uniform(0, 15) * (number > 0) / 20)
        symbols.append(table[_phases(rng, data, edge)] * amplitude.astype(np.float32))
    return symbols


def _synthesise(symbols: list[NDArray], offsets_hz: NDArray, count: int, view_hz: float) -> tuple[IQ, float]:
    """Shape `count` symbols of each carrier and sum them at their offsets, all in one inverse FFT."""
    n_out = fft.next_fast_len(int(np.ceil(count * 1.2 * view_hz / SYMBOL_RATE_HZ)))
    rate_hz = SYMBOL_RATE_HZ * n_out / count
    spectrum = np.zeros(n_out, np.complex64)
    reach = min(count, n_out // 2 + int(np.abs(offsets_hz).max() / rate_hz * n_out) + 1)
    bins = np.arange(-reach, reach)
    gain = np.interp(bins / count, PULSE_FREQUENCY, PULSE_GAIN).astype(np.float32)
    for stream, offset_hz in zip(symbols, offsets_hz, strict=True):
        tones = fft.fft(stream.astype(np.complex64, copy=False))
        shaped = np.concatenate([tones[-reach:], tones[:reach]]) * gain
        at = bins + round(float(offset_hz) / rate_hz * n_out) + n_out // 2
        inside = slice(np.searchsorted(at, 0), np.searchsorted(at, n_out))
        spectrum[at[inside]] += shaped[inside]
    return fft.ifft(fft.ifftshift(spectrum)), rate_hz


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """The carriers of a cell that are in view, or one handset."""
    needed = int(np.ceil(duration_s * SYMBOL_RATE_HZ)) + 2 * PAD_SYMBOLS
    count = fft.next_fast_len(max(needed, 1024))
    frames = count // FRAME_SYMBOLS + 2
    most = max(int((view_hz - 50e3) // RASTER_HZ), 1)
    wanted = int(rng.integers(1, most + 1)) if rng.uniform() < 0.6 else 1
    uplink = wanted == 1 and rng.uniform() < 0.2
    if wanted == 1:
        offsets_hz = np.zeros(1)
    else:
        offsets_hz = (rng.choice(most, wanted, replace=False) - (most - 1) / 2) * RASTER_HZ
        offsets_hz += rng.uniform(-50e3, 50e3)
    if uplink:
        data, amplitude = _handset(rng, frames)
        table = np.exp(2j * np.pi * np.arange(16) / 16).astype(np.complex64)
        streams = [table[_phases(rng, data, None)] * amplitude.ravel()]
        on_air = int(rng.choice(np.flatnonzero(amplitude)))
        start = on_air - PAD_SYMBOLS - int(rng.uniform(0.1, 0.9) * (needed - 2 * PAD_SYMBOLS))
        streams = [np.roll(stream, -start) for stream in streams]
    else:
        streams = _carriers(rng, frames, offsets_hz)
        start = int(rng.integers(frames * FRAME_SYMBOLS - count))
        streams = [stream[start:] for stream in streams]
    iq, rate_hz = _synthesise([stream[:count] for stream in streams], offsets_hz, count, view_hz)
    first = int(PAD_SYMBOLS * rate_hz / SYMBOL_RATE_HZ)
    iq = iq[first : first + int(np.ceil(duration_s * rate_hz))]
    if uplink:
        iq[np.abs(iq) < 1e-3 * np.abs(iq).max()] = 0  # remove the rounding errors of the FFT
    occupied_hz = min(float(np.ptp(offsets_hz)) + 200e3, view_hz)
    return Emission(unit_power(iq), rate_hz, occupied_hz, placed=wanted > 1)


SIGNAL = SignalClass(
    label="gsm",
    standard="3GPP TS 45.002 clauses 4.3, 5.2, 7; TS 45.004 clauses 2, 3",
    views=(View(0.25e6, 0.5e6, 1.0), View(0.8e6, 2.4e6, 3.0), View(2.4e6, 10e6, 1.0)),
    make=make,
    shortest_s=0.01,
)
