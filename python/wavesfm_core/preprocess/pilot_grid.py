# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements at the pilots of a slot: least squares, noise and signal power, and the residual of an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..bundle.ofdm_spec import OFDMSpec
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..errors import InputError
from ..types import Tensor
from .image import image_tile
from .slot_layout import slot_layout

Grid = NDArray[np.complex64]

SNR_LIMITS_DB = (-40.0, 80.0)  # of the measured one, in PilotObserver
PREFIX_MARGIN = 1 / 16  # of the prefix, on both sides: timing error of a slot's start and delay spread of filters
LEAKAGE = 1e-7  # largest part of a path's power, at any delay within the prefix, in a noise mode
NOISE_MODES = 96  # most dimensions used: enough to average the noise
DELAYS = 256  # delays at which the leakage is evaluated


@dataclass(frozen=True, eq=False)
class Observation:
    """Measurements at the pilots of B slots."""

    ls: Grid
    """Least squares at the pilots, complex64 [B, A, P, Fp]."""
    noise_power: NDArray[np.float64]
    """Of one element of the grid, mean over the antennas, float64 [B], positive."""
    signal_power: NDArray[np.float64]
    """Of one element of the grid, mean over the antennas, float64 [B], positive."""

    @property
    def snr_db(self) -> NDArray[np.float64]:
        """10 log10(signal_power / noise_power), float64 [B]; as measured within SNR_LIMITS_DB."""
        return 10 * np.log10(self.signal_power / self.noise_power)


def observe(
    grids: Grid,
    spec: OFDMSpec,
    noise_power: NDArray[Any] | float | None = None,
    signal_power: NDArray[Any] | float | None = None,
) -> Observation:
    """Least squares, noise power and signal power of slots.

    The noise power is the mean power of the least squares in the modes that no delay within the prefix reaches (see
    `noise_modes`); it is unbiased for channels within the prefix. The signal power is the mean power of the least
    squares less the noise power.

    Parameters
    ----------
    grids : ndarray of complex64 [B, A, S, F]
        Received slots.
    spec : OFDMSpec
        Numerology.
    noise_power, signal_power : ndarray [B], float or None
        Known powers; None: measured.

    Raises
    ------
    InputError
        For a slot that `check_grid` refuses (its index in the batch is named), and for powers that are not positive.
    """
    if not isinstance(grids, np.ndarray) or grids.ndim != 4 or not len(grids):
        found = f"shape {grids.shape}" if isinstance(grids, np.ndarray) else type(grids).__name__
        raise InputError("grids", "array", found, "slots, antennas, symbols and subcarriers")
    for i, grid in enumerate(grids):
        check_grid(grid, spec, f"slot {i}")
    return observe_checked(grids, spec, noise_power, signal_power)


def observe_checked(
    grids: Grid,
    spec: OFDMSpec,
    noise_power: NDArray[Any] | float | None = None,
    signal_power: NDArray[Any] | float | None = None,
) -> Observation:
    """`observe` of grids that `check_grid` has passed."""
    ls, measured, signal = observer(spec).observe(list(np.ascontiguousarray(grids)))
    noise = measured if noise_power is None else _known(noise_power, "noise_power", len(ls))
    if signal_power is not None:
        signal = _known(signal_power, "signal_power", len(ls))
    elif noise_power is not None:
        signal = np.maximum(mean_power(ls) - noise, noise * 10 ** (SNR_LIMITS_DB[0] / 10))
    return Observation(ls, noise, signal)


@lru_cache(maxsize=16)
def observer(spec: OFDMSpec) -> _kernels.PilotObserver:
    """The C++ observer of the pilots of a numerology."""
    return _kernels.PilotObserver(slot_layout(spec), noise_modes(spec))


def check_grid(grid: NDArray[Any], spec: OFDMSpec, where: str) -> None:
    """Check a received slot.

    Parameters
    ----------
    grid : ndarray of complex64 [A, S, F]
        Received slot; an antenna may be silent, a pilot symbol may not.
    spec : OFDMSpec
        Numerology.
    where : str
        Name of the slot in errors.

    Raises
    ------
    InputError
        For another type or shape, values that are not finite, or a pilot symbol that is zero on all antennas.
    """
    if not isinstance(grid, np.ndarray) or grid.dtype != np.complex64:
        raise InputError(where, "grid", getattr(grid, "dtype", type(grid).__name__), "a numpy array of complex64")
    if grid.shape != spec.grid_shape:
        expected = f"{spec.grid_shape}, the numerology's antennas, symbols and subcarriers"
        raise InputError(where, "grid", f"shape {grid.shape}", expected)
    refusal = observer(spec).refuse(np.ascontiguousarray(grid))
    if refusal is not None:
        raise InputError(where, *refusal)


def at_pilots(grids: NDArray[Any], spec: OFDMSpec) -> NDArray[Any]:
    """Elements of grids [..., A, S, F] at the pilots: [..., A, P, Fp]."""
    return grids[..., list(spec.pilot_symbols), spec.pilot_offset :: spec.pilot_step]


def mean_power(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of |x|^2 of each of B: float64 [B] of complex64 [B, ...]; the same bits whatever B is."""
    parts = np.ascontiguousarray(values).reshape(len(values), -1).view(np.float32)
    return 2 * np.mean(np.square(parts, dtype=np.float64), axis=1)


@lru_cache(maxsize=16)
def noise_modes(spec: OFDMSpec) -> Grid:
    """Modes of the pilots' subcarriers that hold noise only.

    The weakest eigenvectors of the covariance of a flat delay profile over the shortest prefix and its margin
    (PREFIX_MARGIN), as many as hold on average at most LEAKAGE of the power of a path at any delay there. A numerology
    without such modes (few pilots, or a prefix near the comb's ambiguity) gets its weakest one; the noise is then
    overestimated. Of more than NOISE_MODES, a random subspace is used: the eigenvectors are nearly degenerate, and
    their order differs between machines.

    Returns
    -------
    ndarray
        complex64 [Fp, modes], read-only.
    """
    positions = spec.frequencies[spec.pilot_subcarriers].astype(np.float64)
    prefix = min(spec.prefix_samples) / spec.fft_size  # delays are in parts of a symbol, 1 / spacing_hz
    first, last = -PREFIX_MARGIN * prefix, (1 + PREFIX_MARGIN) * prefix
    middle = np.exp(-1j * np.pi * (first + last) * positions)
    # about its middle the profile is even and its covariance is real
    _, vectors = np.linalg.eigh(np.sinc(np.subtract.outer(positions, positions) * (last - first)))
    delays = np.linspace(-1, 1, DELAYS) * (last - first) / 2
    paths = np.exp(-2j * np.pi * np.outer(positions, delays))
    held = np.abs(vectors.T @ paths) ** 2  # eigh sorts the weakest first
    leaks = (np.cumsum(held, axis=0) / np.arange(1, len(positions) + 1)[:, None]).max(axis=1)
    vectors = vectors[:, : max(1, int(np.count_nonzero(leaks <= LEAKAGE)))]
    if vectors.shape[1] > NOISE_MODES:
        directions = np.random.default_rng(0).standard_normal((len(positions), NOISE_MODES))
        vectors, _ = np.linalg.qr(vectors @ (vectors.T @ directions))  # independent of the basis that eigh chose
    modes = (middle[:, None] * vectors).conj().astype(np.complex64)
    modes.setflags(write=False)  # cached: all callers share it
    return modes


def residuals(channels: Grid, observation: Observation, spec: OFDMSpec) -> NDArray[np.float64]:
    """Mean |y - h x|^2 at the pilots over the noise power.

    About 1 for a right estimate, less as far as the estimate follows the noise (0 for least squares), and 1 + e for an
    error of e times the noise power. From about 2 on least squares are the better estimate.

    Parameters
    ----------
    channels : ndarray of complex64 [B, A, S, F]
        Estimates h.
    observation : Observation
        Of the same slots.
    spec : OFDMSpec
        Numerology.

    Returns
    -------
    ndarray
        float64 [B].
    """
    found = observer(spec).residuals(np.ascontiguousarray(channels), observation.ls, observation.noise_power)
    return np.array(found)


def pilot_tile(grid: Grid, spec: PilotGridSpec, where: str) -> Tensor:
    """Prepare one received grid.

    Layout "image": the sent and received pilots as in the paper, then the steps of the ImageSpec. Layout
    "least_squares": see `least_squares_tiles`.

    Parameters
    ----------
    grid : ndarray of complex64 [A, S, F]
        Received slot.
    spec : PilotGridSpec
        The preprocessing.
    where : str
        Name of the grid in errors.

    Returns
    -------
    ndarray
        float32 spec.tile_shape.

    Raises
    ------
    InputError
        For a grid that `check_grid` refuses.
    """
    numerology = spec.numerology
    check_grid(grid, numerology, where)
    if spec.image is None:
        return least_squares_tiles(observe_checked(grid[None], numerology).ls)[0][0]
    subcarriers = numerology.pilot_subcarriers.tolist()
    image = _kernels.pilot_image(grid, numerology.pilots, numerology.pilot_symbols, subcarriers)
    return image_tile(image, spec.image, where)


def measured_snr_db(grids: Sequence[Grid], spec: PilotGridSpec) -> NDArray[np.float64]:
    """Signal-to-noise ratio at the pilots of n grids complex64 [A, S, F], in dB, float64 [n]; raises InputError."""
    return observe(np.stack(grids), spec.numerology).snr_db


def least_squares_tiles(ls: Grid) -> tuple[Tensor, NDArray[np.float32]]:
    """Least squares of unit mean power as tiles, and the factor taken out.

    Parameters
    ----------
    ls : ndarray of complex64 [B, A, P, Fp]
        Least squares at the pilots.

    Returns
    -------
    tiles : ndarray
        float32 [B, 2 P, A, Fp]: real part of the first pilot symbol, its imaginary part, real part of the second, ...
    roots : ndarray
        float32 [B]: root of the mean power of each slot.
    """
    tiles, roots = _kernels.least_squares_tiles(np.ascontiguousarray(ls))
    return tiles, roots


def _known(power: NDArray[Any] | float | None, field: str, count: int) -> NDArray[np.float64]:
    powers = np.broadcast_to(np.asarray(power, np.float64), (count,))
    if not (np.isfinite(powers).all() and (powers > 0).all()):
        raise InputError("observation", field, power, "positive numbers")
    return powers
