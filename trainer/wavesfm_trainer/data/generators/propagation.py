# SPDX-License-Identifier: GPL-3.0-or-later
"""Propagation from geometry: reflections of a box by the image method, point scatterers, and the response of an array.

Everything follows from positions, so that what is near in space is alike in its channel. Amplitudes are relative to
1 at 1 m of free space; polarisation and the elements' patterns are left out.
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
    """A box from (0, 0, 0) to size_m, and small things in it.

    reflection: amplitude that is left after each of the walls x = 0, x = X, y = 0, y = Y, z = 0, z = Z (0: no wall).
    scatterers: [n, 3] positions in metres; cross_m: [n] amplitude that a scatterer sends on, in metres (the bistatic
        radar equation's sqrt(sigma / 4 pi)).
    """

    size_m: tuple[float, float, float]
    reflection: tuple[float, float, float, float, float, float]
    scatterers: Points
    cross_m: NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """P ways from one place into space: straight on from apparent points [P, 3], `before_m` [P] lying behind them.

    weight: [P] amplitude that is to be divided by the length of the way from the point (for images the whole way).
    """

    points: Points
    before_m: NDArray[np.float64]
    weight: NDArray[np.float64]


def paths_from(scene: Scene, source: Points) -> Paths:
    """Direct (first), singly reflected on each wall, and by way of each scatterer, from `source` [3] in metres."""
    images, gains = [source], [1.0]
    for axis, far in product(range(3), (0, 1)):
        coefficient = scene.reflection[2 * axis + far]
        if coefficient:
            image = source.copy()
            image[axis] = 2 * far * scene.size_m[axis] - image[axis]
            images.append(image)
            gains.append(-coefficient)  # the field turns over at a wall denser than air
    to_scatterers = np.maximum(np.linalg.norm(scene.scatterers - source, axis=1), 0.3)
    return Paths(
        points=np.concatenate([np.array(images), scene.scatterers]),
        before_m=np.concatenate([np.zeros(len(images)), to_scatterers]),
        weight=np.concatenate([np.array(gains), scene.cross_m / to_scatterers]),
    )


def array_response(
    paths: Paths, antennas: Points, carrier_hz: float, offsets_hz: NDArray[np.float64], phase_from_m: float = 0.0
) -> NDArray[np.complex128]:
    """Channel frequency response [A, K] at `antennas` [A, 3] and carrier_hz + offsets_hz [K].

    Phases are exact at the carrier for every antenna; across the band the delay is that to the first one (half a
    wavelength of array is a hundredth of a turn there). phase_from_m: length whose carrier phase counts as 0.
    """
    last_m = np.linalg.norm(paths.points[:, None] - antennas, axis=2)  # [P, A]
    length_m = paths.before_m[:, None] + last_m
    turns = (length_m - phase_from_m) * (carrier_hz / LIGHT_M_PER_S)
    at_antennas = paths.weight[:, None] / np.maximum(last_m, 0.3) * np.exp(-2j * np.pi * turns)
    across_band = np.exp(-2j * np.pi / LIGHT_M_PER_S * length_m[:, :1] * offsets_hz)
    return at_antennas.T @ across_band


def line_array(centre: Points, facing_rad: float, count: int, carrier_hz: float) -> Points:
    """Positions [count, 3] of a horizontal line of antennas half a wavelength apart, its broadside at facing_rad."""
    along = np.array([-np.sin(facing_rad), np.cos(facing_rad), 0.0])
    places = (np.arange(count) - (count - 1) / 2) * (LIGHT_M_PER_S / carrier_hz / 2)
    return centre + places[:, None] * along
