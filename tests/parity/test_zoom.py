# SPDX-License-Identifier: GPL-3.0-or-later
"""Zoomed views against mixing, filtering and picking in plain numpy; times, flatness and rejection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wavesfm_core._kernels import Zoom

SIZE = 4096
TOLERANCE = 3e-4  # of samples near 0.3: the filter's spectrum is cut at 70 dB, and the transforms are float32


def noise(n: int, seed: int = 0) -> np.ndarray:
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel() * np.float32(0.3)


def low_pass(t: np.ndarray, bins: int) -> np.ndarray:
    """The filter at any times t, in samples."""
    half = SIZE // 8
    cutoff = bins / SIZE * (0.5 - 17.27 / bins / 2)
    inside = np.clip(1 - (t / half) ** 2, 0, None)
    window = np.where(np.abs(t) <= half, np.i0(6.7555 * np.sqrt(inside)) / np.i0(6.7555), 0)
    return 2 * cutoff * np.sinc(2 * cutoff * t) * window


def oracle(x: np.ndarray, centre: int, bins: int) -> np.ndarray:
    """Mixed down and filtered, at the output's times, which may lie between samples."""
    n = np.arange(x.size)
    mixed = x * np.exp(-2j * np.pi * centre / SIZE * n)
    times = np.arange(-(-x.size * bins // SIZE)) * SIZE / bins
    return np.array([np.dot(mixed, low_pass(t - n, bins)) for t in times])


def run(x: np.ndarray, *channels: tuple[int, int]) -> list[np.ndarray]:
    zoom = Zoom(SIZE, list(channels))
    return [np.concatenate(parts) for parts in zip(zoom.push(x), zoom.finish())]


@pytest.mark.parametrize(("centre", "bins"), [(0, 128), (-1037, 256), (2000, 512), (333, 168), (-2047, 1000)])
def test_views_equal_the_oracle(centre: int, bins: int) -> None:
    x = noise(9001)
    (got,) = run(x, (centre, bins))
    want = oracle(x, centre, bins)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < TOLERANCE


@pytest.mark.parametrize("bins", [128, 256, 1024])
def test_the_passband_is_flat_and_the_rest_is_rejected(bins: int) -> None:
    t = np.arange(8 * SIZE)

    def level_db(offset: float) -> float:
        (out,) = run(np.exp(2j * np.pi * (100 + offset) / SIZE * t).astype(np.complex64), (100, bins))
        return float(10 * np.log10(np.mean(np.abs(out[bins : 6 * bins]) ** 2) + 1e-12))

    edge = (0.5 - 18 / bins) * bins
    assert all(abs(level_db(share * edge)) < 0.05 for share in (-1.0, -0.7, 0.0, 0.3, 1.0))
    assert all(level_db(offset) < -60 for offset in (-0.51 * bins, 0.51 * bins, 0.75 * bins, 1.5 * bins))


def test_an_impulse_keeps_its_time() -> None:
    x = np.zeros(20000, np.complex64)
    x[8 * 1500] = 1
    (out,) = run(x, (700, 512))
    assert np.argmax(np.abs(out)) == 1500


@given(chunks=st.lists(st.integers(0, 7000), min_size=1, max_size=10))
@settings(max_examples=20, deadline=None)
def test_any_chunking_gives_the_same_bits(chunks: list[int]) -> None:
    x = noise(20001)
    whole = run(x, (77, 256), (-900, 136))
    zoom = Zoom(SIZE, [(77, 256), (-900, 136)])
    bounds = np.cumsum(chunks)
    parts = [zoom.push(piece) for piece in np.split(x, bounds[bounds < x.size])] + [zoom.finish()]
    for channel, want in enumerate(whole):
        assert np.concatenate([part[channel] for part in parts]).tobytes() == want.tobytes()


def test_wrong_channels_are_named() -> None:
    with pytest.raises(ValueError, match="bins"):
        Zoom(SIZE, [(0, 100)])
    with pytest.raises(ValueError, match="centre_bin"):
        Zoom(SIZE, [(SIZE, 128)])
    with pytest.raises(ValueError, match="fft_size"):
        Zoom(1000, [(0, 128)])
