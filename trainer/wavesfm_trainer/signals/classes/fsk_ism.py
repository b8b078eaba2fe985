# SPDX-License-Identifier: GPL-3.0-or-later
"""Frequency-shift-keyed short-range devices below 1 GHz.

EN 13757-4:2019 clauses 6 to 9 (wireless M-Bus modes S, T, C: chip rates, deviation, preambles), ITU-T G.9959 clause 7.1
(Z-Wave R1 to R3), ETSI EN 300 220-2; tyre sensors, weather stations, thermostats and remotes as commonly received.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import (
    bits,
    clip_near,
    frequency_modulate,
    gaussian_taps,
    hold,
    place,
    sample_count,
    smooth,
    window_start,
)


@dataclass(frozen=True)
class Device:
    """Parameter ranges of one kind of device."""

    weight: float
    """Relative frequency."""
    chip_rate_hz: tuple[float, float]
    """Chips per second."""
    deviation_hz: tuple[float, float]
    """Frequency deviation."""
    burst_s: tuple[float, float]
    """Length of a burst in seconds."""
    repeats: tuple[int, int]
    """Bursts of a group."""
    gap_s: tuple[float, float]
    """Gap between bursts in seconds."""
    coding: str = "nrz"
    """Line code: "nrz", "manchester" or "3of6"."""
    bt: float | None = None
    """Bandwidth-time product of the Gaussian filter; None: drawn."""
    preamble_chips: tuple[int, int] = (16, 64)
    """Length of the preamble in chips."""


DEVICES = (
    Device(1.5, (19e3, 20.5e3), (30e3, 45e3), (5e-3, 12e-3), (2, 6), (20e-3, 120e-3), "manchester"),  # tyre sensor
    Device(0.5, (9.6e3, 10.5e3), (20e3, 40e3), (8e-3, 20e-3), (2, 8), (20e-3, 120e-3), "manchester"),  # tyre sensor
    Device(1.2, (99e3, 101e3), (40e3, 60e3), (2e-3, 12e-3), (1, 1), (1.0, 2.0), "3of6", None, (38, 48)),  # mode T1
    Device(0.8, (32.5e3, 33e3), (45e3, 55e3), (8e-3, 40e-3), (1, 1), (1.0, 2.0), "manchester", None, (60, 576)),  # S1
    Device(0.7, (99.9e3, 100.1e3), (43e3, 47e3), (2e-3, 15e-3), (1, 1), (1.0, 2.0), "nrz", None, (32, 40)),  # mode C1
    Device(1.2, (17.1e3, 17.4e3), (30e3, 60e3), (4e-3, 9e-3), (1, 3), (5e-3, 50e-3)),  # weather station, 17.241 kb/s
    Device(1.0, (8e3, 10e3), (30e3, 60e3), (6e-3, 30e-3), (1, 4), (5e-3, 50e-3)),  # weather station
    Device(2.0, (1e3, 6e3), (10e3, 60e3), (30e-3, 200e-3), (1, 6), (10e-3, 80e-3)),  # remote, two tones
    Device(1.0, (4e3, 20e3), (10e3, 50e3), (10e-3, 80e-3), (1, 6), (10e-3, 80e-3), "manchester"),  # remote, car key
    Device(0.6, (19.2e3, 19.2e3), (20e3, 20e3), (8e-3, 40e-3), (1, 3), (20e-3, 80e-3), "manchester"),  # Z-Wave R1
    Device(0.8, (40e3, 40e3), (20e3, 20e3), (4e-3, 15e-3), (1, 4), (3e-3, 60e-3)),  # Z-Wave R2
    Device(0.5, (100e3, 100e3), (29e3, 29e3), (2e-3, 10e-3), (1, 4), (2e-3, 40e-3), "nrz", 0.6),  # Z-Wave R3
    Device(1.0, (2.4e3, 50e3), (5e3, 40e3), (10e-3, 150e-3), (1, 3), (20e-3, 400e-3), "nrz", 0.5),  # LoRa chip in FSK
    Device(0.8, (10e3, 38.4e3), (15e3, 50e3), (5e-3, 40e-3), (1, 4), (5e-3, 100e-3)),  # thermostat, alarm
)
THREE_OF_SIX = np.array(
    [0x16, 0x0D, 0x0E, 0x0B, 0x1C, 0x19, 0x1A, 0x13, 0x2C, 0x25, 0x26, 0x23, 0x34, 0x31, 0x32, 0x29]
)


def _payload_chips(rng: np.random.Generator, coding: str, count: int) -> NDArray:
    """At least `count` random chips, 0 or 1, in a line code (EN 13757-4 table 11 for "3of6")."""
    if coding == "manchester":
        data = bits(rng, count // 2 + 1)
        return np.stack([data, 1 - data], axis=1).ravel()
    if coding == "3of6":
        words = THREE_OF_SIX[rng.integers(0, 16, count // 6 + 1)]
        return ((words[:, None] >> np.arange(5, -1, -1)) & 1).ravel()
    return bits(rng, count)


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def packet(
    rng: np.random.Generator,
    device: Device,
    chip_rate_hz: float,
    deviation_hz: float,
    rate_hz: float,
    offset_hz: float = 0.0,
) -> IQ:
    """One packet: preamble 0101, then coded payload, with the transmitter's ramp, drift and settling."""
    preamble = int(rng.integers(*device.preamble_chips))
    total = max(int(_log_uniform(rng, device.burst_s) * chip_rate_hz), preamble + 32)
    chips = np.concatenate([np.arange(preamble) % 2, _payload_chips(rng, device.coding, total - preamble)])
    chips = (2 * chips - 1).astype(np.float32)
    n_samples = int(len(chips) * rate_hz / chip_rate_hz)
    shape = hold(chips, chip_rate_hz, rate_hz, n_samples)
    bt = device.bt or rng.choice([0.0, 0.5, 1.0, 2.0], p=[0.5, 0.15, 0.15, 0.2])
    if bt:
        shape = smooth(shape, gaussian_taps(bt, rate_hz / chip_rate_hz))
    t = np.arange(n_samples, dtype=np.float32) / np.float32(rate_hz)
    settle_s = _log_uniform(rng, (0.1e-3, 2e-3))
    drift_hz = rng.choice([0.0, 3e3], p=[0.6, 0.4]) * rng.uniform(-1, 1) * np.exp(-t / settle_s) + offset_hz
    drift_hz = drift_hz + rng.uniform(-1, 1) * rng.choice([0.0, 20e3]) * t
    iq = frequency_modulate(deviation_hz * shape + drift_hz, rate_hz)
    lead = min(
        int(rng.choice([0.0, 0.0, 0.3e-3, 2e-3]) * rate_hz), 20000
    )  # carrier before the data, from the synthesiser
    if lead:
        tone_hz = offset_hz + deviation_hz * rng.choice([-1.0, 0.0, 1.0])
        iq = np.concatenate([frequency_modulate(np.full(lead, tone_hz), rate_hz), iq])
    ramp = min(max(int(_log_uniform(rng, (5e-6, 100e-6)) * rate_hz), 1), len(iq) // 4)
    edge = np.linspace(0, 1, ramp + 2, dtype=np.float32)[1:-1]
    iq[:ramp] *= edge
    iq[-ramp:] *= edge[::-1]
    return iq


def _device_bursts(rng: np.random.Generator, device: Device, target: IQ, rate_hz: float, room_hz: float) -> float:
    """Add a group of bursts to `target`, within +-`room_hz` of the centre.

    Returns
    -------
    The occupied bandwidth in Hz.
    """
    offset_hz = rng.uniform(-1, 1) * room_hz
    chip_rate_hz, deviation_hz = _log_uniform(rng, device.chip_rate_hz), _log_uniform(rng, device.deviation_hz)
    duration_s = len(target) / rate_hz
    copies = int(rng.integers(device.repeats[0], device.repeats[1] + 1))
    same = packet(rng, device, chip_rate_hz, deviation_hz, rate_hz, offset_hz)
    fresh = copies > 1 and rng.uniform() < 0.3
    length_s, gap_s = len(same) / rate_hz, _log_uniform(rng, device.gap_s)
    if rng.uniform() < 0.15:  # a device that transmits continually
        copies = max(copies, min(int(2 * duration_s / (length_s + gap_s)) + 1, 60))
    starts = np.arange(copies) * (length_s + gap_s)
    if rng.uniform() < 0.3:
        starts[1:] += np.cumsum(rng.uniform(0, gap_s, copies - 1))
    origin_s = window_start(rng, starts, np.full(copies, length_s), duration_s)
    for start in starts - origin_s:
        if -length_s < start < duration_s:
            burst = packet(rng, device, chip_rate_hz, deviation_hz, rate_hz, offset_hz) if fresh else same
            place(target, burst, int(start * rate_hz))
    return 2 * deviation_hz + chip_rate_hz


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """A group of bursts of one device, or of several devices of one kind at different offsets."""
    weights = np.array([device.weight for device in DEVICES])
    fits = np.array([2 * d.deviation_hz[1] + d.chip_rate_hz[1] < view_hz for d in DEVICES])
    seen = np.array([2 * d.deviation_hz[1] + d.chip_rate_hz[1] > view_hz / 60 for d in DEVICES])
    shares = weights * fits * seen if (fits & seen).any() else weights
    device = DEVICES[int(rng.choice(len(DEVICES), p=shares / shares.sum()))]
    near = view_hz < 1.1e6 and rng.uniform() < 0.3
    rate_hz = view_hz if near else max(0.25e6, min(1.4 * view_hz, 0.8e6))
    n = sample_count(duration_s, rate_hz)
    target = np.zeros(n, np.complex64)
    occupied_hz = _device_bursts(rng, device, target, rate_hz, 0.0)
    if rng.uniform() < 0.2:
        for _ in range(int(rng.integers(1, 4))):
            other = np.zeros(n, np.complex64)
            room_hz = max(min(rate_hz, view_hz) / 2 - occupied_hz, 2e3)
            _device_bursts(rng, device, other, rate_hz, min(room_hz, rng.choice([3e3, 30e3])))
            target += other * np.float32(10 ** (-rng.uniform(0, 20) / 20))
    if near:
        target = clip_near(rng, target)
    least_snr_db = float(rng.uniform(20, 45)) if near else -np.inf
    return Emission(unit_power(target), rate_hz, min(occupied_hz, view_hz), near, least_snr_db)


SIGNAL = SignalClass(
    label="fsk-ism",
    standard="EN 13757-4:2019 clauses 6-9; ITU-T G.9959 clause 7.1; ETSI EN 300 220-2",
    views=(View(0.25e6, 0.26e6, 3.0), View(0.26e6, 0.95e6, 1.5), View(0.95e6, 2.4e6, 3.0)),
    make=make,
    shortest_s=0.05,
)
