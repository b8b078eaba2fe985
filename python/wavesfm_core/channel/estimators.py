# SPDX-License-Identifier: GPL-3.0-or-later
"""Grids in, channels out: least squares, the linear estimator of least mean squared error, and a bundle's model."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.covariance import Covariances
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError
from ..preprocess.pilot_grid import Grid, Observation, observe

INTERPOLATIONS = {"linear": "ls", "nearest": "ls-nearest"}
CUT = 1e-7  # of the strongest mode of an axis: weaker ones are left out, covariances in single precision hold none
LOWEST_SNR = 0.1  # below it the measured signal power scales no image any more


class Estimator(Protocol):
    """One way from grids to channels, used by one thread at a time; name: as `ChannelEstimate.method` has it."""

    name: str
    spec: OFDMSpec

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """Channels complex64 [B, A, S, F], in the units of the grids, of grids of that shape.

        observation: what `observe` says of them, or with the powers that are known; None: measured here. Raises
        InputError for what `observe` refuses.
        """
        ...


class LeastSquares:
    """Least squares at the pilots, interpolated over subcarriers and then over symbols.

    interpolation: "linear", beyond the outermost pilots along the line through the last two; or "nearest", the lower
    of two equally near. Raises ConfigurationError for another.
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
        """The noise's part of the mean squared error, over the mean power of the channel; same shape as snr_db."""
        return np.asarray(self._noise_gain * 10 ** (-np.asarray(snr_db, np.float64) / 10))


class LMMSE:
    """The linear estimator of least mean squared error for channels of given covariances, in their eigenbasis.

    h = R_hp (R_pp + N / P I)^-1 y with the covariance R = space x time x frequency (Kronecker), R_pp its part between
    pilots, R_hp its part between all elements and pilots, y the least squares at the pilots, N the noise power and P
    the signal power of the observation. R_pp is a Kronecker product too: in its eigenvectors the inverse is one gain
    l / (l + N / P) for each mode of power l, and the products are with small matrices. Modes weaker than CUT times the
    strongest one of their axis are left out.
    space: False takes the antennas as independent ("lmmse-tf"). Raises InputError for covariances of other sizes.
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
        """Mean squared error over the mean power of the channel, for channels of these covariances (its trace).

        Of the shape of snr_db, and no lower than CUT: of less the modes left out know nothing.
        """
        noise = 10 ** (-np.asarray(snr_db, np.float64)[..., None, None] / 10)
        known = np.sum(self._power / (self._power + noise) * self._power * self._spread_power, axis=(-2, -1))
        return np.maximum(1 - known, CUT)

    def _gains(self, noise: NDArray[np.float64]) -> NDArray[np.float32]:
        return (self._power / (self._power + noise[:, None, None])).astype(np.float32)


Taps = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


def _linear(pilots: NDArray[Any], places: NDArray[Any]) -> Taps:
    """For each place the two pilots on whose line it lies, and how far from the first to the second."""
    if len(pilots) == 1:
        return _nearest(pilots, places)
    lower = np.clip(np.searchsorted(pilots, places, side="right") - 1, 0, len(pilots) - 2)
    return lower, lower + 1, (places - pilots[lower]) / (pilots[lower + 1] - pilots[lower])


def _nearest(pilots: NDArray[Any], places: NDArray[Any]) -> Taps:
    nearest = np.abs(np.subtract.outer(places, pilots)).argmin(axis=1)
    return nearest, nearest, np.zeros(len(places))


def _modes(covariance: NDArray[Any], pilots: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of the covariance between the pilots: eigenvalues [m], eigenvectors [n, m]; and what a mode of unit amplitude at
    the pilots is everywhere, [all, m]; without the weakest modes (CUT)."""
    powers, vectors = np.linalg.eigh(covariance[np.ix_(pilots, pilots)])
    strong = powers > CUT * powers[-1]
    powers, vectors = powers[strong], vectors[:, strong]
    return powers, vectors, covariance[:, pilots] @ vectors / powers


def _power(columns: NDArray[Any]) -> NDArray[np.float64]:
    return (np.abs(columns) ** 2).sum(axis=0)
