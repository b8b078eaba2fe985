# SPDX-License-Identifier: GPL-3.0-or-later
"""The band detector against its oracle, its false alarms, and its indifference to chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import band_oracle as oracle
from wavesfm_core._kernels import BandDetector

FFT, ROWS = 256, 64


def noise(n: int, seed: int = 0) -> np.ndarray:
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel()


def coloured(n: int, seed: int, shape: str) -> np.ndarray:
    """Noise through a receiver: white, sloping by 12 dB, or rolling off by 30 dB at the band's ends."""
    f = np.fft.fftfreq(n)
    gain_db = {"white": 0 * f, "slope": 12 * f, "rolloff": -30 * np.clip((np.abs(f) - 0.4) / 0.1, 0, 1) ** 2}[shape]
    return np.fft.ifft(np.fft.fft(noise(n, seed)) * 10 ** (gain_db / 20)).astype(np.complex64)


def scene(n: int, seed: int = 1) -> np.ndarray:
    """Noise, a carrier, a burst in an eighth of the band, short pulses, a weak steady signal, two neighbours."""
    x = noise(n, seed)
    t = np.arange(n)
    x += np.exp(2j * np.pi * 0.31 * t).astype(np.complex64)
    wide = np.fft.fft(noise(n, seed + 1))
    f = np.fft.fftfreq(n)
    for low, high, first, last, gain in (
        (-0.3, -0.18, 0.2, 0.55, 4.0),
        (0.05, 0.07, 0.0, 1.0, 1.3),
        (-0.1, -0.06, 0.0, 1.0, 20.0),
        (-0.05, -0.01, 0.0, 1.0, 6.0),
    ):
        part = np.fft.ifft(np.where((f >= low) & (f < high), wide, 0)) * gain
        x[int(first * n) : int(last * n)] += part[int(first * n) : int(last * n)].astype(np.complex64)
    for at in range(n // 9, n, n // 4):
        x[at : at + 150] += 5 * noise(150, at)
    return x


def run(x: np.ndarray, **options: float) -> list[tuple]:
    detector = BandDetector(FFT, ROWS, **options)
    blocks = detector.push(x)
    last = detector.flush()
    return blocks if last is None else [*blocks, last]


def gain_step(n: int) -> np.ndarray:
    """20 dB up a third into the stream, and down to 6 dB at two thirds."""
    at = np.arange(n) / n
    return np.select([at < 0.31, at < 0.7], [np.float32(1), np.float32(10)], np.float32(2)).astype(np.float32)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_equal_the_oracle(seed: int, steps: bool) -> None:
    n = FFT * (3 * ROWS + 21)
    x = scene(n, seed) * (gain_step(n) if steps else np.float32(1))
    rows = oracle.rows_of(x, FFT)
    s = oracle.Settings(FFT, ROWS, 1e-6)
    blocks = run(x, false_rate=1e-6)
    assert sum(block[3].size for block in blocks) == len(rows)
    assert [block[0] for block in blocks] == [0, ROWS, 2 * ROWS, 3 * ROWS]
    for first, floor, mean, row_power, pieces, bad in blocks:
        these = rows[first : first + row_power.size]
        expected = oracle.floor_of(these, s)
        np.testing.assert_allclose(floor, expected, rtol=oracle.FLOOR_REL)
        np.testing.assert_allclose(row_power, (these / expected).sum(1), rtol=oracle.FLOOR_REL)
        assert bad == 0
        these = oracle.follow_gain(these, expected)
        np.testing.assert_allclose(mean, these.mean(0), rtol=oracle.FLOOR_REL)
        these[:, [0, 1, -2, -1]] = expected[[0, 1, -2, -1]]
        mask = oracle.separated(these, expected, oracle.mask_of(these, expected, s))
        wanted = sorted(oracle.pieces_of(these, mask), key=lambda p: (p.row_first, p.bin_low, p.n_cells))
        got = sorted(pieces, key=lambda p: (p[0], p[2], p[4]))
        assert [(p.row_first, p.row_stop, p.bin_low, p.bin_stop, p.n_cells) for p in wanted] == [p[:5] for p in got]
        for p, q in zip(wanted, got):
            np.testing.assert_allclose(q[5], p.spectrum, rtol=oracle.FLOOR_REL)
            np.testing.assert_array_equal(q[6], p.row_low)
            np.testing.assert_array_equal(q[7], p.row_stop_bin)
        assert len(got) > 0


@pytest.mark.parametrize("shape", ["white", "slope", "rolloff"])
def test_noise_alarms_no_more_often_than_stated(shape: str) -> None:
    """At 1e-4 per cell there are some; each of four statistics has its own, and a piece has several cells."""
    x = coloured(1 << 20, 5, shape)
    cells = x.size
    alarms = sum(len(block[4]) for block in run(x, false_rate=1e-4, grow_rate=1e-2))
    assert alarms <= 4 * 1e-4 * cells
    if shape == "white":
        assert alarms >= 0.02 * 1e-4 * cells  # and the thresholds are not simply out of reach
    assert sum(len(block[4]) for block in run(x)) == 0


@pytest.mark.parametrize("gain_db", [-80, 0, 60])
def test_the_floor_follows_the_noise(gain_db: float) -> None:
    x = coloured(FFT * (ROWS + 1), 3, "slope") * np.float32(10 ** (gain_db / 20))
    floor = 10 * np.log10(run(x)[0][1] * FFT / 2) - gain_db
    expected = 12 * (np.arange(FFT) / FFT - 0.5)
    assert np.abs(floor - expected)[FFT // 16 : -FFT // 16].max() < 0.7
    assert np.abs((floor - expected).mean()) < 0.3


def test_a_wide_signal_with_sharp_edges_leaves_the_floor() -> None:
    """Three quarters of the band, all of the time: too wide for the opening, but it ends in steps."""
    n = FFT * (ROWS + 1)
    f = np.fft.fftfreq(n)
    wide = np.fft.ifft(np.where(np.abs(f) < 0.375, np.fft.fft(noise(n, 1)), 0)) * 4
    block = run(noise(n) + wide.astype(np.complex64))[0]
    assert np.abs(10 * np.log10(block[1] * FFT / 2)).max() < 1.5
    (largest,) = [p for p in block[4] if p[4] > 1000]
    assert abs(largest[2] - FFT * 0.125) < 4 and abs(largest[3] - FFT * 0.875) < 4


def test_a_sloping_passband_is_nothing() -> None:
    assert run(coloured(1 << 19, 7, "rolloff"))[0][4] == []


@given(chunks=st.lists(st.integers(0, 9000), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_chunking_gives_the_same_bits(chunks: list[int]) -> None:
    x = scene(FFT * (ROWS + 30))
    x[[77, 5000]] = np.nan
    detector = BandDetector(FFT, ROWS)
    bounds = np.cumsum(chunks)
    cut = [block for piece in np.split(x, bounds[bounds < x.size]) for block in detector.push(piece)]
    cut.append(detector.flush())
    whole = run(x)
    assert len(cut) == len(whole)
    for a, b in zip(cut, whole):
        assert (a[0], a[5]) == (b[0], b[5])
        assert all(a[i].tobytes() == b[i].tobytes() for i in (1, 2, 3))
        assert [p[:5] for p in a[4]] == [p[:5] for p in b[4]]
        assert all(p[5].tobytes() == q[5].tobytes() for p, q in zip(a[4], b[4]))
    assert sum(block[5] for block in cut) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [({"fft_size": 300}, "fft_size"), ({"block_rows": 4}, "block_rows"), ({"opening": 2.0}, "opening")],
)
def test_the_kernel_names_the_setting_that_is_wrong(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BandDetector(**{"fft_size": FFT, **change})
