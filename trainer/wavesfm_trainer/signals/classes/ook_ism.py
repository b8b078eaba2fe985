# SPDX-License-Identifier: GPL-3.0-or-later
"""On-off-keyed devices at 315, 433.92, 868 and 915 MHz: remotes, meters, weather stations, tyre sensors, car keys.

Line codes: Princeton PT2262 and EV1527 data sheets (words of 24 or 25 symbols with a sync gap of 31 units), Microchip
HCS200 data sheet (KeeLoq PWM), Itron ERT SCM (Manchester at 32.768 kchip/s, 96 bits), Oregon Scientific RF protocol v2
(Manchester at 1024 b/s); limits: ETSI EN 300 220-2 and FCC 47 CFR 15.231, 15.247.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import bits, clip_near, place, sample_count, trapezoids, window_start

Pulses = tuple[NDArray, NDArray]  # starts and lengths in s
ERT_CHIP_RATE_HZ = 32768.0


def _from_pairs(high_s: NDArray, low_s: NDArray) -> Pulses:
    """Pulses from their lengths and the gaps that follow them."""
    return np.concatenate([[0.0], np.cumsum(high_s + low_s)[:-1]]), high_s


def manchester(data: NDArray, chip_s: float) -> Pulses:
    """Pulses of Manchester-coded bits, 1 as high-low; adjacent high chips are one pulse."""
    chips = np.stack([data, 1 - data], axis=1).ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chips, [0]])))
    return edges[0::2] * chip_s, (edges[1::2] - edges[0::2]) * chip_s


def _repeat(rng: np.random.Generator, word: Pulses, copies: int, gap_s: float) -> Pulses:
    """A word sent several times, with `gap_s` between its last pulse and the first pulse of the next copy."""
    starts, lengths = word
    period_s = starts[-1] + lengths[-1] + gap_s
    return (starts + period_s * np.arange(copies)[:, None]).ravel(), np.tile(lengths, copies)


def _remote(rng: np.random.Generator) -> Pulses:
    """PT2262 or EV1527: 24 bits of 1:3 and 3:1 units, a stop pulse, 31 units of silence, repeated."""
    unit_s = rng.uniform(150e-6, 500e-6)
    data = np.append(bits(rng, 24), 0)
    high = np.where(data == 1, 3, 1) * unit_s
    low = np.where(data == 1, 1, 3) * unit_s
    return _repeat(rng, _from_pairs(high, low), int(rng.choice([4, 6, 10, 20])), 31 * unit_s)


def _meter(rng: np.random.Generator) -> Pulses:
    """ERT SCM: 96 Manchester bits, 5.9 ms."""
    return manchester(bits(rng, 96), 1 / ERT_CHIP_RATE_HZ)


def _weather_ppm(rng: np.random.Generator) -> Pulses:
    """Nexus, Rubicson and similar: pulses of 500 us, gaps of 1 or 2 ms (times a factor), repeated with a longer gap."""
    unit_s = rng.uniform(0.6e-3, 1.1e-3)
    data = bits(rng, int(rng.choice([32, 36, 36, 40, 42])))
    high = np.full(len(data) + 1, rng.uniform(0.3e-3, 0.6e-3))
    low = np.append(np.where(data == 1, 2, 1), 1) * unit_s * rng.choice([1.0, 2.0])
    return _repeat(rng, _from_pairs(high, low), int(rng.integers(4, 13)), rng.uniform(3e-3, 10e-3))


def _weather_pwm(rng: np.random.Generator) -> Pulses:
    """Acurite and similar: sync pulses, then bits as pulses of one or two units in a fixed cell."""
    unit_s = rng.uniform(180e-6, 500e-6)
    data = bits(rng, int(rng.choice([40, 56, 64, 80])))
    high = np.concatenate([np.full(4, 3.0), np.where(data == 1, 2, 1)]) * unit_s
    low = np.concatenate([np.full(4, 3.0), np.where(data == 1, 1, 2)]) * unit_s
    return _repeat(rng, _from_pairs(high, low), int(rng.integers(2, 7)), rng.uniform(2e-3, 30e-3))


def _manchester_sensor(rng: np.random.Generator) -> Pulses:
    """Oregon v2 at 1024 b/s and other slow Manchester sensors, with a long preamble of ones."""
    chip_s = 1 / (2 * rng.choice([1024.0, 1024.0, rng.uniform(500, 4000)]))
    data = np.concatenate([np.ones(int(rng.choice([16, 24, 32])), np.int8), bits(rng, int(rng.integers(48, 120)))])
    return _repeat(rng, manchester(data, chip_s), int(rng.integers(1, 4)), rng.uniform(5e-3, 50e-3))


def _tyre(rng: np.random.Generator) -> Pulses:
    """Tyre sensor: Manchester frames of about 10 ms at 8 to 20 kchip/s, repeated a few times."""
    chip_s = 1 / rng.uniform(8e3, 20e3)
    data = np.concatenate([np.ones(16, np.int8), bits(rng, int(rng.integers(64, 90)))])
    return _repeat(rng, manchester(data, chip_s), int(rng.integers(3, 9)), rng.uniform(10e-3, 50e-3))


def _car_key(rng: np.random.Generator) -> Pulses:
    """KeeLoq: preamble of 12 pulses at half duty, header gap of 10 units, 66 PWM bits, repeated."""
    unit_s = rng.uniform(100e-6, 420e-6)
    data = bits(rng, 66)
    high = np.concatenate([np.ones(12), np.where(data == 1, 1, 2)]) * unit_s
    low = np.concatenate([np.ones(11), [10], np.where(data == 1, 2, 1)]) * unit_s
    return _repeat(rng, _from_pairs(high, low), int(rng.integers(2, 8)), rng.uniform(12e-3, 40e-3))


def _fast(rng: np.random.Generator) -> Pulses:
    """Sockets, alarm sensors and gateways: NRZ or Manchester of 2 to 20 kb/s in one to four short frames."""
    data = np.concatenate([np.tile([1, 0], 16), bits(rng, int(rng.integers(40, 300)))]).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], data, [0]])))
    bit_s = 1 / np.exp(rng.uniform(np.log(2e3), np.log(20e3)))
    word = (edges[0::2] * bit_s, (edges[1::2] - edges[0::2]) * bit_s)
    return _repeat(rng, word, int(rng.integers(1, 5)), rng.uniform(5e-3, 50e-3))


def _sparse(rng: np.random.Generator, pulses: Pulses) -> Pulses:
    """Words of a few milliseconds with long silence between them, as most sensors and many remotes send."""
    count = int(rng.integers(10, 50))
    word = pulses[0][:count], pulses[1][:count]
    keep = word[0] < np.exp(rng.uniform(np.log(4e-3), np.log(30e-3)))
    word = word[0][keep], word[1][keep]
    return _repeat(rng, word, int(rng.integers(2, 13)), np.exp(rng.uniform(np.log(20e-3), np.log(250e-3))))


DEVICES = (
    (_remote, 0.28), (_weather_ppm, 0.14), (_weather_pwm, 0.14), (_manchester_sensor, 0.12), (_tyre, 0.1),
    (_car_key, 0.12), (_fast, 0.1),
)  # fmt: skip


def keyed(rng: np.random.Generator, pulses: Pulses, origin_s: float, n_samples: int, rate_hz: float) -> tuple[IQ, int]:
    """The pulses in the window as a cheap transmitter sends them.

    Returns
    -------
    The samples and the index of the first one in the window.
    """
    starts, lengths = pulses[0] - origin_s, pulses[1]
    seen = (starts + lengths > -1e-3) & (starts < n_samples / rate_hz + 1e-3)
    starts, lengths = starts[seen], lengths[seen]
    if not len(starts):
        return np.zeros(0, np.complex64), 0
    first = max(int(starts[0] * rate_hz) - 8, 0)
    last = min(int((starts[-1] + lengths[-1]) * rate_hz) + 8, n_samples)
    if last <= first:
        return np.zeros(0, np.complex64), 0
    starts = starts - first / rate_hz
    rise_s = max(np.exp(rng.uniform(np.log(1e-6), np.log(40e-6))), 1 / rate_hz)
    envelope = trapezoids(starts, lengths, min(rise_s, 0.8 * lengths.min()), rate_hz, last - first)
    leak = rng.choice([0.0, 10 ** (-rng.uniform(10, 30) / 20)], p=[0.9, 0.1])
    t = np.arange(last - first) / rate_hz
    pulse = np.maximum(np.searchsorted(starts, t, side="right") - 1, 0)
    turns = (
        rng.uniform(-1, 1) * rng.choice([0.2e3, 2e3, 10e3], p=[0.6, 0.3, 0.1]) * t**2
    )  # drift while the supply sags, Hz/s
    if rng.uniform() < 0.5:  # switching on shifts the oscillator
        settle_s = np.exp(rng.uniform(np.log(10e-6), np.log(400e-6)))
        pull_hz = rng.normal(0, rng.choice([1e3, 5e3, 15e3]))
        since = np.maximum(t - starts[pulse], 0)
        turns = turns - pull_hz * settle_s * np.exp(-since / settle_s)
    if rng.uniform() < 0.5:  # the oscillator restarts for every pulse, with a new phase
        turns = turns + rng.uniform(size=len(starts))[pulse]
    angle = (2 * np.pi * (turns - np.floor(turns))).astype(np.float32)
    amplitude = envelope * np.float32(1 - leak) + np.float32(leak)
    if rng.uniform() < 0.15:
        sideband = 2 * np.pi * np.exp(rng.uniform(np.log(1e3), np.log(80e3)))
        amplitude *= (1 + rng.uniform(0.03, 0.3) * np.cos(sideband * t)).astype(np.float32)
    iq = np.empty(len(t), np.complex64)
    iq.real, iq.imag = amplitude * np.cos(angle), amplitude * np.sin(angle)
    return iq, first


def _meters(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Several ERT meters that hop over a band wider than the view."""
    rate_hz = view_hz
    n = sample_count(duration_s, rate_hz)
    target = np.zeros(n, np.complex64)
    count = 1 + rng.poisson(rng.uniform(1, 40) * duration_s)
    for _ in range(count):
        pulses = _meter(rng)
        origin_s = window_start(rng, *pulses, duration_s)
        iq, first = keyed(rng, pulses, origin_s, n, rate_hz)
        edge_hz = max(view_hz / 2 - 40e3, 0)
        turns = np.arange(len(iq)) * (rng.uniform(-edge_hz, edge_hz) / rate_hz)
        iq = iq * np.exp(2j * np.pi * turns) * 10 ** (-rng.uniform(0, 25) / 20)
        place(target, iq.astype(np.complex64), first)
    return Emission(unit_power(target), rate_hz, 100e3, placed=True)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One group of bursts of a device, or several meters in a wide view."""
    if view_hz > 0.9e6 and rng.uniform() < (0.6 if view_hz > 1.5e6 else 0.3):
        return _meters(rng, duration_s, view_hz)
    near = rng.uniform() < 0.3
    rate_hz = view_hz if near else min(1.4 * view_hz, 1.1e6)
    n = sample_count(duration_s, rate_hz)
    weights = np.array([weight for _, weight in DEVICES])
    pulses = DEVICES[int(rng.choice(len(DEVICES), p=weights / weights.sum()))][0](rng)
    if rng.uniform() < 0.3:
        pulses = _sparse(rng, pulses)
    elif rng.uniform() < 0.2:  # sent again after a while, as when a button is pressed twice
        pause_s = rng.uniform(0.1, 0.8)
        pulses = _repeat(rng, pulses, 3, pause_s)
    origin_s = window_start(rng, *pulses, duration_s)
    iq, first = keyed(rng, pulses, origin_s, n, rate_hz)
    target = np.zeros(n, np.complex64)
    place(target, iq, first)
    if near:
        target = clip_near(rng, target)
    occupied_hz = float(np.clip(4 / np.median(pulses[1]), 10e3, 80e3))
    least_snr_db = float(rng.uniform(20, 45)) if near else -np.inf
    return Emission(unit_power(target), rate_hz, min(occupied_hz, view_hz), near, least_snr_db)


SIGNAL = SignalClass(
    label="ook-ism",
    standard="ETSI EN 300 220-2; FCC 47 CFR 15.231; PT2262, EV1527, HCS200 data sheets; Itron ERT SCM",
    views=(View(0.25e6, 0.26e6, 4.0), View(0.26e6, 1.1e6, 2.0), View(2.0e6, 2.4e6, 1.5)),
    make=make,
    shortest_s=0.1,
)
