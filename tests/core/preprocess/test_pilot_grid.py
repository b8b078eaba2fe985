# SPDX-License-Identifier: GPL-3.0-or-later
"""What pilots say: least squares, noise and signal against what was put in, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_grids import COMB, PAPER, SMALL, gaussian, nmse_db, numerology, paths, received
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.pilot_grid import (
    at_pilots,
    least_squares_tiles,
    noise_modes,
    observe,
    residuals,
)
from wavesfm_core.preprocess.tile import prepare

SPECS = {"paper": PAPER, "comb": COMB}
IMAGE = ImageSpec(2, -10.0, 10.0, (0.1, -0.1), (0.5, 0.6), -1.0, 1.0, height=64, width=96)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("snr_db", [-10.0, 5.0, 20.0])
def test_least_squares_at_pilots_are_wrong_by_the_noise(name: str, snr_db: float) -> None:
    spec = SPECS[name]
    channels = paths(spec, 64)
    ls = observe(received(spec, channels, snr_db), spec).ls
    assert ls.shape == (64, spec.antennas, *spec.pilots.shape)
    power_db = 10 * np.log10(np.mean(np.abs(at_pilots(channels, spec)) ** 2))
    assert nmse_db(ls, at_pilots(channels, spec)) + power_db == pytest.approx(-snr_db, abs=0.1)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0, 20.0, 30.0])
def test_noise_is_measured_without_bias(name: str, snr_db: float) -> None:
    """Paths anywhere in the prefix, to its very end; 2 percent is five standard deviations of the mean here."""
    spec = SPECS[name]
    count = 96 if name == "paper" else 256
    seen = observe(received(spec, paths(spec, count, seed=10 + int(snr_db)), snr_db, seed=int(snr_db)), spec)
    assert seen.noise_power.mean() * 10 ** (snr_db / 10) == pytest.approx(1, abs=0.02)
    assert seen.noise_power.std() / seen.noise_power.mean() < 0.1


def test_noise_is_measured_at_the_end_of_the_prefix() -> None:
    """A single path at the last delay, the worst case, at 30 dB."""
    last = np.exp(-2j * np.pi * PAPER.frequencies * PAPER.prefix_samples[0] / PAPER.fft_size)
    channels = gaussian(np.random.default_rng(0), (96, 16, 1, 1)) * np.broadcast_to(last, (14, 48))
    seen = observe(received(PAPER, channels, 30.0), PAPER)
    assert seen.noise_power.mean() * 1e3 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_powers_follow_the_receiver_gain(scale: float) -> None:
    channels = paths(PAPER, 64)
    seen = observe(np.complex64(scale) * received(PAPER, channels, 10.0), PAPER)
    powers = np.mean(np.abs(channels) ** 2, axis=(1, 2, 3))
    assert np.allclose(seen.signal_power / scale**2, powers, rtol=0.1)
    assert seen.noise_power.mean() / scale**2 == pytest.approx(0.1, rel=0.02)
    assert np.allclose(seen.snr_db, 10 + 10 * np.log10(powers), atol=0.6)


def test_known_powers_are_taken() -> None:
    grids = received(PAPER, paths(PAPER, 3), 10.0)
    seen = observe(grids, PAPER, noise_power=0.1, signal_power=np.array([1.0, 2.0, 10.0]))
    assert seen.noise_power.tolist() == [0.1] * 3
    assert seen.snr_db == pytest.approx([10.0, 13.01, 20.0], abs=0.01)
    halfway = observe(grids, PAPER, noise_power=0.1)
    assert np.allclose(halfway.signal_power, np.mean(np.abs(halfway.ls) ** 2, axis=(1, 2, 3)) - 0.1, rtol=1e-4)
    with pytest.raises(InputError, match="noise_power: found 0"):
        observe(grids, PAPER, noise_power=0.0)


def test_snr_stays_within_its_limits() -> None:
    noise = gaussian(np.random.default_rng(3), (40, *PAPER.grid_shape)).astype(np.complex64)
    assert observe(noise, PAPER).snr_db.min() == pytest.approx(-40)
    flat = np.ones((1, *PAPER.grid_shape), np.complex64)
    flat[:, :, [2, 11]] = PAPER.pilots
    assert observe(flat, PAPER).snr_db[0] == pytest.approx(80, abs=1e-3)


def test_a_slot_is_measured_the_same_alone_and_among_others() -> None:
    grids = received(PAPER, paths(PAPER, 5), 10.0)
    together, alone = observe(grids, PAPER), observe(grids[3:4], PAPER)
    assert np.array_equal(together.ls[3], alone.ls[0])
    assert together.noise_power[3] == pytest.approx(alone.noise_power[0], rel=1e-5)
    tiles, roots = least_squares_tiles(together.ls)
    single, root = least_squares_tiles(alone.ls)
    assert np.array_equal(tiles[3], single[0]) and roots[3] == root[0]


def test_noise_modes_are_orthonormal_and_hold_no_path() -> None:
    for spec in (PAPER, COMB):
        modes = noise_modes(spec)
        assert modes.shape[1] >= len(spec.pilot_subcarriers) // 2
        assert np.allclose(modes.conj().T @ modes, np.eye(modes.shape[1]), atol=1e-5)
        for delay in np.linspace(0, spec.prefix_samples[0] / spec.fft_size, 17):
            path = np.exp(-2j * np.pi * spec.frequencies[spec.pilot_subcarriers] * delay)
            assert np.mean(np.abs(path @ modes) ** 2) < 2e-7
    beyond = np.exp(-2j * np.pi * PAPER.frequencies * 0.5)
    assert np.mean(np.abs(beyond @ noise_modes(PAPER)) ** 2) > 1


def test_what_is_later_than_the_prefix_counts_with_its_power_however_many_modes_there_are() -> None:
    """636 pilots leave 524 modes, of which 96 dimensions are used; in order they would hold some delays alone."""
    many = numerology(1, 14, 1272, 2048, 144, (2, 11), step=2)
    assert noise_modes(many).shape == (636, 96)
    spread = 636 / 524  # all of an echo that is far from the prefix is in those modes
    for delay in (250, 300, 400, 600, 700):  # in samples; the comb tells 1024 apart
        echo = np.exp(-2j * np.pi * many.frequencies[many.pilot_subcarriers] * delay / many.fft_size)
        assert np.mean(np.abs(echo @ noise_modes(many)) ** 2) == pytest.approx(spread, rel=0.25)


def test_a_numerology_with_few_pilots_measures_all_the_same() -> None:
    few = numerology(1, 2, 2, 8, 4, (0,))
    seen = observe(received(few, paths(few, 4), 0.0), few)
    assert noise_modes(few).shape == (2, 1)
    assert np.isfinite(seen.snr_db).all()


def test_residual_is_one_where_the_estimate_is_right() -> None:
    channels = paths(PAPER, 64)
    seen = observe(received(PAPER, channels, 15.0), PAPER)
    assert residuals(channels, seen, PAPER).mean() == pytest.approx(1, abs=0.02)
    worse = channels + gaussian(np.random.default_rng(5), channels.shape) * 10 ** (-15 / 20)
    assert residuals(worse.astype(np.complex64), seen, PAPER).mean() == pytest.approx(2, abs=0.04)


SILENT_SYMBOL = np.ones(PAPER.grid_shape, np.complex64)
SILENT_SYMBOL[:, 11] = 0
REFUSED = {
    "shape": (np.zeros((16, 14, 47), np.complex64), r"slot 7: grid: found shape \(16, 14, 47\), expected \(16, 14, 48"),
    "type": (np.zeros(PAPER.grid_shape, np.complex128), "grid: found complex128, expected a numpy array of complex64"),
    "list": ([[1j]], "grid: found list"),
    "pilot symbol": (SILENT_SYMBOL, "pilots received: found all zero in 1 of 2 symbols, expected a signal in each"),
    "pilots": (np.zeros(PAPER.grid_shape, np.complex64), "pilots received: found all 1536 zero, expected a mean power"),
    "huge": (np.full(PAPER.grid_shape, 1e18, np.complex64), "pilots received: found a mean power of 1e"),
    "tiny": (np.full(PAPER.grid_shape, 1e-17, np.complex64), "pilots received: found a mean power of 1e-34"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("layout", ["image", "least_squares"])
def test_bad_grids_are_named(case: str, layout: str) -> None:
    grid, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        prepare(grid, PilotGridSpec(PAPER, layout, IMAGE if layout == "image" else None), "slot 7")


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, -np.inf)])
def test_values_that_are_not_finite_are_counted(bad: complex) -> None:
    grids = received(PAPER, paths(PAPER, 2), 10.0)
    grids[1, 3, 7, 5] = grids[1, 15, 2, 47] = bad
    with pytest.raises(InputError, match="slot 1: grid: found NaN or infinity in 2 of 10752 elements"):
        observe(grids, PAPER)


def test_no_batch_is_named() -> None:
    with pytest.raises(InputError, match="grids: array: found shape"):
        observe(np.zeros(PAPER.grid_shape, np.complex64), PAPER)
    with pytest.raises(InputError, match="grids: array: found shape"):
        observe(np.zeros((0, *PAPER.grid_shape), np.complex64), PAPER)


def test_the_tile_of_least_squares_by_hand() -> None:
    grid = received(SMALL, paths(SMALL, 1), 20.0)[0]
    tile = prepare(grid, PilotGridSpec(SMALL, "least_squares"))
    assert tile.shape == (4, 2, 12) and tile.dtype == np.float32
    ls = grid[:, [1, 3]] / SMALL.pilots
    scaled = ls / np.sqrt(np.mean(np.abs(ls) ** 2))
    expected = np.stack([scaled[:, 0].real, scaled[:, 0].imag, scaled[:, 1].real, scaled[:, 1].imag])
    assert np.allclose(tile, expected, atol=1e-6)
    assert np.mean(tile**2) == pytest.approx(0.5, rel=1e-5)


def test_the_image_is_the_papers() -> None:
    """2 x 17 x 96, row 0 what was sent; then range, mean and standard deviation, and the resize."""
    grid = received(PAPER, paths(PAPER, 1), 20.0)[0]
    pilots = np.concatenate([PAPER.pilots[None], grid[:, [2, 11]]]).reshape(17, 96)
    array = np.stack([pilots.real, pilots.imag]).astype(np.float32)
    assert np.array_equal(prepare(grid, PilotGridSpec(PAPER, "image", IMAGE)), prepare(array, IMAGE))


def test_a_comb_is_read_where_it_is() -> None:
    spec = COMB
    grid = np.zeros((1, *spec.grid_shape), np.complex64)
    grid[:, :, [2, 11], 1::2] = 3 * spec.pilots
    seen = observe(grid, spec)
    assert np.allclose(seen.ls, 3)
    assert seen.ls.shape == (1, 4, 2, 60)
