# SPDX-License-Identifier: GPL-3.0-or-later
"""Least squares and LMMSE of core against Sionna's own, in double precision on Sionna's side.

Sionna's LMMSE filters one dimension after the other and takes what is left of the noise as white in between: that is
the joint estimator, which core's is, only where all dimensions but the last are trivial. Its one-dimensional estimator
is exact, though, and a grid laid out as one dimension with the Kronecker product of all covariances makes it joint.
"""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.preprocess.pilot_grid import at_pilots, observe

torch = pytest.importorskip("torch")
ofdm = pytest.importorskip("sionna.phy.ofdm", reason="sionna-no-rt is not installed")

TOLERANCE = 1e-4
SLOTS = 3


def numerology(antennas: int, symbols: tuple[int, ...], subcarriers: int, step: int, offset: int) -> OFDMSpec:
    count = len(symbols) * len(range(offset, subcarriers, step))
    digits = "".join(map(str, np.random.default_rng(3).integers(4, size=count)))
    return OFDMSpec(antennas, 14, subcarriers, 64, (4,) * 14, 30e3, symbols, digits, step, offset)


SPECS = {
    "all subcarriers": numerology(4, (2, 11), 12, 1, 0),
    "comb": numerology(4, (2, 11), 12, 2, 0),
    "comb with offset": numerology(2, (3, 7, 11), 13, 3, 1),
    "one pilot symbol": numerology(2, (3,), 12, 2, 1),
}


def correlation(n: int, of_neighbours: complex) -> np.ndarray:
    apart = np.subtract.outer(np.arange(n), np.arange(n))
    magnitude = np.abs(of_neighbours) ** np.abs(apart)
    return magnitude * np.exp(1j * np.angle(of_neighbours) * apart)


def received(spec: OFDMSpec) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.standard_normal((SLOTS, *spec.grid_shape, 2), np.float32).view(np.complex64)[..., 0]


def resource_grid(spec: OFDMSpec):
    mask = np.zeros((1, 1, spec.symbols, spec.subcarriers), bool)
    mask[0, 0, np.array(spec.pilot_symbols)[:, None], spec.pilot_subcarriers] = True
    pattern = ofdm.PilotPattern(mask, spec.pilots.reshape(1, 1, -1), precision="double")
    return ofdm.ResourceGrid(spec.symbols, spec.subcarriers, spec.spacing_hz, pilot_pattern=pattern, precision="double")


def complex_tensor(values: np.ndarray):
    return torch.tensor(values, dtype=torch.complex128)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("ours", "theirs"), [("nearest", "nn"), ("linear", "lin")])
def test_least_squares(spec, ours, theirs):
    grids = received(spec)
    estimator = ofdm.LSChannelEstimator(resource_grid(spec), interpolation_type=theirs, precision="double")
    expected, _ = estimator(complex_tensor(grids)[:, None], torch.tensor(0.1, dtype=torch.float64))
    found = LeastSquares(spec, interpolation=ours).estimate(grids)
    assert found.shape == grids.shape
    assert np.abs(found - expected[:, 0, :, 0, 0].numpy()).max() < TOLERANCE


def joint_lmmse(spec: OFDMSpec, covariance: np.ndarray, ls: np.ndarray, noise: float) -> np.ndarray:
    """Sionna's LMMSE of [B, A, S, F] from ls [B, A, P, Fp], all of it laid out as the subcarriers of one symbol."""
    antennas, symbols, subcarriers = ls.shape[1], spec.symbols, spec.subcarriers
    mask = np.zeros((antennas, symbols, subcarriers), bool)
    mask[:, np.array(spec.pilot_symbols)[:, None], spec.pilot_subcarriers] = True
    ones = np.ones((1, 1, int(mask.sum())), np.complex128)
    pattern = ofdm.PilotPattern(mask.reshape(1, 1, 1, -1), ones, precision="double")
    grid = ofdm.ResourceGrid(1, mask.size, spec.spacing_hz, pilot_pattern=pattern, precision="double")
    static = torch.ones((1, 1), dtype=torch.complex128)
    estimator = ofdm.LMMSEChannelEstimator(grid, static, complex_tensor(covariance), order="t-f", precision="double")
    flat = np.zeros((len(ls), 1, 1, 1, mask.size), np.complex128)
    flat[:, 0, 0, 0, mask.ravel()] = ls.reshape(len(ls), -1)
    estimate, _ = estimator(torch.as_tensor(flat), torch.tensor(noise, dtype=torch.float64))
    return estimate.numpy().reshape(len(ls), antennas, symbols, subcarriers)


@pytest.mark.parametrize("noise", [0.01, 3.0])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_joint_lmmse_in_time_and_frequency(spec, noise):
    covariances = Covariances(
        correlation(spec.antennas, 0.6j), correlation(14, 0.97 + 0.1j), correlation(spec.subcarriers, 0.9 - 0.2j)
    )
    grids = received(spec)
    known = observe(grids, spec, noise_power=noise, signal_power=1.0)
    found = LMMSE(spec, covariances, space=False).estimate(grids, known)
    covariance = np.kron(covariances.time, covariances.frequency)
    for antenna in range(spec.antennas):
        expected = joint_lmmse(spec, covariance, known.ls[:, antenna : antenna + 1], noise)
        assert np.abs(found[:, antenna] - expected[:, 0]).max() < TOLERANCE


@pytest.mark.parametrize("noise", [0.01, 3.0])
@pytest.mark.parametrize("name", ["comb", "one pilot symbol"])
def test_joint_lmmse_in_space_time_and_frequency(name, noise):
    spec = SPECS[name]
    covariances = Covariances(
        correlation(spec.antennas, 0.6j), correlation(14, 0.97 + 0.1j), correlation(spec.subcarriers, 0.9 - 0.2j)
    )
    grids = received(spec)
    known = observe(grids, spec, noise_power=noise, signal_power=1.0)
    found = LMMSE(spec, covariances, space=True).estimate(grids, known)
    covariance = np.kron(covariances.space, np.kron(covariances.time, covariances.frequency))
    assert np.abs(found - joint_lmmse(spec, covariance, known.ls, noise)).max() < TOLERANCE


def test_lmmse_scales_with_the_power_of_the_signal():
    spec = SPECS["comb"]
    covariances = Covariances(correlation(4, 0.6j), correlation(14, 0.97 + 0.1j), correlation(12, 0.9 - 0.2j))
    grids = 20 * received(spec)
    known = observe(grids, spec, noise_power=40.0, signal_power=400.0)
    covariance = 400 * np.kron(covariances.space, np.kron(covariances.time, covariances.frequency))
    found = LMMSE(spec, covariances, space=True).estimate(grids, known)
    assert np.abs(found - joint_lmmse(spec, covariance, known.ls, 40.0)).max() < 20 * TOLERANCE


STATIC, WHITE = 1.0, 0.0  # correlation of neighbours


@pytest.mark.parametrize(
    ("order", "name", "space", "time", "frequency"),
    [
        ("t-f", "all subcarriers", None, STATIC, 0.9 - 0.2j),
        ("t-f", "comb", None, STATIC, 0.9 - 0.2j),
        ("f-t", "comb", None, 0.9 + 0.1j, STATIC),
        ("f-t", "all subcarriers", None, 0.9 + 0.1j, WHITE),
        ("t-s-f", "comb", WHITE, STATIC, 0.9 - 0.2j),
        ("t-f-s", "comb", 0.6j, STATIC, STATIC),
        ("t-f-s", "all subcarriers", 0.6j, STATIC, WHITE),
    ],
)
def test_lmmse_dimension_after_dimension(order, name, space, time, frequency):
    spec, noise = SPECS[name], 0.3
    covariances = Covariances(
        correlation(spec.antennas, 0.6j if space is None else space),
        correlation(14, time),
        correlation(spec.subcarriers, frequency),
    )
    grids = received(spec)
    estimator = ofdm.LMMSEChannelEstimator(
        resource_grid(spec), complex_tensor(covariances.time), complex_tensor(covariances.frequency),
        None if space is None else complex_tensor(covariances.space), order=order, precision="double",
    )  # fmt: skip
    expected, _ = estimator(complex_tensor(grids)[:, None], torch.tensor(noise, dtype=torch.float64))
    known = observe(grids, spec, noise_power=noise, signal_power=1.0)
    found = LMMSE(spec, covariances, space=space is not None).estimate(grids, known)
    assert np.abs(found - expected[:, 0, :, 0, 0].numpy()).max() < TOLERANCE


def test_the_pilots_are_where_sionna_puts_them():
    spec = SPECS["comb with offset"]
    grid = resource_grid(spec)
    sent = np.zeros((spec.symbols, spec.subcarriers), np.complex64)
    sent[np.array(spec.pilot_symbols)[:, None], spec.pilot_subcarriers] = spec.pilots
    data = torch.zeros((1, 1, 1, grid.num_data_symbols), dtype=torch.complex128)
    assert np.abs(ofdm.ResourceGridMapper(grid, precision="double")(data)[0, 0, 0].numpy() - sent).max() < 1e-6
    assert np.array_equal(at_pilots(sent, spec), spec.pilots)
