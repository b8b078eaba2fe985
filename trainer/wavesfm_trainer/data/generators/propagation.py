# SPDX-License-Identifier: GPL-3.0-or-later
"""Propagation by geometry: wall reflections by the image method, point scatterers, and array responses.

All follows from positions, so that nearby positions have similar channels. Amplitudes are relative to 1 m of free
space. Polarisation and element patterns are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

LIGHT_M_PER_S = 299_792_458.0
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A box from (0, 0, 0) to `size_m` with point scatterers."""

    size_m: tuple[float, float, float]
    """Length, width and height in metres."""
    reflection: tuple[float, float, float, float, float, float]
    """Amplitude reflection coefficient of the walls x = 0, x = X, y = 0, y = Y, z = 0, z = Z; 0: no wall."""
    scatterers: Points
    """Positions [n, 3] in metres."""
    cross_m: NDArray[np.float64]
    """Scattering amplitude [n] in metres: sqrt(sigma / (4 pi)) of the bistatic radar equation."""


@dataclass(frozen=True)
class Paths:
    """P paths from one position: straight lines from apparent sources."""

    points: Points
    """Positions of the apparent sources [P, 3] in metres."""
    before_m: NDArray[np.float64]
    """Path length [P] before the apparent source in metres."""
    weight: NDArray[np.float64]
    """Amplitude [P], to be divided by the distance from the apparent source."""


def paths_from(scene: Scene, source: Points) -> Paths:
    """Paths from `source` [3] (metres): direct (first), one reflection on each wall, and one over each scatterer."""
    images, gains = [source], [1.0]
    for axis, far in product(range(3), (0, 1)):
        coefficient = scene.reflection[2 * axis + far]
        if coefficient:
            image = source.copy()
            image[axis] = 2 * far * scene.size_m[axis] - image[axis]
            images.append(image)
            gains.append(-coefficient)  # the field changes its sign at a wall denser than air
    to_scatterers = np.maximum(np.linalg.norm(scene.scatterers - source, axis=1), 0.3)
    return Paths(
        points=np.concatenate([np.array(images), scene.scatterers]),
        before_m=np.concatenate([np.zeros(len(images)), to_scatterers]),
        weight=np.concatenate([np.array(gains), scene.cross_m / to_scatterers]),
    )


def array_response(
    paths: Paths, antennas: Points, carrier_hz: float, offsets_hz: NDArray[np.float64], phase_from_m: float = 0.0
) -> NDArray[np.complex128]:
    """Channel frequency response of an antenna array.

    The carrier phase is exact for every antenna. Across the band the delay of the first antenna is used for all: half a
    wavelength of array is a hundredth of a turn there.

    Parameters
    ----------
    paths : from `paths_from`.
    antennas : positions [A, 3] in metres.
    carrier_hz : carrier frequency.
    offsets_hz : [K], frequencies relative to the carrier.
    phase_from_m : path length at which the carrier phase is 0.

    Returns
    -------
    complex128 [A, K].
    """
    last_m = np.linalg.norm(paths.points[:, None] - antennas, axis=2)  # [P, A]
    length_m = paths.before_m[:, None] + last_m
    turns = (length_m - phase_from_m) * (carrier_hz / LIGHT_M_PER_S)
    at_antennas = paths.weight[:, None] / np.maximum(last_m, 0.3) * np.exp(-2j * np.pi * turns)
    across_band = np.exp(-2j * np.pi / LIGHT_M_PER_S * length_m[:, :1] * offsets_hz)
    return at_antennas.T @ across_band


def line_array(centre: Points, facing_rad: float, count: int, carrier_hz: float) -> Points:
    """Positions [count, 3] of a horizontal linear array with half a wavelength between antennas.

    facing_rad : direction of its broadside.
    """
    along = np.array([-np.sin(facing_rad), np.cos(facing_rad), 0.0])
    places = (np.arange(count) - (count - 1) / 2) * (LIGHT_M_PER_S / carrier_hz / 2)
    return centre + places[:, None] * along
