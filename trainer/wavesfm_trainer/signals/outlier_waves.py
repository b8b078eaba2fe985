# SPDX-License-Identifier: GPL-3.0-or-later
"""Radars, sweeps, multicarrier, analogue pictures and sound, telegraphy: signals that are none of the classes.

Each maker takes (rng, duration_s, view_hz) and returns an Emission, as a SignalClass's does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .audio import band, equalise, limited, music, speech
from .base import IQ, Emission, unit_power
from .narrowband import phasor
from .outlier_carriers import gated, log_uniform
from .shaping import Reals, sample_count, smooth

MOST_SAMPLES = 2_000_000
LINE_HZ = {"625": 15_625.0, "525": 15_734.264}
KNOWN_WIDTHS_HZ = (1.08e6, 1.536e6, 2.7e6, 4.5e6, 5.71e6, 6.66e6, 7.61e6, 9e6, 13.5e6, 16.6e6, 17.8e6, 18e6)


def _count(duration_s: float, rate_hz: float) -> int:
    return max(64, min(sample_count(duration_s, rate_hz) + 8, MOST_SAMPLES))


def sweep(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Continuous saw-tooth, triangle or sine sweeps (FMCW radars, altimeters, ionosondes) of 20 us to the window."""
    rate_hz = view_hz * 1.1
    n = _count(duration_s, rate_hz)
    width_hz = view_hz * log_uniform(rng, 0.05, 0.95)
    period = log_uniform(rng, max(30.0, 2e-5 * rate_hz), max(n, 200))
    turns = np.arange(n) / period + rng.random()
    saw = turns - np.floor(turns)
    shape = {0: saw - 0.5, 1: np.abs(2 * saw - 1) - 0.5, 2: 0.5 * np.sin(2 * np.pi * turns)}[int(rng.integers(3))]
    iq = phasor(width_hz * shape * rng.choice([-1, 1]), rate_hz)
    return Emission(unit_power(gated(rng, iq, 0.2)), rate_hz, width_hz)


def _pulses(rng: np.random.Generator, n: int, rate_hz: float, pulse: IQ, starts: NDArray) -> Emission:
    iq = np.zeros(n + len(pulse), np.complex64)
    for start in starts.astype(int):
        if 0 <= start < n:
            iq[start : start + len(pulse)] += pulse * np.complex64(np.exp(2j * np.pi * rng.random()))
    if not iq.any():
        iq[: len(pulse)] = pulse
    beam = np.exp(-0.5 * ((np.arange(len(iq)) / len(iq) - rng.random()) / log_uniform(rng, 0.05, 3)) ** 2)
    return Emission(unit_power((iq * (beam + 1e-3)).astype(np.complex64)), rate_hz, rate_hz / 3)


def chirp_radar(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Pulses with a linear chirp or a Barker code, repeated at 100 Hz to 20 kHz while the beam passes."""
    rate_hz = view_hz * 1.1
    n = _count(duration_s, rate_hz)
    length = int(np.clip(log_uniform(rng, 1e-6, 3e-4) * rate_hz, 24, n / 3))
    t = np.arange(length) / length - 0.5
    if rng.random() < 0.7:
        pulse = np.exp(1j * np.pi * rng.uniform(0.1, 0.9) * length * t**2 * rng.choice([-1, 1]))
    else:
        code = 2.0 * rng.integers(0, 2, 13) - 1
        pulse = code[np.minimum((np.arange(length) * 13) // length, 12)] + 0j
    interval = log_uniform(rng, max(2 * length, rate_hz / 20e3), max(4 * length, min(n / 2, rate_hz / 100)))
    stagger = rng.choice([0.0, 0.05, 0.2])
    starts = (np.arange(-1, n / interval + 1) + rng.random()) * interval
    starts = starts + stagger * interval * (np.arange(len(starts)) % 3)
    return _pulses(rng, n, rate_hz, pulse.astype(np.complex64), starts)


def pulse_pairs(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Pairs of bell-shaped pulses 12 to 36 us apart at random times (distance measuring equipment)."""
    rate_hz = max(view_hz * 1.1, 1e6)
    n = _count(duration_s, rate_hz)
    width = 3.5e-6 * rate_hz / 2.355
    t = np.arange(int(48e-6 * rate_hz) + 8)
    gap = rng.choice([12e-6, 30e-6, 36e-6]) * rate_hz
    pulse = np.exp(-0.5 * ((t - 3 * width) / width) ** 2) + np.exp(-0.5 * ((t - 3 * width - gap) / width) ** 2)
    starts = np.sort(rng.uniform(0, n, max(1, rng.poisson(n / rate_hz * log_uniform(rng, 100, 3500)))))
    return _pulses(rng, n, rate_hz, pulse.astype(np.complex64), starts)


def plain_pulses(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Rectangular pulses of a carrier, steady or staggered, on one or on stepped frequencies. Held out of training."""
    rate_hz = view_hz * 1.1
    n = _count(duration_s, rate_hz)
    length = int(np.clip(log_uniform(rng, 0.5e-6, 2e-3) * rate_hz, 8, n / 4))
    interval = length * log_uniform(rng, 3, 60)
    starts = (np.arange(n / interval + 1) + rng.random()) * interval
    steps = rng.uniform(-0.4, 0.4, int(rng.choice([1, 1, 4, 7])))
    iq = np.zeros(n + length, np.complex64)
    for k, start in enumerate(starts.astype(int)):
        if start < n:
            iq[start : start + length] = np.exp(2j * np.pi * (steps[k % len(steps)] * np.arange(length) + rng.random()))
    return Emission(unit_power(iq), rate_hz, max(rate_hz / length * 2, np.ptp(steps) * rate_hz))


def multicarrier(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """OFDM of random numerology, away from the widths of the classes: links of drones, data over power lines."""
    width_hz = view_hz * log_uniform(rng, 0.05, 0.9)
    while any(abs(width_hz / known - 1) < 0.05 for known in KNOWN_WIDTHS_HZ):
        width_hz = view_hz * log_uniform(rng, 0.05, 0.9)
    used = int(log_uniform(rng, 8, 900))
    n_fft = fft.next_fast_len(int(used * 1.5) + 2)
    rate_hz = width_hz / used * n_fft
    prefix = int(n_fft * rng.choice([0.03, 0.0625, 0.125, 0.25]))
    count = max(2, min(int(duration_s * rate_hz / (n_fft + prefix)) + 2, MOST_SAMPLES // (n_fft + prefix)))
    order = int(rng.choice([2, 4, 16]))
    level = np.arange(order) - (order - 1) / 2
    cells = (rng.choice(level, (count, used)) + 1j * rng.choice(level, (count, used))).astype(np.complex64)
    if rng.random() < 0.5:  # boosted pilots or empty carriers
        step = int(rng.integers(3, 16))
        cells[:, ::step] *= np.float32(rng.choice([0.0, 1.5, 3.0]))
    if rng.random() < 0.3:  # frames that begin with a stronger symbol
        cells[:: int(rng.integers(4, 40))] *= np.float32(rng.uniform(1.5, 4))
    spectrum = np.zeros((count, n_fft), np.complex64)
    spectrum[:, np.arange(used) - used // 2] = cells
    body = fft.ifft(spectrum, axis=1)
    iq = np.concatenate([body[:, n_fft - prefix :], body], axis=1).ravel()
    return Emission(unit_power(gated(rng, iq.astype(np.complex64), 0.5)), rate_hz, width_hz)


def filter_bank(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """2 to 24 parallel narrow carriers, each a shaped QPSK stream (multichannel modems). Held out of training."""
    carriers = int(rng.integers(2, 25))
    width_hz = view_hz * log_uniform(rng, 0.1, 0.9)
    symbol_hz = width_hz / carriers / rng.uniform(1.1, 2.0)
    rate_hz = width_hz * 1.3
    n = _count(duration_s, rate_hz)
    taps = np.hanning(max(int(2 * rate_hz / symbol_hz), 3)).astype(np.float32)
    total = np.zeros(n, np.complex64)
    for k in range(carriers):
        index = np.floor(np.arange(n) * (symbol_hz / rate_hz)).astype(np.int64)
        symbols = np.exp(0.5j * np.pi * rng.integers(0, 4, index[-1] + 1)).astype(np.complex64)
        offset = (k - (carriers - 1) / 2) * width_hz / carriers / rate_hz
        turns = np.arange(n) * offset
        total += smooth(symbols[index], taps) * np.exp(2j * np.pi * (turns - np.floor(turns))).astype(np.complex64)
    return Emission(unit_power(gated(rng, total, 0.4)), rate_hz, width_hz)


def _picture(rng: np.random.Generator, n: int, rate_hz: float, standard: str) -> Reals:
    """Luminance with sync, float32 [n], 0 at white to 1 at the sync's tip, of a still picture."""
    line_hz = LINE_HZ[standard]
    lines = 625 if standard == "625" else 525
    at = np.arange(n) * (line_hz / rate_hz) + rng.uniform(0, lines)
    line = np.floor(at).astype(np.int64)
    x = at - line
    coarse = rng.uniform(0.1, 0.7, (int(rng.integers(2, 12)), int(rng.integers(2, 40))))
    row = ((line % (lines / 2)) / (lines / 2) * len(coarse)).astype(int) % len(coarse)
    column = np.clip((x - 0.18) / 0.8 * coarse.shape[1], 0, coarse.shape[1] - 1).astype(int)
    video = coarse[row, column].astype(np.float32)
    video[x < 0.18] = 0.75
    video[(x < 0.073)] = 1.0
    vertical = (line % (lines // 2)) < 8
    video[vertical & (x > 0.073)] = np.where(rng.random() < 0.5, 0.75, 1.0)
    return video


def television(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Analogue television: negative or positive picture AM with a colour carrier and a sound carrier (ITU-R BT.470)."""
    rate_hz = float(np.clip(view_hz * 1.2, 0.4e6, 16e6))
    n = fft.next_fast_len(_count(duration_s, rate_hz))
    standard = str(rng.choice(["625", "625", "525"]))
    video = _picture(rng, n, rate_hz, standard)
    video = 1.05 - video if rng.random() < 0.25 else video  # system L is positive
    t = np.arange(n) / rate_hz
    colour_hz = 4.433_618e6 if standard == "625" else 3.579_545e6
    if rate_hz > 2.2 * colour_hz:
        video = video + np.float32(rng.uniform(0.03, 0.15)) * np.cos(2 * np.pi * colour_hz * t).astype(np.float32)
    iq = video.astype(np.complex64)
    spectrum = fft.fft(iq)
    frequency = fft.fftfreq(n, 1 / rate_hz)
    spectrum *= np.clip((frequency + 1.25e6) / 0.5e6, 0, 1) * np.clip((5.5e6 - frequency) / 0.5e6, 0, 1)
    iq = fft.ifft(spectrum).astype(np.complex64)
    sound_hz = float(rng.choice([4.5e6, 5.5e6, 6.0e6, 6.5e6]))
    if sound_hz < rate_hz * 0.48:
        wobble = 4.0 * np.sin(2 * np.pi * rng.uniform(200, 3000) * t)
        iq = iq + np.complex64(rng.uniform(0.1, 0.35)) * np.exp(1j * (2 * np.pi * sound_hz * t + wobble)).astype(
            np.complex64
        )
    return Emission(unit_power(iq), rate_hz, min(5e6, view_hz), placed=view_hz < 2e6)


def video_link(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """A picture on a frequency-modulated carrier (cameras of model aircraft, old satellites)."""
    rate_hz = max(view_hz * 1.1, 2e6)
    n = _count(duration_s, rate_hz)
    video = _picture(rng, n, rate_hz, str(rng.choice(["625", "525"])))
    t = np.arange(n) / rate_hz
    video = video + np.float32(0.1) * np.cos(2 * np.pi * min(6.0e6, rate_hz / 4) * t).astype(np.float32)
    deviation_hz = rate_hz * rng.uniform(0.1, 0.6)
    return Emission(unit_power(phasor((video - video.mean()) * deviation_hz, rate_hz)), rate_hz, deviation_hz)


def other_fm(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Sound by FM with 9 to 45 kHz of deviation, between voice radio and broadcast (microphones, intercoms)."""
    rate_hz = 192e3
    n = 6 * _count(min(duration_s, 3.5), 32e3)
    sound = music(rng, n // 6, 32e3)[0] if rng.random() < 0.5 else speech(rng, n // 6, 32e3)
    sound = equalise(limited(sound, 0.4), 32e3, band(50, 14e3), n)
    deviation_hz = log_uniform(rng, 9e3, 45e3)
    frequency_hz = deviation_hz * sound
    if rng.random() < 0.4:  # the pilot of a microphone's squelch
        frequency_hz = frequency_hz + 2e3 * np.sin(2 * np.pi * 32.768e3 / rate_hz * np.arange(n)).astype(np.float32)
    return Emission(unit_power(phasor(frequency_hz, rate_hz)), rate_hz, 2 * deviation_hz)


def single_sideband(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Voice in one sideband, 2.4 to 3 kHz wide. Held out of training."""
    rate_hz = 16e3
    n = _count(min(duration_s, 20.0), rate_hz)
    sound = equalise(limited(speech(rng, n, rate_hz), 0.4), rate_hz, band(300, rng.uniform(2400, 3000)))
    spectrum = fft.fft(sound.astype(np.complex64))
    frequency = fft.fftfreq(n)
    spectrum[frequency < 0 if rng.random() < 0.5 else frequency > 0] = 0
    iq = fft.ifft(spectrum).astype(np.complex64)
    power = np.abs(iq) ** 2
    iq[power < 1e-5 * power.max()] = 0
    return Emission(unit_power(iq), rate_hz, 2.7e3)


def telegraphy(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """RTTY (45.45 to 100 Bd, shifts of 85 to 850 Hz), PSK31 to PSK125, or several of them side by side."""
    rate_hz = 8e3
    n = _count(min(duration_s, 30.0), rate_hz)
    total = np.zeros(n, np.complex64)
    spread_hz = 0.0 if rng.random() < 0.6 else 2.5e3
    for _ in range(1 if not spread_hz else int(rng.integers(2, 6))):
        if rng.random() < 0.6:
            baud, shift_hz = rng.choice([45.45, 50, 75, 100]), rng.choice([85, 170, 170, 425, 450, 850])
            symbols = 2.0 * rng.integers(0, 2, int(n / rate_hz * baud) + 2) - 1
            index = (np.arange(n) * (baud / rate_hz)).astype(int)
            one = phasor(symbols[index] * shift_hz / 2, rate_hz)
        else:
            baud = rng.choice([31.25, 62.5, 125])
            symbols = np.cumprod(2.0 * rng.integers(0, 2, int(n / rate_hz * baud) + 2) - 1)
            index = (np.arange(n) * (baud / rate_hz)).astype(int)
            one = smooth(symbols[index].astype(np.complex64), np.hanning(int(rate_hz / baud)).astype(np.float32))
            one = one / np.float32(np.sqrt(np.mean(np.abs(one) ** 2)))
        turns = np.arange(n) * (rng.uniform(-1, 1) * spread_hz / rate_hz)
        total += np.complex64(rng.uniform(0.3, 1)) * one * np.exp(2j * np.pi * turns).astype(np.complex64)
    return Emission(unit_power(total), rate_hz, 500.0 + spread_hz)
