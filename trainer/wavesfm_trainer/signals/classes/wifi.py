# SPDX-License-Identifier: GPL-3.0-or-later
"""IEEE 802.11 a/b/g/n/ac traffic of one channel (IEEE Std 802.11-2020 clauses 10, 15 to 17, 19 and 21)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..ofdm import fits, look
from ..shaping import place, sample_count
from ..standards.wifi_frames import (
    SPACING_HZ,
    dsss_frame,
    legacy_centres,
    legacy_duration_s,
    legacy_frame,
    wide_duration_s,
    wide_frame,
)

SIFS_S = 16e-6  # clause 17.4.4; at 2.4 GHz 10 us after the 6 us of signal extension, clause 19.3.5
DSSS_SIFS_S = 10e-6  # clause 15.3.3
SLOT_S = 9e-6
BEACON_S = 0.1024
LEGACY_BITS = {6: (24, 2), 12: (48, 4), 24: (96, 16), 36: (144, 16), 54: (216, 64)}  # Mb/s: (bits a symbol, order)


@dataclass(frozen=True)
class _Burst:
    """One frame."""

    start_s: float
    """Start in seconds."""
    duration_s: float
    """Length in seconds."""
    level: float
    """Amplitude."""
    make: Callable[[], IQ]
    """Function that returns the samples."""


class _Net:
    """An access point and a station; channel, band, levels and modulation are constant in a recording."""

    def __init__(self, rng: np.random.Generator, view_hz: float) -> None:
        self.rng = rng
        self.ghz = 2 if rng.random() < 0.55 else 5
        self.width_mhz = int(rng.choice([20, 40, 80], p=[0.85, 0.15, 0] if self.ghz == 2 else [0.5, 0.25, 0.25]))
        parts = legacy_centres(self.width_mhz)
        self.primary = int(rng.choice(parts))
        half = 32 * self.width_mhz // 20 - 3
        centre = 0 if fits(-half, half, SPACING_HZ, view_hz) else self.primary
        if view_hz > 18e6 and centre == self.primary and self.width_mhz == 40 and rng.random() < 0.3:
            centre = 0  # tuned to the middle of the 40 MHz channel
        self.parts = parts if rng.random() < 0.6 else np.array([self.primary])
        native = 64 if self.width_mhz == 20 and view_hz >= 18e6 else 0
        self.band = look(view_hz, SPACING_HZ, -half, half + 1, centre, native)
        self.dsss = self.ghz == 2 and rng.random() < 0.5 and (self.width_mhz == 20)
        self.fit = fits(-half, half, SPACING_HZ, view_hz)
        self.levels = 10 ** (np.array([0.0, rng.uniform(-22, 4), rng.uniform(-25, 0)]) / 20)
        self.vht = self.ghz == 5 and rng.random() < 0.6
        self.short_guard = bool(rng.random() < 0.5)
        self.streams = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.4, 0.1, 0.1]))
        self.wide = rng.random() < 0.7
        self.order = int(rng.choice([4, 16, 64, 256] if self.vht else [4, 16, 64]))
        self.answers: dict[tuple[int, int], IQ] = {}

    def legacy(self, start_s: float, who: int, n_octets: int, mbps: int) -> _Burst:
        """A clause 17 frame of `n_octets` (service and tail bits included, clause 17.3.5)."""
        per_symbol, order = LEGACY_BITS[mbps]
        n_symbols = -(-(22 + 8 * n_octets) // per_symbol)
        parts = self.parts if n_octets < 60 else np.array([self.primary])

        def build() -> IQ:
            key = (n_octets, mbps)
            if n_octets > 60:
                return legacy_frame(self.rng, self.band, parts, n_symbols, order)
            if key not in self.answers:  # control frames repeat the same bits
                self.answers[key] = legacy_frame(self.rng, self.band, parts, n_symbols, order)
            return self.answers[key]

        return _Burst(start_s, legacy_duration_s(n_symbols), self.levels[who], build)

    def dsss_data(self, start_s: float, who: int, n_octets: int, mbps: float) -> _Burst:
        """A clause 15 or 16 frame."""
        short = mbps > 1 and n_octets % 2 == 0
        duration_s = (96e-6 if short else 192e-6) + n_octets * 8 / mbps * 1e-6
        return _Burst(start_s, duration_s, self.levels[who],
                      lambda: dsss_frame(self.rng, self.band, n_octets, mbps, short))  # fmt: skip

    def data(self, start_s: float, who: int, target_s: float) -> _Burst:
        """A data frame of about `target_s` seconds."""
        if not self.wide:
            mbps = int(self.rng.choice(list(LEGACY_BITS)))
            n_octets = int(np.clip((target_s - 20e-6) * mbps * 1e6 / 8, 30, 2304))
            return self.legacy(start_s, who, n_octets, mbps)
        symbol_s = 3.6e-6 if self.short_guard else 4e-6
        n_symbols = max(int((target_s - 50e-6) / symbol_s), 1)
        duration_s = wide_duration_s(n_symbols, self.streams, self.vht, self.short_guard)
        width = self.width_mhz if who or self.streams > 1 else 20 * len(self.parts)
        width = width if width == self.width_mhz else 20
        return _Burst(start_s, duration_s, self.levels[who], lambda: self._wide_iq(n_symbols, width))

    def _wide_iq(self, n_symbols: int, width_mhz: int) -> IQ:
        """Samples of an HT or VHT frame, in the primary 20 MHz or the whole channel."""
        band = self.band
        if width_mhz != self.width_mhz:
            band = look(self.band.rate_hz, SPACING_HZ, -32, 32, band.centre - self.primary, band.fft_size)
        return wide_frame(self.rng, band, width_mhz, n_symbols, self.order, self.streams, self.vht, self.short_guard)

    def beacon(self, start_s: float) -> _Burst:
        """A beacon at the lowest rate."""
        n_octets = int(self.rng.integers(100, 400))
        return self.dsss_data(start_s, 0, n_octets, 1) if self.dsss else self.legacy(start_s, 0, n_octets, 6)

    def exchange(self, start_s: float, longest_s: float) -> list[_Burst]:
        """One transmit opportunity: optional RTS and CTS, data, and its acknowledgement."""
        rng, bursts = self.rng, []
        who, other = (0, 1) if rng.random() < 0.6 else (1, 0)
        kind = rng.random()
        if kind < 0.06:  # a probe request or another management frame without an answer
            octets = int(rng.integers(60, 200))
            return [self.dsss_data(start_s, 2, octets, 1) if self.dsss else self.legacy(start_s, 2, octets, 6)]
        if kind < 0.3 and self.dsss:
            bursts.append(self.dsss_data(start_s, who, int(rng.integers(40, 1500)), float(rng.choice([2, 5.5, 11]))))
            bursts.append(self.dsss_data(_after(bursts, DSSS_SIFS_S), other, 14, 2))
            return bursts
        if rng.random() < 0.35:
            bursts.append(self.legacy(start_s, who, 20, 24))
            bursts.append(self.legacy(_after(bursts, SIFS_S), other, 14, 24))
            start_s = _after(bursts, SIFS_S)
        target_s = longest_s * rng.beta(0.7, 1.6) + 60e-6
        bursts.append(self.data(start_s, who, min(target_s, 5.484e-3)))  # aPPDUMaxTime, table 19-25
        if rng.random() < 0.95:
            aggregated = self.wide and target_s > 3e-4
            bursts.append(self.legacy(_after(bursts, SIFS_S), other, 32 if aggregated else 14, 24))
        return bursts


def _after(bursts: list[_Burst], gap_s: float) -> float:
    """Start of the next burst, `gap_s` after the last one."""
    return bursts[-1].start_s + bursts[-1].duration_s + gap_s


def _schedule(rng: np.random.Generator, net: _Net, duration_s: float) -> list[_Burst]:
    """Frames from 0 to slightly more than duration_s: a single one, or sparse, busy or saturated traffic."""
    if rng.random() < 0.12:
        target_s = float(np.clip(duration_s * rng.uniform(0.4, 1.1), 3e-4, 5.4e-3))
        net.wide |= target_s > 3e-3
        return [net.data(duration_s / 2, 0, target_s)]
    mean_gap_s = float(rng.choice([0.0, 2e-4, 1e-3, 5e-3, 15e-3], p=[0.2, 0.2, 0.25, 0.2, 0.15]))
    longest_s = float(rng.choice([3e-4, 1.5e-3, 5.4e-3], p=[0.45, 0.4, 0.15]))
    horizon_s = duration_s + 8e-3
    next_beacon_s = rng.uniform(0, BEACON_S)
    if mean_gap_s > 1e-3 and rng.random() < 0.5:
        next_beacon_s = rng.uniform(0, duration_s)
    bursts: list[_Burst] = []
    now_s = 0.0
    while now_s < horizon_s or not bursts:
        backoff_s = SIFS_S + SLOT_S * (2 + rng.integers(0, 16))
        now_s += backoff_s + (rng.exponential(mean_gap_s) if mean_gap_s else 0)
        if now_s > next_beacon_s:
            bursts.append(net.beacon(now_s))
            next_beacon_s += BEACON_S
        else:
            bursts += net.exchange(now_s, longest_s)
        now_s = _after(bursts, 0)
    return bursts


def _start(rng: np.random.Generator, bursts: list[_Burst], duration_s: float) -> float:
    """A start in seconds such that at least a fifth of the window or of a burst overlaps."""
    begin = np.array([burst.start_s for burst in bursts])
    length = np.array([burst.duration_s for burst in bursts])
    start_s = rng.uniform(0, max(begin[-1] + length[-1] - duration_s, 0))
    met = np.clip(np.minimum(begin + length, start_s + duration_s) - np.maximum(begin, start_s), 0, None)
    if (met >= 0.2 * np.minimum(length, duration_s)).any():
        return float(start_s)
    chosen = int(rng.integers(len(bursts)))
    least = 0.3 * min(length[chosen], duration_s)
    return float(rng.uniform(begin[chosen] + least - duration_s, begin[chosen] + length[chosen] - least))


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Bursts of one network between idle gaps."""
    net = _Net(rng, view_hz)
    rate_hz = net.band.rate_hz
    bursts = _schedule(rng, net, duration_s)
    start_s = _start(rng, bursts, duration_s)
    out = np.zeros(sample_count(duration_s, rate_hz), np.complex64)
    for burst in bursts:
        if burst.start_s + burst.duration_s > start_s and burst.start_s < start_s + duration_s:
            at = round((burst.start_s - start_s) * rate_hz)
            place(out, burst.make() * np.float32(burst.level), at)
    occupied_hz = min((net.band.high - net.band.low) * SPACING_HZ, view_hz)
    return Emission(unit_power(out), rate_hz, occupied_hz, not net.fit)


SIGNAL = SignalClass(
    label="wifi",
    standard="IEEE Std 802.11-2020 clauses 10.3, 15, 16, 17, 19 and 21",
    views=(View(19.5e6, 21e6, 5), View(10e6, 19.5e6, 1.5), View(21e6, 25e6, 1.5)),
    make=make,
    shortest_s=0.0002,
)
