# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimators by what they must be: exact on channels they can hold, and as far off as theory says elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_grids import (
    COMB,
    PAPER,
    SMALL,
    SNR_WEIGHT,
    covariances,
    drawn,
    make_grid_bundle,
    nmse_db,
    numerology,
    paths,
    received,
)
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.channel.model_estimator import ModelEstimator
from wavesfm_core.engines import open_engine
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.pilot_grid import at_pilots, observe, residuals

SPECS = {"paper": PAPER, "comb": COMB}


def sent(spec, channels: np.ndarray) -> np.ndarray:
    """Received without noise, and the data symbols 0, which no estimator may look at."""
    grids = np.zeros_like(channels)
    view = np.ix_(range(len(grids)), range(spec.antennas), spec.pilot_symbols, spec.pilot_subcarriers)
    grids[view] = at_pilots(channels, spec) * spec.pilots
    return grids


@pytest.mark.parametrize("name", SPECS)
def test_linear_interpolation_is_exact_on_planes(name: str) -> None:
    """a + b s + c f: between the pilots and beyond the outermost ones, over a null at DC too."""
    spec = SPECS[name]
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 2, spec.antennas, 1, 1)) + 1j * rng.normal(size=(3, 2, spec.antennas, 1, 1))
    channels = (a + b * np.arange(14)[:, None] + c * spec.frequencies).astype(np.complex64)
    assert nmse_db(LeastSquares(spec).estimate(sent(spec, channels)), channels) < -100


def test_nearest_takes_the_nearest_pilot() -> None:
    spec = numerology(1, 5, 6, 8, 2, (1, 3), step=3, offset=1)  # pilots at subcarriers 1 and 4
    channels = np.arange(30, dtype=np.complex64).reshape(1, 1, 5, 6)
    estimate = LeastSquares(spec, "nearest").estimate(sent(spec, channels))[0, 0].real
    row = np.array([1, 1, 1, 4, 4, 4])
    assert np.allclose(estimate, np.array([6, 6, 6, 18, 18])[:, None] + row, atol=1e-5)


def test_one_pilot_symbol_and_one_subcarrier_are_enough() -> None:
    spec = numerology(2, 3, 4, 8, 2, (1,), step=4, offset=2)
    channels = np.full((1, 2, 3, 4), 2 - 1j, np.complex64)
    assert np.allclose(LeastSquares(spec).estimate(sent(spec, channels)), 2 - 1j, atol=1e-6)


def test_another_interpolation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="interpolation: found 'cubic', expected linear or nearest"):
        LeastSquares(PAPER, "cubic")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("space", [True, False])
@pytest.mark.parametrize("snr_db", [-10.0, 5.0, 20.0])
def test_lmmse_is_as_far_off_as_its_trace(name: str, space: bool, snr_db: float) -> None:
    """Gaussian channels of the covariances; powers known; antennas independent where it takes them so."""
    spec = SPECS[name]
    covs = covariances(spec) if space else covariances(spec, space=0.0)
    estimator = LMMSE(spec, covs, space)
    channels = drawn(covs, 150, seed=int(snr_db) + 20)
    seen = observe(received(spec, channels, snr_db), spec, noise_power=10 ** (-snr_db / 10), signal_power=1.0)
    error = np.mean(np.abs(estimator.estimate(np.empty(0), seen) - channels) ** 2)
    assert 10 * np.log10(error) == pytest.approx(10 * np.log10(estimator.error(snr_db)), abs=0.1)


def test_lmmse_beats_what_knows_less() -> None:
    """Space-time-frequency, time-frequency, least squares: each step down costs more than 1 dB here."""
    covs = covariances(PAPER, space=0.95)
    channels = drawn(covs, 100)
    for snr_db in (-5.0, 10.0):
        seen = observe(received(PAPER, channels, snr_db), PAPER)
        ways = (LMMSE(PAPER, covs), LMMSE(PAPER, covs, space=False), LeastSquares(PAPER))
        errors = [nmse_db(way.estimate(np.empty(0), seen), channels) for way in ways]
        assert errors[0] + 1 < errors[1] < errors[2] - 1
        assert errors[0] == pytest.approx(10 * np.log10(ways[0].error(snr_db)), abs=0.5)


@pytest.mark.parametrize("gain", [1e-5, 1e4])
def test_lmmse_does_not_depend_on_the_receiver_gain(gain: float) -> None:
    grids = received(PAPER, paths(PAPER, 4), 10.0)
    estimator = LMMSE(PAPER, covariances(PAPER))
    apart = estimator.estimate(np.complex64(gain) * grids) / np.complex64(gain) - estimator.estimate(grids)
    assert np.abs(apart).max() < 1e-4


def test_lmmse_interpolates_what_its_covariances_hold() -> None:
    """Learnt from slots of few paths and tried on those: without noise it leaves the cut and the rounding."""
    channels = paths(COMB, 3)
    estimator = LMMSE(COMB, Covariances.learn([channels]), space=False)
    seen = observe(sent(COMB, channels), COMB, noise_power=1e-7, signal_power=1.0)
    assert nmse_db(estimator.estimate(np.empty(0), seen), channels) < -55


def test_residual_tells_right_covariances_from_wrong_ones() -> None:
    covs = covariances(PAPER, time=0.9999)
    channels = drawn(covs, 50)
    seen = observe(received(PAPER, channels, 20.0), PAPER)
    smooth = covariances(PAPER, time=0.9999, spread=0.001)
    fits = [residuals(LMMSE(PAPER, c).estimate(np.empty(0), seen), seen, PAPER) for c in (covs, smooth)]
    assert 0.6 < fits[0].mean() < 1.05
    assert fits[1].min() > 2


def test_covariances_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="covariances: space: found 2 x 2, expected 16 x 16"):
        LMMSE(PAPER, covariances(SMALL))


def test_estimates_are_the_same_alone_and_among_others() -> None:
    grids = received(PAPER, paths(PAPER, 9), 10.0)
    for estimator in (LMMSE(PAPER, covariances(PAPER)), LeastSquares(PAPER), LeastSquares(PAPER, "nearest")):
        together, alone = estimator.estimate(grids), estimator.estimate(grids[4:5])
        assert together.dtype == np.complex64 and together.flags.c_contiguous
        assert np.allclose(together[4], alone[0], atol=1e-5)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 1e3])
def test_a_model_of_least_squares_gives_least_squares(tmp_path, gain: float) -> None:
    """The tiny model is linear interpolation, and adds SNR_WEIGHT for each dB, relative to the root mean power."""
    bundle = Bundle.open(make_grid_bundle(tmp_path / "b"))
    grids = np.complex64(gain) * received(SMALL, paths(SMALL, 3), 10.0)
    seen = observe(grids, SMALL)
    root = np.sqrt(np.mean(np.abs(seen.ls) ** 2, axis=(1, 2, 3)))
    added = (root * SNR_WEIGHT * seen.snr_db)[:, None, None, None] * (1 + 1j)
    estimates = ModelEstimator(bundle, open_engine(bundle, "cpu", precision="f32")).estimate(grids)
    assert np.allclose(estimates / gain, (LeastSquares(SMALL).estimate(grids) + added) / gain, atol=1e-4)


def test_an_image_model_does_not_depend_on_the_receiver_gain(tmp_path) -> None:
    bundle = Bundle.open(make_grid_bundle(tmp_path / "b", layout="image"))
    estimator = ModelEstimator(bundle, open_engine(bundle, "cpu", precision="f32"))
    grids = received(SMALL, paths(SMALL, 3), 10.0)
    weak, strong = estimator.estimate(grids), estimator.estimate(np.complex64(1e3) * grids)
    assert np.abs(weak).max() > 0.1
    assert np.allclose(strong / 1e3, weak, atol=1e-4)


def test_a_model_for_something_else_is_refused(fake_bundle) -> None:
    bundle = Bundle.open(fake_bundle)
    with pytest.raises(
        ConfigurationError, match="preprocess: found a model for spectrograms, expected one for pilot g"
    ):
        ModelEstimator(bundle, open_engine(bundle, "cpu", precision="f32"))
