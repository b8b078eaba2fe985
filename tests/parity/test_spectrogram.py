# SPDX-License-Identifier: GPL-3.0-or-later
"""The spectrogram kernel against the oracle over a grid of parameters, and its behaviour at the edges."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle
from wavesfm_core import _kernels
from wavesfm_core.bundle.spectrogram_spec import REFERENCES, WINDOWS, SpectrogramSpec
from wavesfm_core.preprocess.spectrogram import make_tiler

# Width and height differ so that a swapped axis shows.
SMALL = SpectrogramSpec(
    fft_size=64, hop_samples=64, frames_averaged=2, rows_per_tile=24, min_rows=3, height=20, width=28, std=0.5
)


def scene(n: int, seed: int = 0) -> np.ndarray:
    """Noise at -40 dB with two carriers, one of which sweeps: structure in both directions."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    noise = rng.normal(scale=0.01 / 2**0.5, size=(n, 2)).view(np.complex128).ravel()
    carriers = 0.3 * np.exp(2j * np.pi * 0.21 * t) + 0.1 * np.exp(-1j * np.pi * (0.1 + 0.3 * t / n) * t)
    return (noise + carriers).astype(np.complex64)


def agrees(made: tuple, x: np.ndarray, spec: SpectrogramSpec) -> None:
    data, _, n_samples, _, floor_db, peak_db, _, _ = made
    expected, expected_floor, expected_peak = oracle.tile(x[:n_samples], spec)
    assert data.dtype == np.float32 and data.shape == (1, spec.height, spec.width)
    np.testing.assert_allclose(data, expected, rtol=0, atol=oracle.TILE)
    assert floor_db == pytest.approx(expected_floor, abs=oracle.LEVELS_DB)
    assert peak_db == pytest.approx(expected_peak, abs=oracle.LEVELS_DB)


GRID = [
    dataclasses.replace(SMALL, fft_size=size, hop_samples=hop, window=window, frames_averaged=averaged)
    for (size, hop), window, averaged in itertools.product(
        [(8, 8), (30, 30), (64, 64), (64, 16), (100, 37), (486, 486), (1024, 512)], WINDOWS, [1, 3]
    )
]


@pytest.mark.parametrize("spec", GRID, ids=lambda s: f"{s.fft_size}-{s.hop_samples}-{s.window}-{s.frames_averaged}")
def test_full_tile_equals_the_oracle(spec: SpectrogramSpec) -> None:
    x = scene(spec.tile_samples)
    (made,) = make_tiler(spec).push(x)
    assert made[1:4] == (0, spec.tile_samples, False)
    agrees(made, x, spec)


@pytest.mark.parametrize("spec", GRID[::5], ids=lambda s: f"{s.fft_size}-{s.hop_samples}-{s.window}")
def test_rows_equal_the_oracles_before_any_resize(spec: SpectrogramSpec) -> None:
    """With as many cells as bins and rows the resize is the identity, and the picture is the rows in dB."""
    spec = dataclasses.replace(spec, height=spec.rows_per_tile, width=spec.fft_size, reference="full_scale")
    spec = dataclasses.replace(spec, low_db=-160.0, high_db=20.0, mean=0.0, std=1.0)
    x = scene(spec.tile_samples)
    got_db = make_tiler(spec).push(x)[0][0][0] * 180.0 - 160.0
    expected = oracle.rows_db(x, spec)
    heard = expected > expected.max() - 60
    assert heard.mean() > 0.5
    np.testing.assert_allclose(got_db[heard], expected[heard], rtol=0, atol=oracle.ROWS_DB)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(("height", "width"), [(224, 224), (1, 1), (7, 64), (24, 300)])
def test_sizes_and_references(reference: str, height: int, width: int) -> None:
    spec = dataclasses.replace(SMALL, reference=reference, height=height, width=width, low_db=-30.0, high_db=35.0)
    x = scene(spec.tile_samples)
    agrees(make_tiler(spec).push(x)[0], x, spec)


def test_the_default_geometry_and_a_large_fft() -> None:
    for spec in (SpectrogramSpec(), SpectrogramSpec(fft_size=65536, hop_samples=65536, rows_per_tile=4)):
        x = scene(spec.tile_samples)
        agrees(make_tiler(spec).push(x)[0], x, spec)


@pytest.mark.parametrize("n_frames", [6, 7, 8, 31, 46, 47])
def test_partial_tiles_equal_the_oracle(n_frames: int) -> None:
    """Complete rows and, where the count of frames is odd, a last row of one frame."""
    spec = dataclasses.replace(SMALL, hop_samples=40)
    n_samples = (n_frames - 1) * spec.hop_samples + spec.fft_size
    x = scene(n_samples + 39)  # 39 more are not a whole frame
    tiler = make_tiler(spec)
    assert tiler.push(x) == []
    assert tiler.pending_samples == x.size
    made = tiler.flush()
    assert made is not None and made[1:4] == (0, n_samples, True)
    agrees(made, x, spec)


def test_too_few_rows_give_no_tile_and_leave_no_trace() -> None:
    tiler = make_tiler(SMALL)
    tiler.push(100 * scene(SMALL.min_samples - 1))
    assert tiler.flush() is None
    assert tiler.pending_samples == 0
    x = scene(SMALL.tile_samples, seed=1)
    (made,) = tiler.push(x)
    assert made[1] == 0
    np.testing.assert_array_equal(made[0], make_tiler(SMALL).push(x)[0][0])


def test_min_samples_of_the_spec_is_the_kernels() -> None:
    for spec in (SMALL, dataclasses.replace(SMALL, hop_samples=13, min_rows=1), SpectrogramSpec()):
        tiler = make_tiler(spec)
        tiler.push(scene(spec.min_samples))
        assert tiler.flush()[2] == spec.min_samples


def test_successive_tiles_start_a_stride_apart() -> None:
    spec = dataclasses.replace(SMALL, hop_samples=24)
    x = scene(4 * spec.stride_samples)
    tiler = make_tiler(spec)
    tiles = tiler.push(x)
    assert [made[1] for made in tiles] == [0, spec.stride_samples, 2 * spec.stride_samples]
    assert tiler.pending_samples == x.size - 3 * spec.stride_samples
    for made in tiles:
        assert made[2] == spec.tile_samples
        agrees(made, x[made[1] :], spec)


def test_a_full_scale_tone_on_a_bin_is_0_db() -> None:
    spec = dataclasses.replace(SMALL, window="rectangular", reference="full_scale", width=64, height=24)
    spec = dataclasses.replace(spec, low_db=-100.0, high_db=100.0, mean=0.0, std=1.0)
    x = np.exp(2j * np.pi * 5 / 64 * np.arange(spec.tile_samples)).astype(np.complex64)
    made = make_tiler(spec).push(x)[0]
    assert made[5] == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(made[0][0, :, 32 + 5] * 200 - 100, 0.0, atol=1e-3)  # to the right of the middle


def test_the_median_reference_makes_gain_irrelevant() -> None:
    x = scene(SMALL.tile_samples)
    (quiet,), (loud,) = make_tiler(SMALL).push(x), make_tiler(SMALL).push(x * np.float32(64))
    np.testing.assert_allclose(quiet[0], loud[0], atol=oracle.TILE)
    assert loud[4] - quiet[4] == pytest.approx(20 * np.log10(64), abs=oracle.LEVELS_DB)


def test_a_burst_in_near_silence_stays_in_range() -> None:
    """The median is near silence, 100 dB below: the reference rises until the peak is just high_db above it."""
    x = scene(SMALL.tile_samples)
    x[SMALL.tile_samples // 3 :] *= np.float32(1e-5)
    (made,) = make_tiler(SMALL).push(x)
    assert made[5] > made[4] + SMALL.high_db
    agrees(made, x, SMALL)
    clipped = made[0] >= (1 - SMALL.mean) / SMALL.std
    assert clipped.mean() < 0.005


BAD = [complex(np.nan, 0), complex(0, np.nan), complex(np.inf, 1), complex(1, -np.inf), complex(3e38, 3e38)]


@pytest.mark.parametrize("hop", [64, 24])
def test_bad_samples_are_zero_and_counted_once_per_tile(hop: int) -> None:
    spec = dataclasses.replace(SMALL, hop_samples=hop)
    x = scene(spec.stride_samples + spec.tile_samples)
    positions = [0, 63, 64, 200, spec.stride_samples - 1, spec.stride_samples, spec.tile_samples - 1, x.size - 1]
    x[positions] = (BAD * 2)[: len(positions)]
    clean = x.copy()
    clean[positions] = 0
    tiles, expected = make_tiler(spec).push(x), make_tiler(spec).push(clean)
    assert len(tiles) == 2
    for made, zeroed in zip(tiles, expected):
        start, end = made[1], made[1] + made[2]
        assert made[6] == sum(start <= p < end for p in set(positions))
        assert zeroed[6] == 0
        np.testing.assert_array_equal(made[0], zeroed[0])


def test_bad_samples_of_a_partial_tile_are_counted() -> None:
    x = scene(5 * 128 + 64 + 10)
    x[[0, 639, 703, 704, 713]] = np.nan  # the last two belong to no whole frame
    tiler = make_tiler(SMALL)
    assert tiler.push(x) == []
    made = tiler.flush()
    assert made[2] == 704 and made[6] == 3


chunk_sizes = st.lists(st.integers(0, 5000), min_size=1, max_size=20)


@given(chunks=chunk_sizes, hop=st.sampled_from([64, 63, 17]), averaged=st.sampled_from([1, 3]), remove_dc=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_bits(chunks: list[int], hop: int, averaged: int, remove_dc: bool) -> None:
    spec = dataclasses.replace(SMALL, hop_samples=hop, frames_averaged=averaged, remove_dc=remove_dc)
    x = spans(scene(9_001), (300, 500), (3000, 4700))
    x[[77, 5_000]] = np.nan

    def run(pieces: list[np.ndarray]) -> list[tuple]:
        tiler = make_tiler(spec)
        tiles = [made for piece in pieces for made in tiler.push(piece)]
        last = tiler.flush()
        return tiles if last is None else [*tiles, last]

    bounds = np.cumsum(chunks)
    whole, cut = run([x]), run(np.split(x, bounds[bounds < x.size]))
    assert len(whole) == len(cut) > 0
    for a, b in zip(whole, cut):
        assert a[1:] == b[1:]
        assert a[0].tobytes() == b[0].tobytes()


def test_single_samples_and_odd_alignment_give_the_same_bits() -> None:
    x = scene(SMALL.tile_samples + 1)
    (whole,) = make_tiler(SMALL).push(x[1:])
    tiler = make_tiler(SMALL)
    tiles = [made for i in range(1, x.size) for made in tiler.push(x[i : i + 1])]
    assert len(tiles) == 1 and tiles[0][0].tobytes() == whole[0].tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fft_size": 63}, "fft_size: expected even"),
        ({"hop_samples": 0}, "hop_samples: expected 1 to fft_size"),
        ({"window": "kaiser"}, "window: expected hann, hamming, blackman or rectangular"),
        ({"min_rows": 25}, "min_rows: expected 1 to rows_per_tile"),
        ({"reference": "mean"}, "reference: expected median or full_scale"),
        ({"high_db": -20.0}, "high_db: expected more than low_db"),
        ({"std": 0.0}, "std: expected a positive number"),
        ({"floor_db": float("nan")}, "floor_db: expected a finite number"),
    ],
)
def test_the_kernel_names_the_setting_that_is_wrong(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.SpectrogramTiler(**{**dataclasses.asdict(SMALL), **change})


def test_the_kernel_takes_complex64_vectors_only() -> None:
    tiler = make_tiler(SMALL)
    with pytest.raises(TypeError):
        tiler.push(np.zeros(8, np.complex128))
    with pytest.raises(ValueError, match="found 2 dimensions, expected 1"):
        tiler.push(np.zeros((2, 8), np.complex64))
    assert tiler.pending_samples == 0


def spans(x: np.ndarray, *gaps: tuple[int, int], value: complex = 0) -> np.ndarray:
    x = x.copy()
    for first, stop in gaps:
        x[first:stop] = value
    return x


@pytest.mark.parametrize("value", [0, np.nan, complex(np.inf, 0)])
@pytest.mark.parametrize("hop", [64, 40])
@pytest.mark.parametrize("remove_dc", [False, True])
def test_short_gaps_are_left_out_of_the_rows(value: complex, hop: int, remove_dc: bool) -> None:
    spec = dataclasses.replace(SMALL, hop_samples=hop, remove_dc=remove_dc)
    x = spans(scene(2 * spec.tile_samples), (100, 150), (395, 700), (1000, 1030), value=value)
    tiler = make_tiler(spec)
    made = tiler.push(x)[0]
    assert made[1] == 0 and made[2] > spec.tile_samples and not made[3]
    agrees(made, x, spec)
    starts = oracle.received_frames(x[: made[2]], spec)
    heard = {i for start in starts for i in range(start, start + spec.fft_size)}
    assert made[7] == made[2] - len(heard) > 200
    assert made[6] == (0 if value == 0 else 385)


def test_a_long_gap_ends_the_tile_and_what_follows_is_another() -> None:
    x = spans(scene(3 * SMALL.tile_samples), (1000, 3000))
    tiler = make_tiler(SMALL)
    first, second = tiler.push(x)[:2]
    assert (first[1], first[2], first[3], first[7]) == (0, 960, True, 0)  # the frame with 40 samples is a gap
    assert (second[1], second[2], second[3]) == (3008, SMALL.tile_samples, False)
    agrees(first, x, SMALL)
    agrees(second, x[3008:], SMALL)
    assert tiler.counts == {"silent": 2048, "silent_cut": 2048, "discarded": 0, "nonfinite": 0}


def test_what_is_too_short_before_a_long_gap_is_counted() -> None:
    x = spans(scene(6000), (0, 1000), (1100, 4000))
    tiler = make_tiler(SMALL)
    (made,) = [*tiler.push(x), tiler.flush()]
    assert made is not None and made[1] == 4032
    assert tiler.counts["discarded"] == 64 and tiler.counts["silent_cut"] == 4032 - 64


def test_silence_gives_no_tile_and_is_counted() -> None:
    for value in (0, np.nan):
        tiler = make_tiler(SMALL)
        assert tiler.push(np.full(3 * SMALL.tile_samples, value, np.complex64)) == [] and tiler.flush() is None
        counts = tiler.counts
        assert counts["silent"] == counts["silent_cut"] == 3 * SMALL.tile_samples
        assert counts["nonfinite"] == (0 if value == 0 else 3 * SMALL.tile_samples)


def test_the_zeros_of_a_weak_rounded_signal_are_no_gap() -> None:
    """An eight-bit receiver at low gain: most samples are 0, and runs of zeros are part of the signal."""
    rng = np.random.default_rng(0)
    x = (
        np.round(rng.normal(scale=0.3, size=(SMALL.tile_samples, 2))).astype(np.float32).view(np.complex64).ravel()
        / 128
    )
    x[500:560] = 0
    assert np.mean(x == 0) > 0.7
    tiler = make_tiler(SMALL)
    (made,) = tiler.push(x)
    assert made[7] == 0 and tiler.counts["silent"] == 0


@pytest.mark.parametrize("spec", GRID[::3], ids=lambda s: f"{s.fft_size}-{s.hop_samples}-{s.window}")
@pytest.mark.parametrize("width", [28, 7, 300])
def test_the_mean_is_removed_as_by_the_oracle(spec: SpectrogramSpec, width: int) -> None:
    spec = dataclasses.replace(spec, remove_dc=True, width=width)
    x = scene(spec.tile_samples + 5) + np.complex64(0.2 - 0.1j)
    tiler = make_tiler(spec)
    (made,) = tiler.push(x)
    agrees(made, x, spec)
    part = x[: spec.min_samples + spec.hop_samples]
    tiler = make_tiler(spec)
    tiler.push(part)
    agrees(tiler.flush(), part, spec)


def test_a_line_at_0_hz_leaves_no_trace_once_the_mean_is_removed() -> None:
    spec = dataclasses.replace(SpectrogramSpec(), remove_dc=True)
    x = scene(spec.tile_samples)
    plain, line = (make_tiler(spec).push(each)[0] for each in (x, x + np.complex64(10 + 3j)))
    assert np.abs(plain[0] - line[0]).max() < 0.05  # standardised units: 0.4 dB, in the cells at 0 Hz
    assert np.abs(plain[0] - make_tiler(SpectrogramSpec()).push(x)[0][0]).max() < 2.0


def test_without_the_field_the_bytes_are_those_of_before() -> None:
    x = scene(SMALL.tile_samples)
    settings = dataclasses.asdict(SMALL)
    del settings["remove_dc"]
    assert _kernels.SpectrogramTiler(**settings).push(x)[0][0].tobytes() == make_tiler(SMALL).push(x)[0][0].tobytes()


@pytest.mark.parametrize("scale", [1e-14, 1e-8, 1e-5, 1e3, 1e9])
@pytest.mark.parametrize("remove_dc", [False, True])
def test_nothing_depends_on_scale(scale: float, remove_dc: bool) -> None:
    spec = dataclasses.replace(SMALL, remove_dc=remove_dc)
    x = scene(SMALL.tile_samples)
    (one,), (other,) = make_tiler(spec).push(x), make_tiler(spec).push(x * np.float32(scale))
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=oracle.TILE)
    assert other[4] - one[4] == pytest.approx(20 * np.log10(scale), abs=oracle.LEVELS_DB)


def test_version_info() -> None:
    info = _kernels.version_info()
    assert info["fftw"].startswith("fftw-3")
    assert info["instruction_set"] in ("baseline", "avx2", "avx512")
