# SPDX-License-Identifier: GPL-3.0-or-later
"""LMMSE in the Kronecker eigenbasis against the formula as it stands: one full covariance, one direct solve.

Tolerance 1e-3 of the root mean power: the modes left out are 1e-7 of the strongest (3e-4 in amplitude) on each axis,
and the fast one computes in single precision.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_grids import covariances, drawn, numerology, received
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.estimators import LMMSE
from wavesfm_core.preprocess.pilot_grid import observe

TOLERANCE = 1e-3
SPECS = {
    "full": numerology(3, 5, 12, 32, 4, (1, 3)),
    "comb": numerology(2, 6, 16, 32, 4, (0, 2, 5), 3, 1, True),
    "one symbol": numerology(4, 3, 8, 16, 2, (1,)),
}


def oracle(grids: np.ndarray, spec: OFDMSpec, covs: Covariances, noise: float, signal: float) -> np.ndarray:
    """R_hp (R_pp + N / P I)^-1 y with R = space x time x frequency, in double precision."""
    full = np.kron(covs.space, np.kron(covs.time, covs.frequency))
    elements = np.arange(len(full)).reshape(spec.grid_shape)
    pilots = elements[:, spec.pilot_symbols][:, :, spec.pilot_subcarriers].ravel()
    observed = grids[:, :, spec.pilot_symbols][:, :, :, spec.pilot_subcarriers] / spec.pilots
    inverse = np.linalg.inv(full[np.ix_(pilots, pilots)] + noise / signal * np.eye(len(pilots)))
    weights = full[:, pilots] @ inverse
    return (observed.reshape(len(grids), -1) @ weights.T).reshape(grids.shape)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("space", [True, False])
@pytest.mark.parametrize("snr_db", [-10.0, 10.0, 30.0])
def test_the_eigenbasis_gives_what_the_formula_gives(name: str, space: bool, snr_db: float) -> None:
    spec = SPECS[name]
    covs = covariances(spec, time=0.95, spread=0.03)
    grids = received(spec, drawn(covs, 3), snr_db)
    noise = 10 ** (-snr_db / 10)
    estimates = LMMSE(spec, covs, space).estimate(grids, observe(grids, spec, noise, 1.0))
    taken = covs if space else Covariances(np.eye(spec.antennas), covs.time, covs.frequency)
    assert np.abs(estimates - oracle(grids, spec, taken, noise, 1.0)).max() < TOLERANCE


def test_the_trace_is_the_formulas() -> None:
    spec = SPECS["comb"]
    covs = covariances(spec, time=0.95, spread=0.03)
    full = np.kron(covs.space, np.kron(covs.time, covs.frequency))
    elements = np.arange(len(full)).reshape(spec.grid_shape)
    pilots = elements[:, spec.pilot_symbols][:, :, spec.pilot_subcarriers].ravel()
    inverse = np.linalg.inv(full[np.ix_(pilots, pilots)] + 0.1 * np.eye(len(pilots)))
    posterior = full - full[:, pilots] @ inverse @ full[pilots]
    assert LMMSE(spec, covs).error(10.0) == pytest.approx(np.trace(posterior).real / len(full), rel=1e-5)
