# SPDX-License-Identifier: GPL-3.0-or-later
"""The labels of the published RF pictures as signal classes.

Five labels have no class in `wavesfm_trainer.signals` and are synthesised here as their standards require, without
contents that a spectrogram does not show (pictures, texts). Three labels use a similar class: RS41-Radiosonde is
radiosondes of several makes, remote-keyless-entry FSK remotes and sensors, digital-speech-decoder DMR.
"""

from __future__ import annotations

import numpy as np

from ...signals import CLASSES
from ...signals.audio import limited, speech
from ...signals.base import IQ, Emission, SignalClass, View, unit_power
from ...signals.narrowband import phasor
from ...signals.shaping import Reals, sample_count, trapezoids

HF_RATE_HZ = 12e3
# The letters and figures of ITU-R M.1677-1.
MORSE = (
    ".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--", "-.", "---", ".--.",
    "--.-", ".-.", "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--..", "-----", ".----", "..---", "...--",
    "....-", ".....", "-....", "--...", "---..", "----.",
)  # fmt: skip


def _keying(rng: np.random.Generator, duration_s: float, unit_s: float, from_s: float) -> tuple[Reals, Reals]:
    """Starts and lengths in seconds of the dots and dashes of random words, from `from_s` to `duration_s`."""
    starts, lengths, at_s = [], [], from_s
    while at_s < duration_s:
        for _ in range(int(rng.integers(2, 8))):
            for mark in MORSE[int(rng.integers(len(MORSE)))]:
                length_s = unit_s * (3 if mark == "-" else 1)
                starts.append(at_s)
                lengths.append(length_s)
                at_s += length_s + unit_s
            at_s += 2 * unit_s
        at_s += 4 * unit_s
    return np.array(starts), np.array(lengths)


def _keyed(rng: np.random.Generator, duration_s: float, rate_hz: float, unit_s: float) -> Reals:
    """Envelope of Morse code with edges of 5 ms, keyed by hand or machine."""
    starts_s, lengths_s = _keying(rng, duration_s, unit_s, -rng.uniform(0, 1))
    return trapezoids(starts_s, lengths_s, 0.005, rate_hz, sample_count(duration_s, rate_hz))


def _morse(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One to three stations at 12 to 35 words per minute."""
    n_samples = sample_count(duration_s, HF_RATE_HZ)
    iq = np.zeros(n_samples, np.complex64)
    for index in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        tone_hz = 0.0 if index == 0 else rng.choice([-1, 1]) * rng.uniform(200, 0.35 * min(view_hz, HF_RATE_HZ))
        level = 1.0 if index == 0 else 10 ** (rng.uniform(-12, 3) / 20)
        envelope = level * _keyed(rng, duration_s, HF_RATE_HZ, 1.2 / rng.uniform(12, 35))
        chirp_hz = rng.uniform(0, 20) * envelope  # keying shifts the oscillator
        iq += (phasor(np.float32(tone_hz) + chirp_hz, HF_RATE_HZ, rng.random()) * envelope).astype(np.complex64)
    return Emission(unit_power(iq), HF_RATE_HZ, 150.0)


def _radioteletype(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Two tones 170 to 850 Hz apart; five-bit characters with start and stop bits at 45.45 to 100 baud."""
    n_samples = sample_count(duration_s, HF_RATE_HZ)
    baud = float(rng.choice([45.45, 50.0, 75.0, 100.0], p=[0.4, 0.4, 0.1, 0.1]))
    shift_hz = float(rng.choice([170.0, 450.0, 850.0], p=[0.55, 0.3, 0.15]))
    halves = int(2 * duration_s * baud) + 40  # in half bits, for the stop of one and a half
    characters = []
    for _ in range(halves // 15 + 2):
        bits = rng.integers(0, 2, 5)
        idle = np.ones(2 * int(rng.integers(0, 12)) if rng.random() < 0.12 else 0, int)
        characters.append(np.concatenate([[0, 0], np.repeat(bits, 2), [1, 1, 1], idle]))
    line = np.concatenate(characters)[int(rng.integers(15)) :]
    place = (np.arange(n_samples) * (2 * baud / HF_RATE_HZ)).astype(int)
    tone = line[place % len(line)] * 2.0 - 1.0
    taps = np.hanning(int(0.4 / baud * HF_RATE_HZ) | 1)
    frequency_hz = shift_hz / 2 * np.convolve(tone, taps / taps.sum(), "same")
    return Emission(unit_power(phasor(frequency_hz, HF_RATE_HZ, rng.random())), HF_RATE_HZ, shift_hz + 2 * baud)


# (line in s, sync in s, parts in s, each of which scans the picture from edge to edge)
SSTV_MODES = (
    (0.446446, 0.004862, (0.146432,) * 3),  # Martin M1
    (0.428220, 0.009000, (0.138240,) * 3),  # Scottie S1
    (0.150000, 0.009000, (0.088000, 0.044000)),  # Robot 36
    (0.508480, 0.020000, (0.121600,) * 4),  # PD 120
)


def _picture_lines(rng: np.random.Generator, n_lines: int, width: int) -> Reals:
    """Brightness [n_lines, width] in 0..1 with the structure of a photograph: patches that extend over lines."""
    picture = np.cumsum(rng.standard_normal((n_lines, width)) * 0.05, axis=0) + rng.uniform(0.2, 0.8, width)
    for _ in range(8):
        left, span = int(rng.integers(width)), int(rng.integers(4, width))
        top, height = int(rng.integers(-5, n_lines)), int(rng.integers(3, 60))
        picture[max(top, 0) : top + height, left : left + span] = rng.random()
    taps = np.ones(5) / 5
    return np.clip(np.apply_along_axis(np.convolve, 1, picture, taps, "same"), 0, 1).astype(np.float32)


def _sstv(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Slow-scan television as single sideband: 1,500 (black) to 2,300 Hz (white), sync at 1,200 Hz each line."""
    line_s, sync_s, parts_s = SSTV_MODES[int(rng.integers(len(SSTV_MODES)))]
    n_samples = sample_count(duration_s, HF_RATE_HZ)
    lines = _picture_lines(rng, int(duration_s / line_s) + 3, 160)
    at_s = np.arange(n_samples) / HF_RATE_HZ + rng.uniform(0, line_s)
    line, within_s = (at_s // line_s).astype(int), at_s % line_s
    tone_hz = np.full(n_samples, 1500.0)  # porches
    tone_hz[within_s < sync_s] = 1200.0
    start_s = sync_s + 0.001
    for index, part_s in enumerate(parts_s):
        inside = (within_s >= start_s) & (within_s < start_s + part_s)
        column = ((within_s[inside] - start_s) / part_s * 160).astype(int).clip(0, 159)
        tone_hz[inside] = 1500 + 800 * np.roll(lines, 7 * index, axis=1)[line[inside], column]
        start_s += part_s + 0.001
    return Emission(unit_power(phasor(tone_hz - 1750.0, HF_RATE_HZ, rng.random())), HF_RATE_HZ, 1400.0)


def _weather_picture(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """NOAA's APT: 2 lines a second of 2,080 words as the amplitude of a 2,400 Hz tone, FM with 17 kHz deviation."""
    rate_hz, word_hz = 62.4e3, 4160.0
    n_samples = sample_count(duration_s, rate_hz)
    lines = _picture_lines(rng, int(2 * duration_s) + 3, 2080)
    for first, sync_hz in ((0, 1040.0), (1040, 832.0)):  # sync A and B: seven pulses, then space and minute markers
        words = np.arange(39)
        lines[:, first : first + 39] = (np.sin(2 * np.pi * words * sync_hz / word_hz) > 0) & (words < 28)
        lines[:, first + 39 : first + 86] = float(first == 0)
        lines[:, first + 995 : first + 1040] = np.repeat(rng.random(len(lines) // 8 + 1), 8)[: len(lines), None]
    at = np.arange(n_samples) * (word_hz / rate_hz) + rng.uniform(0, 2080)
    level = lines.ravel()[at.astype(int) % lines.size]
    tone = (0.05 + 0.9 * level) * np.sin(2 * np.pi * 2400 / rate_hz * np.arange(n_samples))
    return Emission(unit_power(phasor(17e3 * tone, rate_hz, rng.random())), rate_hz, 38e3)


def _vor(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """A carrier with 30 Hz AM, a 9,960 Hz subcarrier (FM, 480 Hz at 30 Hz), Morse at 1,020 Hz, sometimes a voice."""
    rate_hz = 30e3
    time_s = np.arange(sample_count(duration_s, rate_hz)) / rate_hz
    turns = 30 * time_s + rng.random()
    subcarrier = np.cos(2 * np.pi * 9960 * time_s + 16 * np.sin(2 * np.pi * (turns + rng.random())))
    audio = 0.3 * np.cos(2 * np.pi * turns) + 0.3 * subcarrier
    if rng.random() < 0.7:
        audio += 0.1 * _keyed(rng, duration_s, rate_hz, 1.2 / 7) * np.sin(2 * np.pi * 1020 * time_s)
    if rng.random() < 0.2:
        audio += 0.25 * limited(speech(rng, len(time_s), rate_hz), 0.4)
    iq: IQ = (1 + audio).astype(np.complex64)
    return Emission(unit_power(iq), rate_hz, 22e3)


def _class(label: str, standard: str, low_hz: float, high_hz: float, make, shortest_s: float) -> SignalClass:
    return SignalClass(label, standard, (View(low_hz, high_hz),), make, shortest_s)


SIGNALS: dict[str, SignalClass] = {
    "ads-b": CLASSES["ads-b"],
    "airband": CLASSES["am-voice"],
    "ais": CLASSES["ais"],
    "automatic-picture-transmission": _class(
        "automatic-picture-transmission", "NOAA KLM user's guide section 4.2", 60e3, 250e3, _weather_picture, 0.6
    ),
    "bluetooth": CLASSES["bluetooth"],
    "cellular": CLASSES["cellular"],
    "digital-audio-broadcasting": CLASSES["dab"],
    "digital-speech-decoder": CLASSES["dmr"],
    "fm": CLASSES["wbfm"],
    "lora": CLASSES["lora"],
    "morse": _class("morse", "ITU-R M.1677-1", 6e3, 24e3, _morse, 2.0),
    "on-off-keying": CLASSES["ook-ism"],
    "packet": CLASSES["ax25-packet"],
    "pocsag": CLASSES["pocsag"],
    "Radioteletype": _class("Radioteletype", "ITU-R M.476, ITU-T S.1 (ITA2)", 6e3, 24e3, _radioteletype, 1.0),
    "remote-keyless-entry": CLASSES["fsk-ism"],
    "RS41-Radiosonde": CLASSES["radiosonde"],
    "sstv": _class("sstv", "J. Barber, Proposal for SSTV mode specifications (2000)", 8e3, 24e3, _sstv, 1.0),
    "vor": _class("vor", "ICAO Annex 10 Vol I clause 3.3", 48e3, 250e3, _vor, 0.3),
    "wifi": CLASSES["wifi"],
}
