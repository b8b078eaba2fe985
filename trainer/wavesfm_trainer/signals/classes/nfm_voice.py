# SPDX-License-Identifier: GPL-3.0-or-later
"""Narrow-band FM voice: land mobile and amateur channels with push-to-talk, sub-audible tones and repeater tails."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..audio import band, equalise, limited, speech
from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, phasor, raster, side_by_side, spans
from ..shaping import Reals, bits, hold, sample_count, smooth

RATE_HZ, AUDIO_HZ = 48e3, 16e3
CTCSS_HZ = (67.0, 77.0, 88.5, 94.8, 100.0, 103.5, 110.9, 123.0, 131.8, 141.3, 156.7, 173.8, 192.8, 210.7, 233.6, 250.3)
DCS_BIT_HZ = 134.4
SELCALL_HZ = (1060, 1160, 1270, 1400, 1530, 1670, 1830, 2000, 2200, 2400)  # ZVEI 1, digits 1 to 0


def _limit_and_filter(sound: Reals, n_samples: int, level: float) -> Reals:
    """Pre-emphasis 6 dB/octave over 300-3000 Hz, limiter, splatter filter (TIA-603-E)."""
    edges = band(300, 3000)
    emphasised = equalise(sound, AUDIO_HZ, lambda f: edges(f) * (f / 1000))
    return equalise(limited(emphasised, level), AUDIO_HZ, band(0, 3000), n_samples)


def _voice(rng: np.random.Generator, n_samples: int) -> Reals:
    """Microphone signal: a voice over background noise, sometimes silence or selective-call tones."""
    n_audio = n_samples // 3
    kind = rng.choice(["voice", "quiet", "tones"], p=[0.86, 0.09, 0.05])
    noise = rng.standard_normal(n_audio, np.float32) * np.float32(amplitude(rng, -55, -22))
    if kind == "voice":
        return _limit_and_filter(speech(rng, n_audio, AUDIO_HZ) + noise, n_samples, rng.uniform(0.25, 0.8))
    if kind == "quiet":
        return equalise(noise, AUDIO_HZ, band(300, 3000), n_samples)
    tones = hold(rng.choice(SELCALL_HZ, int(n_audio / AUDIO_HZ / 0.07) + 1), 1 / 0.07, AUDIO_HZ, n_audio)
    return equalise(0.6 * phasor(tones, AUDIO_HZ).imag + noise, AUDIO_HZ, band(300, 3000), n_samples)


def _sub_audible(rng: np.random.Generator, n_samples: int) -> Reals:
    """Continuous tone or digital code squelch at about 12 % of full deviation (TIA-603-E), or none."""
    kind = rng.choice(["none", "ctcss", "dcs"], p=[0.4, 0.5, 0.1])
    depth = np.float32(rng.uniform(0.08, 0.16))
    if kind == "none":
        return np.zeros(n_samples, np.float32)
    if kind == "ctcss":
        time_s = np.arange(n_samples) / RATE_HZ
        return depth * np.sin(2 * np.pi * (rng.choice(CTCSS_HZ) * time_s + rng.random())).astype(np.float32)
    code = np.tile(2 * bits(rng, 23).astype(np.float32) - 1, int(n_samples / RATE_HZ * DCS_BIT_HZ / 23) + 2)
    return depth * smooth(hold(code, DCS_BIT_HZ, RATE_HZ, n_samples), np.full(161, 1 / 161, np.float32))


def _repeater_tail(rng: np.random.Generator, sound: Reals, stop: int) -> None:
    """End a transmission with a repeater's tail: squelch noise, silence, sometimes a courtesy beep."""
    tail = int(rng.uniform(0.3, 3.0) * RATE_HZ)
    start = stop - tail
    noise = int(rng.uniform(0.04, 0.25) * RATE_HZ)
    hiss = limited(equalise(rng.standard_normal(noise, np.float32), RATE_HZ, band(300, 3000)), 0.6)
    beep = start + noise + int(0.3 * RATE_HZ) if rng.random() < 0.4 else stop
    pieces = (
        (start, start + noise, lambda n: hiss[:n]),
        (start + noise, beep, lambda n: np.zeros(n, np.float32)),
        (beep, beep + 7200, lambda n: 0.5 * np.sin(np.arange(n) * (2 * np.pi * 1000 / RATE_HZ)).astype(np.float32)),
        (beep + 7200, stop, lambda n: np.zeros(n, np.float32)),
    )
    for low, high, fill in pieces:
        low, high = (min(max(edge, 0), len(sound), max(stop, 0)) for edge in (low, high))
        sound[low:high] = fill(max(high - low, 0))


def _channel(rng: np.random.Generator, duration_s: float, spacing_hz: float) -> IQ:
    """One channel with consecutive users, each with an individual level and frequency error."""
    n_samples = 3 * fft.next_fast_len(sample_count(duration_s, AUDIO_HZ) + 2)
    brief = rng.random() < 0.25
    on_s, off_s = ((0.25, 1.2), (0.1, 1.0)) if brief else ((1.0, 12.0), (0.2, 4.0))
    keyed = spans(rng, duration_s, lambda: rng.uniform(*on_s), lambda: rng.uniform(*off_s))
    sound, envelope = _voice(rng, n_samples), np.zeros(n_samples, np.float32)
    error_hz = np.zeros(n_samples, np.float32)
    repeater, ramp_s = rng.random() < 0.25, rng.uniform(0.3e-3, 6e-3)
    level, offset_hz = 1.0, 0.0
    for index, span in enumerate(keyed):
        if index and not repeater:
            level, offset_hz = amplitude(rng, -15, 3), rng.normal(0, 250)
        cut = add_gate(envelope, RATE_HZ, span, ramp_s, level)
        error_hz[cut] = offset_hz
        talk_s, stop = span[0] + min(rng.uniform(0.05, 0.5), 0.3 * (span[1] - span[0])), int(span[1] * RATE_HZ)
        sound[cut.start : min(max(int(talk_s * RATE_HZ), cut.start), cut.stop)] = 0  # the breath before speaking
        if repeater:
            _repeater_tail(rng, sound, stop)
    deviation_hz = spacing_hz / 5 * rng.uniform(0.8, 1.0)
    frequency_hz = deviation_hz * (0.86 * sound + _sub_audible(rng, n_samples)) + error_hz
    return phasor(frequency_hz, RATE_HZ, rng.random()) * envelope


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One channel at any offset, or two or three on the raster."""
    spacing_hz = float(rng.choice([12.5e3, 25e3]))
    count = int(rng.choice([1, 2, 3], p=[0.74, 0.18, 0.08]))
    channels = [_channel(rng, duration_s, spacing_hz) for _ in range(count)]
    channel_hz = 8.5e3 if spacing_hz < 20e3 else 16e3
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, channel_hz)
    offsets_hz = raster(rng, count, spacing_hz, min(0.8 * view_hz, 400e3))
    channels = [np.complex64(amplitude(rng, -25)) * iq if index else iq for index, iq in enumerate(channels)]
    return side_by_side(channels, offsets_hz, RATE_HZ, channel_hz, placed=True)


SIGNAL = SignalClass(
    label="nfm-voice",
    standard="ETSI EN 300 086 clause 7 (12.5/25 kHz channels, frequency deviation); TIA-603-E (pre-emphasis, CTCSS)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 1.05e6, 2)),
    make=make,
    shortest_s=0.5,
)
