# SPDX-License-Identifier: GPL-3.0-or-later
"""Channel estimators: least squares and LMMSE."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.covariance import Covariances
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError
from ..preprocess.pilot_grid import Grid, Observation, observe

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
        self._subcarriers = weigh(spec.frequencies[spec.pilot_subcarriers], spec.frequencies)
        lower, upper, part = weigh(np.array(spec.pilot_symbols), np.arange(spec.symbols))
        rows = np.eye(len(spec.pilot_symbols))
        weights = (1 - part)[:, None] * rows[lower] + part[:, None] * rows[upper]
        self._symbols = weights.astype(np.complex64)
        part = self._subcarriers[2]
        self._noise_gain = float((weights**2).sum(axis=1).mean() * np.mean((1 - part) ** 2 + part**2))

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`."""
        ls = (observation or observe(grids, self.spec)).ls
        if self.spec.pilot_step > 1:
            lower, upper, part = self._subcarriers
            below = ls[..., lower]
            ls = below + part.astype(np.float32) * (ls[..., upper] - below)
        return self._symbols @ ls

    def error(self, snr_db: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean squared error that the noise causes, over the mean power of the channel; shape of snr_db."""
        return np.asarray(self._noise_gain * 10 ** (-np.asarray(snr_db, np.float64) / 10))


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
        self._power = np.multiply.outer(np.kron(space_power, time_power), power)  # [A' P', M]
        self._spread_power = np.multiply.outer(np.tile(_power(time_spread), len(space_power)), _power(spread))
        self._spread_power /= np.prod(spec.grid_shape)
        self._from_antennas = np.kron(space_modes, time_modes).conj().T.astype(np.complex64)  # [A' P', A P]
        self._to_antennas = np.kron(space_modes, np.eye(len(time_power))).astype(np.complex64)  # [A P', A' P']
        self._from_subcarriers = modes.conj().astype(np.complex64)  # [Fp, M]
        self._to_subcarriers = spread.T.astype(np.complex64)  # [M, F]
        self._to_symbols = time_spread.astype(np.complex64)  # [S, P']

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`."""
        seen = observation or observe(grids, self.spec)
        batch, antennas, symbols, subcarriers = seen.ls.shape
        values = seen.ls.reshape(-1, subcarriers) @ self._from_subcarriers
        values = self._from_antennas @ values.reshape(batch, antennas * symbols, -1)
        values *= self._gains(seen.noise_power / seen.signal_power)
        values = (self._to_antennas @ values).reshape(-1, values.shape[-1]) @ self._to_subcarriers
        return self._to_symbols @ values.reshape(batch, antennas, -1, self.spec.subcarriers)

    def error(self, snr_db: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean squared error over the mean power of the channel, for channels of these covariances; shape of snr_db.

        No lower than CUT, the share of the modes that are left out.
        """
        noise = 10 ** (-np.asarray(snr_db, np.float64)[..., None, None] / 10)
        known = np.sum(self._power / (self._power + noise) * self._power * self._spread_power, axis=(-2, -1))
        return np.maximum(1 - known, CUT)

    def _gains(self, noise: NDArray[np.float64]) -> NDArray[np.float32]:
        return (self._power / (self._power + noise[:, None, None])).astype(np.float32)


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


def _power(columns: NDArray[Any]) -> NDArray[np.float64]:
    return (np.abs(columns) ** 2).sum(axis=0)
