# SPDX-License-Identifier: GPL-3.0-or-later
"""Channel estimators: least squares and LMMSE."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..bundle.covariance import Covariances
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError
from ..preprocess.pilot_grid import Grid, Observation, observe
from ..preprocess.slot_layout import slot_layout

INTERPOLATIONS = {"linear": "ls", "nearest": "ls-nearest"}
"""Interpolation of least squares to the name of the method."""
CUT = 1e-7
"""Modes below this share of the strongest mode of an axis are left out: single precision does not hold them."""
LOWEST_SNR = 0.1
"""Lowest signal-to-noise power ratio by which the grid of layout "image" is scaled."""


class Estimator(Protocol):
    """Channel estimator, used by one thread at a time."""

    name: str
    """Name of the method in `ChannelEstimate.method`."""
    spec: OFDMSpec
    """Parameters of the slots."""
    native: _kernels.ChannelMethod
    """The method in the C++ library."""

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """Estimate the channels of slots.

        Parameters
        ----------
        grids : ndarray
            Received, complex64 [B, A, S, F].
        observation : Observation, optional
            Least squares, noise and signal power of these grids. Default: measured here.

        Returns
        -------
        ndarray
            Channels, complex64 [B, A, S, F], in the unit of the grids.

        Raises
        ------
        InputError
            Grids that `observe` refuses.
        """
        ...


class LeastSquares:
    """Least squares at the pilots, interpolated over subcarriers and then over symbols.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.
    interpolation : str
        "linear", extrapolated beyond the outermost pilots, or "nearest", the lower one of two equally near pilots.

    Raises
    ------
    ConfigurationError
        Another interpolation.
    """

    def __init__(self, spec: OFDMSpec, interpolation: str = "linear") -> None:
        if interpolation not in INTERPOLATIONS:
            known = " or ".join(INTERPOLATIONS)
            raise ConfigurationError("least squares", "interpolation", repr(interpolation), known)
        self.spec = spec
        self.name = INTERPOLATIONS[interpolation]
        weigh = _linear if interpolation == "linear" else _nearest
        lower, upper, part = weigh(spec.frequencies[spec.pilot_subcarriers], spec.frequencies)
        before, after, between = weigh(np.array(spec.pilot_symbols), np.arange(spec.symbols))
        rows = np.eye(len(spec.pilot_symbols))
        weights = (1 - between)[:, None] * rows[before] + between[:, None] * rows[after]
        noise_gain = float((weights**2).sum(axis=1).mean() * np.mean((1 - part) ** 2 + part**2))
        carriers = lower.tolist(), upper.tolist(), part.tolist()
        self.native: _kernels.ChannelMethod = _kernels.LeastSquares(
            slot_layout(spec), *carriers, weights, noise_gain, self.name
        )

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`."""
        return native_estimate(self.native, self.spec, observation or observe(grids, self.spec))

    def error(self, snr_db: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean squared error that the noise causes, over the mean power of the channel; shape of snr_db."""
        return np.asarray(self.native.error(np.asarray(snr_db, np.float64)))


class LMMSE:
    """Linear minimum mean squared error estimator for known covariances, computed in their eigenbasis.

    h = R_hp (R_pp + N / P I)^-1 y with the covariance R = space x time x frequency (Kronecker), R_pp its part between
    pilots, R_hp its part between all elements and pilots, y the least squares at the pilots, N the noise power and P
    the signal power of the observation. R_pp is a Kronecker product too: in its eigenvectors the inverse is one gain
    l / (l + N / P) for each mode of power l, and all products are with small matrices. Modes weaker than CUT times the
    strongest one of their axis are left out.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.
    covariances : Covariances
        Covariances of the channels.
    space : bool
        False takes the antennas as independent (method "lmmse-tf").

    Raises
    ------
    InputError
        Covariances of other sizes.
    """

    def __init__(self, spec: OFDMSpec, covariances: Covariances, space: bool = True) -> None:
        covariances.require(spec)
        self.spec = spec
        self.name = "lmmse" if space else "lmmse-tf"
        antennas = covariances.space if space else np.eye(spec.antennas)
        space_power, space_modes, _ = _modes(antennas, np.arange(spec.antennas))
        time_power, time_modes, time_spread = _modes(covariances.time, np.array(spec.pilot_symbols))
        power, modes, spread = _modes(covariances.frequency, spec.pilot_subcarriers)
        at_pilots = np.multiply.outer(np.kron(space_power, time_power), power)  # [A' P', M]
        on_grid = np.multiply.outer(np.tile(_power(time_spread), len(space_power)), _power(spread))
        self.native: _kernels.ChannelMethod = _kernels.LMMSE(
            slot_layout(spec),
            power=at_pilots,
            spread_power=on_grid / np.prod(spec.grid_shape),
            from_antennas=_single(np.kron(space_modes, time_modes).conj().T),  # [A' P', A P]
            to_antennas=_single(np.kron(space_modes, np.eye(len(time_power)))),  # [A P', A' P']
            from_subcarriers=_single(modes.conj()),  # [Fp, M]
            to_subcarriers=_single(spread.T),  # [M, F]
            to_symbols=_single(time_spread),  # [S, P']
            least_error=CUT,
            name=self.name,
        )

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`."""
        return native_estimate(self.native, self.spec, observation or observe(grids, self.spec))

    def error(self, snr_db: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean squared error over the mean power of the channel, for channels of these covariances; shape of snr_db.

        No lower than CUT, the share of the modes that are left out.
        """
        return np.asarray(self.native.error(np.asarray(snr_db, np.float64)))


def native_estimate(method: _kernels.ChannelMethod, spec: OFDMSpec, seen: Observation) -> Grid:
    """Channels complex64 [B, A, S, F] by a method of the C++ library."""
    ls = np.ascontiguousarray(seen.ls, np.complex64)
    return method.estimate(slot_layout(spec), ls, seen.noise_power, seen.signal_power)


Taps = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def _linear(pilots: NDArray[Any], places: NDArray[Any]) -> Taps:
    """For each place the indices of two pilots, and the place's position from the first (0) to the second (1)."""
    if len(pilots) == 1:
        return _nearest(pilots, places)
    lower = np.clip(np.searchsorted(pilots, places, side="right") - 1, 0, len(pilots) - 2)
    return lower, lower + 1, (places - pilots[lower]) / (pilots[lower + 1] - pilots[lower])


def _nearest(pilots: NDArray[Any], places: NDArray[Any]) -> Taps:
    nearest = np.abs(np.subtract.outer(places, pilots)).argmin(axis=1)
    return nearest, nearest, np.zeros(len(places))


def _modes(covariance: NDArray[Any], pilots: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Eigenvalues [m] and eigenvectors [n, m] of the covariance between n pilots, and the values at all places of a
    mode of unit amplitude at the pilots, [all, m]; without the modes below CUT."""
    powers, vectors = np.linalg.eigh(covariance[np.ix_(pilots, pilots)])
    strong = powers > CUT * powers[-1]
    powers, vectors = powers[strong], vectors[:, strong]
    return powers, vectors, covariance[:, pilots] @ vectors / powers


def _single(matrix: NDArray[Any]) -> NDArray[np.complex64]:
    return np.ascontiguousarray(matrix, np.complex64)


def _power(columns: NDArray[Any]) -> NDArray[np.float64]:
    return (np.abs(columns) ** 2).sum(axis=0)
