# SPDX-License-Identifier: GPL-3.0-or-later
"""Real samples as complex ones of half the rate: tones stay tones, images are gone, blocks join."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.recordings.analytic import MARGIN, analytic
from wavesfm_core.recordings.iqfile import open_recording


@pytest.mark.parametrize("cycles", np.arange(0.02, 0.49, 0.0443))
def test_a_real_tone_becomes_a_complex_tone_of_the_same_amplitude(cycles: float) -> None:
    n = 1000
    real = 0.5 * np.cos(2 * np.pi * cycles * np.arange(-MARGIN, 2 * n + MARGIN) + 0.3)
    made = analytic(real.astype(np.float32))
    expected = 0.5 * np.exp(2j * np.pi * (2 * cycles - 0.5) * np.arange(n) + 0.3j)
    assert made.dtype == np.complex64
    np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize("cycles", [0.025, 0.1, 0.3, 0.475])
def test_the_image_is_80_db_down(cycles: float) -> None:
    n = 4096
    real = np.cos(2 * np.pi * cycles * np.arange(-MARGIN, 2 * n + MARGIN))
    spectrum = np.abs(np.fft.fft(analytic(real.astype(np.float32)) * np.blackman(n))) ** 2
    tone = np.round((2 * cycles - 0.5) * n).astype(int) % n
    image = np.round((-2 * cycles - 0.5) * n).astype(int) % n
    near = spectrum[np.arange(image - 3, image + 4) % n].max()
    assert 10 * np.log10(near / spectrum[tone]) < -80


@pytest.mark.parametrize("block", [1, 3, 64, 500])
def test_blocks_join_without_a_seam(tmp_path: Path, block: int) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "x.rs16"
    rng.integers(-9000, 9000, 2001).astype("<i2").tofile(path)
    with open_recording(path, rate_hz=1e6, centre_hz=10e6) as recording:
        assert (recording.rate_hz, recording.centre_hz, recording.n_samples) == (0.5e6, 10.25e6, 1000)
        (whole,) = recording.blocks()
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks(block))), whole)
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks(block, 17, 650))), whole[17:650])


REAL = {
    "ru8": "u1",
    "rs8": "i1",
    "rs16": "<i2",
    "rs16be": ">i2",
    "ru16": "<u2",
    "rs32": "<i4",
    "rf32": "<f4",
    "rf64": "<f8",
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_format(tmp_path: Path, name: str) -> None:
    tone = 0.5 * np.cos(2 * np.pi * 0.1 * np.arange(4000))
    bits = np.dtype(REAL[name]).itemsize * 8
    if name[1] != "f":
        tone = np.rint(tone * 2 ** (bits - 1) + (2 ** (bits - 1) - 0.5 if name[1] == "u" else 0))
    tone.astype(REAL[name]).tofile(tmp_path / f"x.{name}")
    with open_recording(tmp_path / f"x.{name}") as recording:
        (made,) = recording.blocks()
        assert recording.notes == (
            "real samples: read as their analytic signal, the band from 0 to half the rate, at half the rate",
        )
    expected = 0.5 * np.exp(2j * np.pi * -0.3 * np.arange(2000))
    np.testing.assert_allclose(made[100:-100], expected[100:-100], atol=0.02 if bits == 8 else 1e-3)
