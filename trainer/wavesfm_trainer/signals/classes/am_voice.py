# SPDX-License-Identifier: GPL-3.0-or-later
"""Amplitude-modulated voice: air band transmissions in VHF, and AM broadcast bands."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..audio import band, equalise, limited, music, speech
from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, phasor, raster, side_by_side, spans
from ..shaping import Reals, sample_count

RATE_HZ = 32e3
# Carriers of one ground service on several sites, in Hz from the channel (ICAO Annex 10 Vol III Part II clause 2.2).
OFFSET_CARRIERS_HZ = ((0.0,), (-5e3, 5e3), (-7.3e3, 0.0, 7.3e3), (-7.5e3, -2.5e3, 2.5e3, 7.5e3))


def _samples(duration_s: float) -> int:
    """Samples that cover the window, a length with a fast transform."""
    return 2 * fft.next_fast_len(sample_count(duration_s, RATE_HZ / 2) + 2)


def _talk(rng: np.random.Generator, n_samples: int, top_hz: float) -> Reals:
    """A voice over cockpit or room noise, compressed to peaks of +-1; sometimes only the noise."""
    noise = equalise(rng.standard_normal(n_samples, np.float32), RATE_HZ, lambda f: 1 / (1 + f / 400)) * np.float32(
        amplitude(rng, -45, -12)
    )
    voice = speech(rng, n_samples, RATE_HZ) if rng.random() < 0.92 else 0
    edges = band(300, top_hz)
    level = rng.uniform(0.35, 1.1)
    sound = limited(equalise(voice + noise, RATE_HZ, lambda f: edges(f) * np.sqrt(1 + (f / 800) ** 2)), level)
    return equalise(sound, RATE_HZ, edges)


def _air_channel(rng: np.random.Generator, duration_s: float) -> IQ:
    """Short transmissions of several stations, 30 to 90 % modulated, each with a level and carrier error."""
    n_samples = _samples(duration_s)
    wide = rng.random() < 0.6  # 25 kHz channel, else 8.33 kHz with audio to 2.5 kHz
    brief = rng.random() < 0.35
    on_s, off_s = ((0.3, 1.5), (0.15, 1.0)) if brief else ((1.0, 6.0), (0.3, 6.0))
    keyed = spans(rng, duration_s, lambda: rng.uniform(*on_s), lambda: rng.uniform(*off_s))
    voices = [_talk(rng, n_samples, rng.uniform(2.7e3, 3.4e3) if wide else 2.5e3) for _ in range(min(len(keyed), 2))]
    sites_hz = OFFSET_CARRIERS_HZ[rng.choice(4, p=[0.92, 0.04, 0.025, 0.015])] if wide else (0.0,)
    out = np.zeros(n_samples, np.complex64)
    for index, span in enumerate(keyed):
        envelope = np.zeros(n_samples, np.float32)
        cut = add_gate(envelope, RATE_HZ, span, rng.uniform(1e-3, 15e-3), amplitude(rng, -20) if index else 1.0)
        sound = voices[index % len(voices)][cut]
        lead = int(rng.uniform(0.05, 0.4) * RATE_HZ)
        if span[0] > 0:
            sound = np.concatenate([0 * sound[:lead], sound[lead:]])
        sideband = (1 + rng.uniform(0.3, 0.9) * sound) * envelope[cut]
        error_hz, drift_hz = rng.normal(0, 500 if index % 2 else 150), rng.normal(0, 20)
        carriers_hz = sites_hz if index % 2 == 0 else (0.0,)
        for site, site_hz in enumerate(carriers_hz):
            ramp_hz = np.linspace(0, drift_hz, max(cut.stop - cut.start, 1), dtype=np.float32)[: cut.stop - cut.start]
            carrier = phasor(ramp_hz + np.float32(error_hz + site_hz), RATE_HZ, rng.random())
            out[cut] += carrier * (sideband * np.float32(amplitude(rng, -15) if site else 1.0))
    return out


def _broadcast(rng: np.random.Generator, duration_s: float) -> IQ:
    """A broadcast station: continuous programme, deep modulation, audio to 4.5-9 kHz (ITU-R BS.639)."""
    n_samples = _samples(duration_s)
    edges = band(50, rng.choice([4.5e3, 5e3, 7.5e3, 9e3]))
    sound = music(rng, n_samples, RATE_HZ)[0] if rng.random() < 0.5 else speech(rng, n_samples, RATE_HZ)
    emphasis_hz = rng.uniform(1500, 4000)
    sound = limited(
        equalise(sound, RATE_HZ, lambda f: edges(f) * np.sqrt(1 + (f / emphasis_hz) ** 2)), rng.uniform(0.3, 0.7)
    )
    envelope = 1 + rng.uniform(0.5, 0.95) * equalise(sound, RATE_HZ, edges)
    return phasor(np.full(n_samples, rng.normal(0, 5), np.float32), RATE_HZ, rng.random()) * np.maximum(envelope, 0.01)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One air band channel, a few of them, or a part of a broadcast band."""
    if rng.random() < 0.2:
        step_hz = float(rng.choice([5e3, 9e3, 10e3]))
        count = int(np.exp(rng.uniform(0, np.log(10))))
        channels = [_broadcast(rng, duration_s) for _ in range(count)]
        offsets_hz, channel_hz = raster(rng, count, step_hz, min(0.85 * view_hz, 1e6), apart=2), 9e3
    else:
        step_hz = float(rng.choice([25e3, 25e3 / 3]))
        count = int(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))
        channels = [_air_channel(rng, duration_s) for _ in range(count)]
        offsets_hz, channel_hz = raster(rng, count, step_hz, min(0.8 * view_hz, 1e6), apart=2), 6e3
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, channel_hz)
    channels = [np.complex64(amplitude(rng, -35)) * iq if index else iq for index, iq in enumerate(channels)]
    return side_by_side(channels, offsets_hz, RATE_HZ, channel_hz, placed=True)


SIGNAL = SignalClass(
    label="am-voice",
    standard="ICAO Annex 10 Vol III Part II clauses 2.1 to 2.3 (DSB-AM, 25 and 8.33 kHz); ITU-R BS.639 (AM broadcast)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 1.05e6, 2)),
    make=make,
    shortest_s=0.5,
)
