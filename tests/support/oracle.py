# SPDX-License-Identifier: GPL-3.0-or-later
"""The readable numpy version of every kernel, in double precision. It is slow and it is what the kernels must equal.

Tolerances, each with its reason:
  rows of dB          1e-3 dB   a float32 FFT of 65536 points errs by some 1e-6 of the strongest bin; log10 by 1e-4 dB
                                (compared where a bin is within 60 dB of the strongest: what lies deeper is the float32
                                FFT's own rounding noise)
  resize              2e-4 dB   sums of up to some hundred float32 products of values near 100 dB
  prepared tile       2e-4      the above, divided by a range of tens of dB and by std
  floor_db, peak_db   1e-3 dB   the same values, picked by rank
  image tile          2e-5      the resize's products, relative to the range that is mapped to 1 and divided by std
  sample conversion   0         one exactly rounded float32 operation or two
  chunking            0         the same operations on the same frames in the same order
"""

from __future__ import annotations

import dataclasses

import numpy as np
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec

ROWS_DB = 1e-3
RESIZE_DB = 2e-4
TILE = 2e-4
LEVELS_DB = 1e-3
IMAGE = 2e-5

SMALLEST_POWER = float(np.finfo(np.float32).tiny)


def window(name: str, n: int) -> np.ndarray:
    """Periodic window of unit mean power, float64 [n]."""
    phase = 2 * np.pi * np.arange(n) / n
    w = {
        "hann": 0.5 - 0.5 * np.cos(phase),
        "hamming": 0.54 - 0.46 * np.cos(phase),
        "blackman": 0.42 - 0.5 * np.cos(phase) + 0.08 * np.cos(2 * phase),
        "rectangular": np.ones(n),
    }[name]
    return w / np.sqrt(np.mean(w**2))


def received_frames(x: np.ndarray, spec: SpectrogramSpec) -> np.ndarray:
    """Starts of the frames that are no gap: without a run of missing samples of a 16th of a frame, int [frames].

    A frame with fft_size / 128 (2 at least) short runs of zeros within is a rounded signal's and no gap; a frame of
    which a quarter or less can be judged is as the one before.
    """
    missing = (x == 0) | ~np.isfinite(x)
    run, quarter, rounded, starts = max(spec.fft_size // 16, 1), spec.fft_size // 4, False, []
    for start in range(0, x.size - spec.fft_size + 1, spec.hop_samples):
        frame = missing[start : start + spec.fft_size]
        edges = np.diff(np.concatenate([[0], frame.astype(int), [0]]))
        runs = list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True))
        longest = max((stop - first for first, stop in runs), default=0)
        if frame[run - 1 :: run].any():
            within = [(a, b) for a, b in runs if b - a < quarter and a > 0 and b < spec.fft_size]
            judged = spec.fft_size - frame.sum() + sum(stop - first for first, stop in within)
            if judged > spec.fft_size // 4:
                rounded = sum(x[start + stop - 1] == 0 for _, stop in within) >= max(spec.fft_size // 128, 2)
        if longest < run or rounded:
            starts.append(start)
    return np.array(starts, int)


def mean_of_frames(x: np.ndarray, starts: np.ndarray, spec: SpectrogramSpec) -> complex:
    """Mean over the first hop of each frame and the rest of the last one; samples that are not finite do not count."""
    spans = [slice(start, start + spec.hop_samples) for start in starts]
    spans.append(slice(starts[-1] + spec.hop_samples, starts[-1] + spec.fft_size))
    samples = np.concatenate([x[span] for span in spans]).astype(np.complex128)
    return complex(samples[np.isfinite(samples)].mean())


def frame_powers(x: np.ndarray, spec: SpectrogramSpec) -> np.ndarray:
    """Power of every received frame, negative frequencies first, float64 [frames, fft_size]; non-finite ones are 0."""
    n, starts = spec.fft_size, received_frames(x, spec)
    samples = np.where(np.isfinite(x), x, 0).astype(np.complex128)
    if spec.remove_dc:
        samples -= mean_of_frames(x, starts, spec)
    frames = np.stack([samples[start : start + n] for start in starts])
    spectrum = np.fft.fft(frames * window(spec.window, n), axis=1)
    return np.fft.fftshift(np.abs(spectrum) ** 2 / n**2, axes=1)


def rows_db(x: np.ndarray, spec: SpectrogramSpec) -> np.ndarray:
    """Mean power of each group of frames (the last group may be short) in dB, float64 [rows, fft_size]."""
    powers, with_dc = frame_powers(x, spec), frame_powers(x, dataclasses.replace(spec, remove_dc=False))
    starts = range(0, len(powers), spec.frames_averaged)
    mean = np.stack([powers[start : start + spec.frames_averaged].mean(axis=0) for start in starts])
    floor = np.full((len(mean), 1), spec.floor_db)
    if spec.reference == "median":  # the floor is at least the range below the row's mean power
        levels = np.array([with_dc[start : start + spec.frames_averaged].mean() for start in starts])
        levels_db = 10 * np.log10(np.maximum(levels, SMALLEST_POWER))
        floor = np.minimum(spec.floor_db, levels_db - (spec.high_db - spec.low_db))[:, None]
    return np.maximum(10 * np.log10(np.maximum(mean, SMALLEST_POWER)), floor)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def resize_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Bicubic, antialiased when shrinking, every row normalised over the inputs that exist; float64 [n_out, n_in]."""
    ratio = n_in / n_out
    stretch = max(ratio, 1.0)
    centre = (np.arange(n_out)[:, None] + 0.5) * ratio
    inputs = np.arange(n_in)[None, :]
    near = (inputs >= np.floor(centre - 2 * stretch + 0.5)) & (inputs < np.floor(centre + 2 * stretch + 0.5))
    weights = np.where(near, cubic((inputs + 0.5 - centre) / stretch), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized_db(rows: np.ndarray, spec: SpectrogramSpec) -> np.ndarray:
    """float64 [height, width]."""
    return resize_matrix(len(rows), spec.height) @ rows @ resize_matrix(rows.shape[1], spec.width).T


def levels(resized: np.ndarray) -> tuple[float, float]:
    """(lower median, 99.9 % quantile by nearest rank) of all cells."""
    ordered = np.sort(resized, axis=None)
    return float(ordered[(ordered.size - 1) // 2]), float(ordered[-(-ordered.size * 999 // 1000) - 1])


def tile(x: np.ndarray, spec: SpectrogramSpec) -> tuple[np.ndarray, float, float]:
    """The prepared tile of all whole frames in x, float64 [1, height, width], and its floor_db and peak_db."""
    resized = resized_db(rows_db(x, spec), spec)
    floor_db, peak_db = levels(resized)
    reference = max(floor_db, peak_db - spec.high_db) if spec.reference == "median" else 0.0
    ranged = np.clip((resized - reference - spec.low_db) / (spec.high_db - spec.low_db), 0, 1)
    return ((ranged - spec.mean) / spec.std)[None], floor_db, peak_db


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 [C, height, width] of [C, rows, columns]."""
    return resize_matrix(image.shape[1], height) @ image.astype(np.float64) @ resize_matrix(image.shape[2], width).T


def image_tile(array: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """float64 [C, height, width], in the order of the paper's pre-training: decibels, range, resize, standardise."""
    x = array.astype(np.float64)
    x = x if spec.decibel_floor is None else 10 * np.log10(x + spec.decibel_floor)
    x = spec.range_low + (x - spec.low) / (spec.high - spec.low) * (spec.range_high - spec.range_low)
    x = resized(x, spec.height, spec.width)
    return (x - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]


def to_complex64(raw: bytes, sample_format: str) -> np.ndarray:
    """complex64 [n]."""
    values = np.frombuffer(raw, {"cu8": "u1", "cs8": "i1", "cs16": "<i2", "cf32": "<f4"}[sample_format])
    parts = values.astype(np.float32)
    if sample_format == "cu8":
        parts = (parts - np.float32(127.5)) / np.float32(127.5)
    elif sample_format == "cs8":
        parts = parts / np.float32(128)
    elif sample_format == "cs16":
        parts = parts / np.float32(32768)
    return parts.view(np.complex64)
