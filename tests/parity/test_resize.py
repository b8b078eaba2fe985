# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle's resize against a second source, and the kernel's against the oracle's by tiles that show it alone."""

from __future__ import annotations

import numpy as np
import pytest
from support import oracle
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.preprocess.spectrogram import make_tiler

QUIET = 1e-25  # in place of exact zeros, which would be digital silence


@pytest.mark.parametrize(("n_in", "n_out"), [(512, 224), (448, 224), (1000, 224), (224, 224), (4, 224), (37, 100)])
def test_the_oracle_is_torchs_antialiased_bicubic(n_in: int, n_out: int) -> None:
    torch = pytest.importorskip("torch", reason="the second source of the resize is torch")
    image = np.random.default_rng(0).normal(size=(n_in, 50))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(n_out, 50), mode="bicubic", antialias=True, align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(oracle.resize_matrix(n_in, n_out) @ image, theirs, atol=1e-6)


@pytest.mark.parametrize(("n_in", "n_out"), [(448, 224), (4, 224), (1, 5), (8, 1), (30, 28)])
def test_rows_sum_to_one(n_in: int, n_out: int) -> None:
    np.testing.assert_allclose(oracle.resize_matrix(n_in, n_out).sum(axis=1), 1.0)


@pytest.mark.parametrize(("rows", "height"), [(448, 224), (5, 224), (60, 224), (24, 7), (1, 3)])
def test_the_kernel_resizes_as_the_oracle(rows: int, height: int) -> None:
    """An impulse per frame is flat over frequency, so that a row of the picture is the level of its frame in dB."""
    spec = SpectrogramSpec(
        fft_size=8,
        hop_samples=8,
        window="rectangular",
        frames_averaged=1,
        rows_per_tile=rows,
        min_rows=1,
        height=height,
        width=3,
        reference="full_scale",
        low_db=-200.0,
        high_db=0.0,
        mean=0.0,
        std=1.0,
    )
    level_db = np.random.default_rng(1).uniform(-120, -20, rows)
    x = np.full((rows, 8), QUIET, np.complex64)
    x[:, 0] = 8 * 10 ** (level_db / 20)
    (made,) = make_tiler(spec).push(x.ravel())
    got_db = made[0][0] * 200 - 200
    expected = (oracle.resize_matrix(rows, height) @ level_db)[:, None].repeat(3, axis=1)
    np.testing.assert_allclose(got_db, expected, rtol=0, atol=oracle.RESIZE_DB)


def test_the_decibels_of_a_wide_span_of_powers() -> None:
    """One frame per tile of one row: 10 log10 itself, from the floor to far above full scale."""
    geometry = {"fft_size": 8, "hop_samples": 8, "frames_averaged": 1, "rows_per_tile": 1, "min_rows": 1}
    spec = SpectrogramSpec(**geometry, window="rectangular", height=1, width=8, floor_db=-300.0, reference="full_scale")
    level_db = np.linspace(-310, 250, 2000)
    x = np.full((level_db.size, 8), QUIET, np.complex64)
    x[:, 0] = 8 * 10 ** (level_db / 20)
    peaks = np.array([made[5] for made in make_tiler(spec).push(x.ravel())])
    np.testing.assert_allclose(peaks, np.maximum(level_db, -300), rtol=0, atol=oracle.RESIZE_DB)
