# SPDX-License-Identifier: GPL-3.0-or-later
"""Weather balloon telemetry around 400-406 MHz: RS41, M10/M20, DFM, iMet and LMS6 sondes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, hex_bits, phasor, raster, side_by_side
from ..shaping import Reals, bits, gaussian_taps, hold, sample_count, smooth

RATE_HZ = 48e3
RS41_HEADER = hex_bits("086D53884469481F")  # 64 header bits in the order sent
DFM_HEADER, LMS6_HEADER = hex_bits("45CF"), hex_bits("F0CCAA00")


@dataclass(frozen=True)
class _Sonde:
    """Frames of one sonde."""

    symbol_hz: float
    """Line symbols per second."""
    frames: np.ndarray
    """Symbols [n_frames, k]."""
    period_s: float
    """Period of the frames in seconds; the rest of a period is silent."""
    deviation_hz: float
    """Frequency deviation."""
    bt: float
    """Bandwidth-time product of the Gaussian filter."""
    idles: bool = False
    """True if the rest of a period is an unmodulated carrier."""


def _manchester(data: np.ndarray) -> np.ndarray:
    """Two half bits for each bit, along the last axis."""
    return np.stack([data, 1 - data], axis=-1).reshape(*data.shape[:-1], -1)


def _rs41(rng: np.random.Generator, n_frames: int) -> _Sonde:
    """Vaisala RS41: 320 alternating bits, then 320 (or 518, extended) whitened octets at 4800 bit/s, once a second."""
    n_octets = 320 if rng.random() < 0.8 else 518
    data = bits(rng, n_frames * 8 * n_octets).reshape(n_frames, -1)
    data[:, :64] = RS41_HEADER
    preamble = np.broadcast_to(np.arange(320, dtype=np.int8) % 2, (n_frames, 320))
    return _Sonde(4800, np.concatenate([preamble, data], axis=1), 1.0, rng.uniform(2.2e3, 2.7e3), rng.uniform(0.5, 0.8))


def _m10(rng: np.random.Generator, n_frames: int) -> _Sonde:
    """Meteomodem M10 or M20: a differential Manchester frame of 101 or 70 octets at 9600 half bits/s, once a second."""
    n_bits = 8 * int(rng.choice([101, 70]))
    data = _manchester(np.cumsum(bits(rng, n_frames * n_bits).reshape(n_frames, -1), axis=1) % 2)
    lead = int(rng.integers(4, 60))
    preamble = np.broadcast_to(np.tile([0, 1, 1, 0], lead), (n_frames, 4 * lead))
    frames = np.concatenate([preamble, data], axis=1)
    return _Sonde(9600, frames, 1.0, rng.uniform(3.6e3, 5e3), 0.7, idles=rng.random() < 0.3)


def _dfm(rng: np.random.Generator, n_frames: int) -> _Sonde:
    """Graw DFM: consecutive 280-bit frames at 2500 bit/s, Manchester coded (5000 half bits/s)."""
    data = bits(rng, 9 * n_frames * 280).reshape(-1, 280)
    data[:, :16] = DFM_HEADER
    period_s = 280 * 9 / 2500
    return _Sonde(
        5000, _manchester(data).reshape(n_frames, -1), period_s, rng.uniform(1.8e3, 3.2e3), rng.uniform(0.5, 1.2)
    )


def _lms6(rng: np.random.Generator, n_frames: int) -> _Sonde:
    """Lockheed Martin LMS6: a continuous, convolutionally coded stream at 4800 bit/s with a sync word per block."""
    data = bits(rng, n_frames * 4800).reshape(n_frames, -1)
    data[:, :32] = LMS6_HEADER
    return _Sonde(4800, data, 1.0, rng.uniform(2.2e3, 3e3), rng.uniform(0.5, 0.8))


MAKERS = {"rs41": (_rs41, 0.5), "m10": (_m10, 0.18), "dfm": (_dfm, 0.18), "lms6": (_lms6, 0.05), "imet": (None, 0.09)}


def _imet(rng: np.random.Generator, n_samples: int) -> Reals:
    """Intermet iMet: Bell 202 audio on FM, asynchronous octets (8N1) in two packets a second, mark tone between."""
    bit_hz, start = 1200.0, int(rng.integers(0, 1200))
    n_bits = int(n_samples / RATE_HZ * bit_hz) + 2 + start
    line = np.ones(n_bits, np.int8)
    octets = bits(rng, n_bits // 10 * 10 + 10).reshape(-1, 10)
    octets[:, 0], octets[:, 9] = 0, 1
    within = np.arange(n_bits) % 1200
    packet = (within < 200) | ((within >= 400) & (within < 590))  # 20-octet sensor and 19-octet position packets
    line[packet] = octets.ravel()[:n_bits][packet]
    tone_hz = np.where(hold(line[start:], bit_hz, RATE_HZ, n_samples) > 0, 1200.0, 2200.0)
    return rng.uniform(2.0e3, 4.5e3) * phasor(tone_hz, RATE_HZ, rng.random()).imag


def _digital(rng: np.random.Generator, sonde: _Sonde, duration_s: float, envelope: Reals) -> Reals:
    """Instantaneous frequency in Hz [n] of a sonde with frames at a random phase; fills `envelope` [n]."""
    n_samples = len(envelope)
    on_s = sonde.frames.shape[1] / sonde.symbol_hz
    # A random instant of the window is inside a frame.
    first_s = rng.uniform(0, duration_s) - rng.uniform(0.02, 0.98) * on_s
    first_s -= np.ceil(max(first_s, 0) / sonde.period_s) * sonde.period_s
    levels = np.zeros(n_samples, np.float32)
    for index, frame in enumerate(sonde.frames):
        start_s = first_s + index * sonde.period_s
        low, high = (int(np.clip(np.ceil(t * RATE_HZ), 0, n_samples)) for t in (start_s, start_s + on_s))
        at = ((np.arange(low, high) / RATE_HZ - start_s) * sonde.symbol_hz + 1e-6).astype(np.int64)
        levels[low:high] = 2.0 * frame[np.clip(at, 0, len(frame) - 1)] - 1
        if on_s < sonde.period_s - 1e-3 and not sonde.idles:
            add_gate(envelope, RATE_HZ, (start_s, start_s + on_s), 0.5e-3)
    if on_s >= sonde.period_s - 1e-3 or sonde.idles:
        envelope[:] = 1
    return sonde.deviation_hz * smooth(levels, gaussian_taps(sonde.bt, RATE_HZ / sonde.symbol_hz))


def _channel(rng: np.random.Generator, duration_s: float) -> IQ:
    """One sonde with carrier drift and the slow fading of a swinging antenna."""
    n_samples = sample_count(duration_s, RATE_HZ) + 2
    names = list(MAKERS)
    name = names[int(rng.choice(len(names), p=[MAKERS[key][1] for key in names]))]
    envelope = np.zeros(n_samples, np.float32)
    if name == "imet":
        frequency_hz = _imet(rng, n_samples)
        envelope[:] = 1
    else:
        sonde = MAKERS[name][0](rng, int(duration_s / 1.0) + 4)
        frequency_hz = _digital(rng, sonde, duration_s, envelope)
    time_s = np.arange(n_samples, dtype=np.float32) / np.float32(RATE_HZ)
    drift_hz = np.float32(rng.normal(0, 300)) + np.float32(rng.normal(0, 40)) * time_s
    swing = 10 ** (rng.uniform(0, 0.2) * np.sin(2 * np.pi * (rng.uniform(0.1, 1.0) * time_s + rng.random())))
    return phasor(frequency_hz + drift_hz, RATE_HZ, rng.random()) * (envelope * swing.astype(np.float32))


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One sonde anywhere, rarely two."""
    count = int(rng.choice([1, 2], p=[0.9, 0.1]))
    channels = [_channel(rng, duration_s) for _ in range(count)]
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, 8e3)
    offsets_hz = raster(rng, count, 20e3, min(0.8 * view_hz, 1e6))
    channels[1] = channels[1] * np.float32(amplitude(rng, -20))
    return side_by_side(channels, offsets_hz, RATE_HZ, 8e3, placed=True)


SIGNAL = SignalClass(
    label="radiosonde",
    standard="ETSI EN 302 054 clause 4 (400.15-406 MHz sondes); framing as published for RS41, M10, DFM, LMS6 and iMet",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 1.05e6, 2), View(1.8e6, 2.4e6, 0.4)),
    make=make,
    shortest_s=0.3,
)
