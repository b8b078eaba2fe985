# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pilots of a slot say: least squares, noise, signal, and whether an estimate fits them."""

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

Grid = NDArray[np.complex64]

SNR_LIMITS_DB = (-40.0, 80.0)
POWER_LIMITS = (1e-30, 1e30)  # of the pilots: what lies outside is no signal that single precision can hold
PREFIX_MARGIN = 1 / 16  # of the prefix, on both sides: what a slot's start may be off, and the smear of filters
LEAKAGE = 1e-7  # of the signal's power, what a noise mode may hold of a path at any delay within the prefix
NOISE_MODES = 96  # as many dimensions are used, of more: their noise is averaged well enough
DELAYS = 256  # tried for the leakage


@dataclass(frozen=True, eq=False)
class Observation:
    """What the pilots of B slots say.

    ls: least squares at the pilots, complex64 [B, A, P, Fp].
    noise_power, signal_power: of one element of the grid, mean over the antennas, float64 [B], both positive.
    """

    ls: Grid
    noise_power: NDArray[np.float64]
    signal_power: NDArray[np.float64]

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
    """Least squares, noise and signal of slots complex64 [B, A, S, F].

    The noise is the mean power of the least squares in those modes that no delay within the prefix reaches (see
    `noise_modes`): unbiased for such channels. The signal is the mean power of the least squares less the noise.
    noise_power, signal_power: [B] or one number, where they are known; None: measured. Raises InputError, naming the
    slot of the batch, for what `check_grid` refuses, and for powers that are not positive.
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
    ls = least_squares(grids, spec)
    total = mean_power(ls)
    low, high = (10 ** (limit / 10) for limit in SNR_LIMITS_DB)
    if noise_power is None:
        # a kernel, since BLAS takes all cores for such a product, and in a flowgraph they wait for each other
        noise = np.maximum(_kernels.projected_power(ls, noise_modes(spec)), total / high)
    else:
        noise = _known(noise_power, "noise_power", len(ls))
    signal = np.maximum(total - noise, noise * low) if signal_power is None else None
    return Observation(ls, noise, _known(signal_power, "signal_power", len(ls)) if signal is None else signal)


def check_grid(grid: NDArray[Any], spec: OFDMSpec, where: str) -> None:
    """Raise InputError, naming `where`, unless grid is complex64 [A, S, F] of this numerology, finite, with pilots.

    A pilot symbol without any signal makes a slot useless; an antenna without is that antenna's loss alone, and passes.
    """
    if not isinstance(grid, np.ndarray) or grid.dtype != np.complex64:
        raise InputError(where, "grid", getattr(grid, "dtype", type(grid).__name__), "a numpy array of complex64")
    if grid.shape != spec.grid_shape:
        expected = f"{spec.grid_shape}, the numerology's antennas, symbols and subcarriers"
        raise InputError(where, "grid", f"shape {grid.shape}", expected)
    # one kernel for all of it: a slot passes here with each thread of a flowgraph wanting the interpreter's lock
    bad, power, silent = _kernels.check_grid(np.ascontiguousarray(grid), spec.pilot_symbols, _pilot_subcarriers(spec))
    if bad:
        raise InputError(where, "grid", f"NaN or infinity in {bad} of {grid.size} elements", "finite numbers")
    if 0 < silent < len(spec.pilot_symbols):
        found = f"all zero in {silent} of {len(spec.pilot_symbols)} symbols"
        raise InputError(where, "pilots received", found, "a signal in each")
    if not POWER_LIMITS[0] <= power <= POWER_LIMITS[1]:
        pilots = at_pilots(grid, spec)
        found = f"all {pilots.size} zero" if not pilots.any() else f"a mean power of {power:.3g}"
        expected = f"a mean power of {POWER_LIMITS[0]:g} to {POWER_LIMITS[1]:g}"
        raise InputError(where, "pilots received", found, expected)


@lru_cache(maxsize=16)
def _pilot_subcarriers(spec: OFDMSpec) -> list[int]:
    return spec.pilot_subcarriers.tolist()


def at_pilots(grids: NDArray[Any], spec: OFDMSpec) -> NDArray[Any]:
    """[..., A, P, Fp] of [..., A, S, F]: the elements where the pilots are."""
    return grids[..., list(spec.pilot_symbols), spec.pilot_offset :: spec.pilot_step]


def least_squares(grids: Grid, spec: OFDMSpec) -> Grid:
    """What was received at the pilots over what was sent: complex64 [B, A, P, Fp] of [B, A, S, F]."""
    return np.ascontiguousarray(at_pilots(grids, spec) * spec.pilots.conj())  # they have unit power


def mean_power(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of |x|^2 of each of B: float64 [B] of complex64 [B, ...]; the same bits whatever B is."""
    parts = np.ascontiguousarray(values).reshape(len(values), -1).view(np.float32)
    return 2 * np.mean(np.square(parts, dtype=np.float64), axis=1)


@lru_cache(maxsize=16)
def noise_modes(spec: OFDMSpec) -> Grid:
    """Modes of the pilots' subcarriers that hold noise and nothing else: complex64 [Fp, modes], to multiply with.

    The weakest eigenvectors of the covariance of a flat delay profile over the shortest prefix and its margin
    (PREFIX_MARGIN): as many as hold, of a path at any delay there, at most LEAKAGE of its power on average. A
    numerology that leaves none (few pilots, or a prefix near the comb's ambiguity) gets its weakest one, and then the
    noise is measured too high. One that leaves more than NOISE_MODES gets so many dimensions of theirs at random: they
    are near-degenerate, so that eigenvectors in order would be those of delays, and others on another machine.
    """
    positions = spec.frequencies[spec.pilot_subcarriers].astype(np.float64)
    prefix = min(spec.prefix_samples) / spec.fft_size  # delays are in parts of a symbol, 1 / spacing_hz
    first, last = -PREFIX_MARGIN * prefix, (1 + PREFIX_MARGIN) * prefix
    middle = np.exp(-1j * np.pi * (first + last) * positions)
    # about its middle the profile is even and its covariance is real
    _, vectors = np.linalg.eigh(np.sinc(np.subtract.outer(positions, positions) * (last - first)))
    delays = np.linspace(-1, 1, DELAYS) * (last - first) / 2
    paths = np.exp(-2j * np.pi * np.outer(positions, delays))
    held = np.abs(vectors.T @ paths) ** 2  # eigh's order: the weakest first
    leaks = (np.cumsum(held, axis=0) / np.arange(1, len(positions) + 1)[:, None]).max(axis=1)
    vectors = vectors[:, : max(1, int(np.count_nonzero(leaks <= LEAKAGE)))]
    if vectors.shape[1] > NOISE_MODES:
        directions = np.random.default_rng(0).standard_normal((len(positions), NOISE_MODES))
        vectors, _ = np.linalg.qr(vectors @ (vectors.T @ directions))  # whatever basis the eigenvectors are
    modes = (middle[:, None] * vectors).conj().astype(np.complex64)
    modes.setflags(write=False)  # it is shared by all who ask for it
    return modes


def residuals(channels: Grid, observation: Observation, spec: OFDMSpec) -> NDArray[np.float64]:
    """Mean |y - h x|^2 at the pilots over the noise power, float64 [B], for estimates h [B, A, S, F].

    About 1 where h is right (a little below as far as h follows the noise: 0 for least squares, which goes through the
    pilots), and 1 + e where h is wrong by e times the noise power: from about 2 on least squares are better there.
    """
    return mean_power(observation.ls - at_pilots(channels, spec)) / observation.noise_power


def pilot_tile(grid: Grid, spec: PilotGridSpec, where: str) -> Tensor:
    """What `prepare` makes of a grid complex64 [A, S, F]: float32 spec.tile_shape.

    Layout "image": the pilots sent and received as the paper has them, and then the steps of the ImageSpec. Layout
    "least_squares": see `least_squares_tiles`. Raises InputError for what `check_grid` refuses.
    """
    numerology = spec.numerology
    check_grid(grid, numerology, where)
    if spec.image is None:
        return least_squares_tiles(least_squares(grid[None], numerology))[0][0]
    subcarriers = numerology.pilot_subcarriers.tolist()
    image = _kernels.pilot_image(grid, numerology.pilots, numerology.pilot_symbols, subcarriers)
    return image_tile(image, spec.image, where)


def measured_snr_db(grids: Sequence[Grid], spec: PilotGridSpec) -> NDArray[np.float64]:
    """Signal-to-noise ratio at the pilots of n grids complex64 [A, S, F], in dB, float64 [n]; raises InputError."""
    return observe(np.stack(grids), spec.numerology).snr_db


def least_squares_tiles(ls: Grid) -> tuple[Tensor, NDArray[np.float32]]:
    """Least squares complex64 [B, A, P, Fp] over the root of their mean power, and that root, float32 [B].

    Tiles are float32 [B, 2 P, A, Fp]: real part of the first pilot symbol, its imaginary part, real part of the second.
    """
    roots = np.sqrt(mean_power(ls)).astype(np.float32)
    scaled = ls.transpose(0, 2, 1, 3) / roots[:, None, None, None]
    tiles = np.stack([scaled.real, scaled.imag], axis=2)
    batch, symbols, _, antennas, subcarriers = tiles.shape
    return tiles.reshape(batch, 2 * symbols, antennas, subcarriers), roots


def _known(power: NDArray[Any] | float | None, field: str, count: int) -> NDArray[np.float64]:
    powers = np.broadcast_to(np.asarray(power, np.float64), (count,))
    if not (np.isfinite(powers).all() and (powers > 0).all()):
        raise InputError("observation", field, power, "positive numbers")
    return powers
