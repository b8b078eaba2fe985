# SPDX-License-Identifier: GPL-3.0-or-later
"""Synthetic programme audio: speech-like and music-like sound with the rhythm and spectrum of the real thing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from .shaping import Reals

# Formants in Hz of ten vowels: Peterson and Barney (1952), men's means.
VOWELS_HZ = np.array(
    [
        [270, 2290, 3010], [390, 1990, 2550], [530, 1840, 2480], [660, 1720, 2410], [730, 1090, 2440],
        [570, 840, 2410], [440, 1020, 2240], [300, 870, 2240], [640, 1190, 2390], [490, 1350, 1690],
    ],
    np.float32,
)  # fmt: skip
FORMANT_WIDTH_HZ = np.array([70, 100, 150], np.float32)
FRAME_S = 0.016


def equalise(x: Reals, rate_hz: float, gain: Callable[[NDArray], NDArray], n_out: int | None = None) -> Reals:
    """Filter and resample real signals.

    Parameters
    ----------
    x : [..., n].
    rate_hz : sample rate of `x`.
    gain : function of the frequency in Hz.
    n_out : samples of the result over the same time; None: n.
    """
    n_in = x.shape[-1]
    n_out = n_out or n_in
    spectrum = fft.rfft(x) * gain(np.arange(n_in // 2 + 1) * (rate_hz / n_in)).astype(np.complex64)
    return fft.irfft(spectrum, n_out) * np.float32(n_out / n_in)


def band(low_hz: float, high_hz: float) -> Callable[[NDArray], NDArray]:
    """Gain function of a smooth band pass, for `equalise`."""

    def gain(f: NDArray) -> NDArray:
        """1 inside the edges, falling within a tenth above the upper edge and a third below the lower edge."""
        upper = np.clip((1.1 * high_hz - f) / (0.1 * high_hz), 0, 1)
        return upper * np.clip((f - 0.67 * low_hz) / (0.33 * low_hz + 1e-9), 0, 1)

    return gain


def limited(x: Reals, level: float) -> Reals:
    """Scale the audible part of `x` to rms `level` and compress its peaks into +-1, like an audio limiter."""
    magnitude = np.abs(x)
    sounding = magnitude > 0.05 * magnitude.max()
    if not sounding.any():
        return x
    return np.tanh(x * np.float32(level / np.sqrt(np.mean(x[sounding] ** 2))))


class _Tracks:
    """Control tracks of one talker, one value per half frame."""

    def __init__(self, rng: np.random.Generator, n_frames: int):
        self.rng, self.n_frames = rng, n_frames
        self.pitch_hz, self.voice, self.hiss, self.hiss_hz = (np.zeros(n_frames, np.float32) for _ in range(4))
        self.formants_hz = np.full((n_frames, 3), 500, np.float32)
        self.at_s, self.tempo = -rng.uniform(0, 1.2), rng.uniform(0.8, 1.4)
        self.base_hz = rng.choice([rng.uniform(85, 140), rng.uniform(160, 250)])
        while self._frame(self.at_s) < n_frames:
            self._phrase()

    @staticmethod
    def _frame(time_s: float) -> int:
        return max(int(time_s / (FRAME_S / 2)), 0)

    def _phrase(self) -> None:
        """Some syllables with falling pitch, then a pause."""
        count = int(self.rng.integers(2, 13))
        for index in range(count):
            self._syllable(self.base_hz * (1.15 - 0.3 * index / count) * self.rng.uniform(0.9, 1.15))
        self.at_s += self.rng.uniform(0.12, 0.8)

    def _syllable(self, pitch_hz: float) -> None:
        """A fricative, a stop or nothing, then a vowel, at 3 to 6 syllables per second."""
        rng, start_s = self.rng, self.at_s
        kind = rng.random()
        onset_s = self.tempo * (rng.uniform(0.05, 0.12) if kind < 0.4 else rng.uniform(0.02, 0.06))
        vowel_s = self.tempo * rng.uniform(0.08, 0.2)
        low, mid, high = (self._frame(t) for t in (start_s, start_s + onset_s, start_s + onset_s + vowel_s))
        if kind < 0.4:
            self.hiss[low:mid] = rng.uniform(0.08, 0.4)
            self.hiss_hz[low:mid] = rng.uniform(2000, 6500)
        elif kind < 0.7:  # stop: silence, then a short burst
            self.hiss[max(mid - 2, low) : mid] = rng.uniform(0.1, 0.4)
            self.hiss_hz[max(mid - 2, low) : mid] = rng.uniform(800, 4500)
        self.pitch_hz[low:] = pitch_hz
        self.pitch_hz[mid:] = pitch_hz * rng.uniform(0.85, 1.15)
        # Syllables swell and fade; the peak sits anywhere in the first two thirds.
        swell = np.linspace(0, 1, max(high - mid, 1)) ** rng.uniform(0.4, 1.2)
        seen = self.voice[mid:high]
        seen[:] = (rng.uniform(0.25, 1.0) * np.sin(np.pi * (0.1 + 0.85 * swell)))[: len(seen)]
        self.formants_hz[low:] = VOWELS_HZ[rng.integers(len(VOWELS_HZ))] * rng.uniform(0.95, 1.2)
        self.at_s = start_s + onset_s + vowel_s + self.tempo * rng.uniform(0.0, 0.06)

    def smoothed(self, track: NDArray, width: int) -> NDArray:
        """Running mean over `width` half frames; edge values are repeated."""
        padded = np.pad(track, [(width // 2, width - 1 - width // 2)] + [(0, 0)] * (track.ndim - 1), mode="edge")
        total = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0, dtype=np.float64)
        return ((total[width:] - total[:-width]) / width).astype(np.float32)


def speech(rng: np.random.Generator, n_samples: int, rate_hz: float = 16e3) -> Reals:
    """Speech-like sound: pitch pulses and noise, filtered by moving formants.

    Returns
    -------
    float32 [n_samples], rms about 0.3 in vowels.
    """
    hop = int(FRAME_S / 2 * rate_hz)
    n_frames = n_samples // hop + 3
    tracks = _Tracks(rng, n_frames)
    frequency = (np.arange(hop + 1) * (rate_hz / (2 * hop))).astype(np.float32)
    ratio = frequency / tracks.smoothed(tracks.formants_hz, 7)[..., None]  # [frames, 3, bins]
    formants = tracks.smoothed(tracks.formants_hz, 7)[..., None]
    poles = (1 - ratio**2) ** 2 + (ratio * FORMANT_WIDTH_HZ[:, None] / formants) ** 2
    vowel = 1 / (np.sqrt(poles.prod(axis=1)) * (1 + frequency / 500))
    vowel *= (tracks.smoothed(tracks.voice, 5) / np.sqrt((vowel**2).mean(axis=1)))[:, None]
    noise = np.exp(-(((frequency - tracks.hiss_hz[:, None]) / 1500) ** 2)) * tracks.smoothed(tracks.hiss, 3)[:, None]

    n_total = (n_frames + 1) * hop
    pitch_hz = np.interp(np.arange(n_total) / hop, np.arange(n_frames), tracks.smoothed(tracks.pitch_hz, 15))
    pulses = np.diff(np.floor(np.cumsum(pitch_hz / rate_hz)), prepend=0).astype(np.float32)
    pulses *= np.sqrt(rate_hz / np.maximum(pitch_hz, 50)).astype(np.float32)
    window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(np.float32)
    voiced = fft.rfft(sliding_window_view(pulses, 2 * hop)[::hop] * window)
    hissing = fft.rfft(sliding_window_view(rng.standard_normal(n_total, np.float32), 2 * hop)[::hop] * window)
    frames = fft.irfft(voiced * vowel + hissing * (2.5 * noise), 2 * hop) * window
    out = np.zeros((n_frames + 1, hop), np.float32)
    out[:-1] += frames[:, :hop]
    out[1:] += frames[:, hop:]
    return 0.3 * out.ravel()[hop : hop + n_samples]


def music(rng: np.random.Generator, n_samples: int, rate_hz: float = 32e3) -> Reals:
    """Music-like stereo sound: chords, bass and drums on a beat.

    Returns
    -------
    float32 [2, n_samples], rms about 0.3.
    """
    beat = 60 / rng.uniform(65, 170) * rate_hz
    longest = int(2.0 * rate_hz)
    time_s = np.arange(longest, dtype=np.float32) / np.float32(rate_hz)
    steps = np.arange(longest, dtype=np.float64)
    drums, corner_hz = rng.random() < 0.7, rng.uniform(500, 8000)
    out = np.zeros((2, n_samples), np.float32)
    root_hz = rng.uniform(55, 110)
    scale = 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
    tables, decays = [], []
    for _ in range(2):
        partials = rng.uniform(0.2, 1, 16) / np.arange(1, 17) ** rng.uniform(0.6, 2)
        turns = np.arange(2048)[:, None] * np.arange(1, 17) / 2048
        tables.append((np.sin(2 * np.pi * (turns + rng.random(16))) @ partials).astype(np.float32))
        decays.append(np.exp(-time_s / rng.uniform(0.1, 1.0)) * np.minimum(time_s / rng.uniform(0.003, 0.05), 1))
    thump = np.sin(2 * np.pi * 55 * time_s + 8 * np.exp(-time_s * 30)) * np.exp(-time_s * 15)

    def add(sound: Reals, start: int, gain: float) -> None:
        """Add a mono sound at a random position between left and right."""
        low, high = max(start, 0), min(start + len(sound), n_samples)
        if low < high:
            pan = rng.uniform(0.25, 0.75)
            out[0, low:high] += (gain * pan) * sound[low - start : high - start]
            out[1, low:high] += (gain * (1 - pan)) * sound[low - start : high - start]

    chord = rng.integers(0, 8)
    first = rng.random()
    for index in range(-4, int(n_samples / beat) + 1):
        start = int((index + first + rng.normal(0, 0.01)) * beat)
        length = min(int(beat * rng.choice([0.5, 1, 2])), longest)
        if index % 4 == 0:
            chord = rng.integers(0, 8)
        notes = [(0, root_hz * scale[chord], 0.9)]
        notes += [(1, root_hz * 4 * scale[(chord + third) % 8], 0.35) for third in (0, 2, 4)]
        notes += [(0, root_hz * 8 * scale[rng.integers(8)], 0.5)] if rng.random() < 0.8 else []
        for which, pitch_hz, gain in notes:
            index_in_table = (steps[:length] * (pitch_hz * 2048 / rate_hz)).astype(np.int32) & 2047
            add(tables[which][index_in_table] * decays[which][:length], start, gain)
        if drums:
            add(thump[: int(0.25 * rate_hz)], start, 1.2)
            hit = int(0.12 * rate_hz)
            snare = np.diff(rng.standard_normal(hit + 1, np.float32)) * np.exp(-time_s[:hit] * 40)
            add(snare, start + int(beat / 2), rng.uniform(0.1, 0.5))
    # Cymbals, reverberation and crowds fill what is between the notes.
    swell = 1 + 0.8 * np.sin(np.arange(n_samples, dtype=np.float32) * np.float32(2 * np.pi / beat))
    hush = equalise(rng.standard_normal(n_samples, np.float32), rate_hz, lambda f: 1 / (1 + f / corner_hz))
    out += hush * swell * np.float32(np.sqrt(np.mean(out**2) / np.mean(hush**2)) * 10 ** (rng.uniform(-35, -8) / 20))
    level = np.sqrt(np.mean(out**2))
    return out * np.float32(0.3 / level) if level > 0 else out
