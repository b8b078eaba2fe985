# SPDX-License-Identifier: GPL-3.0-or-later
"""5G CFR of a parking garage: a vehicle sends reference symbols to a station with four channels.

Layout: one MATLAB 5 file per location with `cfr` complex64 (a, 4, b): a repeats of the reference symbol, four channels
of the pico cell, b subcarriers. The published set has 476 locations; its a, b and file names are unknown. Here they are
64 repeats, 272 subcarriers (one per resource block of 100 MHz at 3.5 GHz) and `location_<n>.mat`. The note has
positions and headings. The channel is geometric (walls, floor, ceiling, pillars, parked cars); Sionna's models would
draw other surroundings for each stop (see nr_positioning). During the repeats the vehicle stands or creeps, and the
clock drifts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from .output import finish, for_each, rng_for, start
from .propagation import Points, Scene, array_response, line_array, paths_from

CARRIER_HZ, SPACING_HZ = 3.5e9, 360e3
CHANNELS, REPEATS, SUBCARRIERS = 4, 64, 272
OFFSETS_HZ = (np.arange(SUBCARRIERS) - (SUBCARRIERS - 1) / 2) * SPACING_HZ
REPEAT_S = 0.01
SIZE_M, ANTENNA_M = (70.0, 32.0, 3.0), 1.2
PICO_M = np.array([35.0, 16.0, 2.7])
AISLES_M = (6.0, 16.0, 26.0)
LEVEL, SNR_DB = 4_000.0, 30.0  # level at 1 m in steps of the receiver: tens to thousands in the garage
_SCENE, _EXAMPLES = 1, 2


def draw_garage(seed: int) -> Scene:
    """Concrete walls, two rows of pillars, and cars in some bays."""
    rng = rng_for(seed, _SCENE)
    pillars = np.array([(x, y, 1.5) for x in np.arange(5, 70, 7.5) for y in (11.0, 21.0)])
    cars = np.array([(x, y, 0.8) for x in np.arange(3, 68, 2.6) for y in (2.5, 12.5, 19.5, 29.5)])
    cars = cars[rng.random(len(cars)) < 0.6]
    cross_m = np.concatenate([rng.uniform(0.3, 1.0, len(pillars)), rng.uniform(0.2, 1.2, len(cars))])
    return Scene(SIZE_M, (0.5, 0.5, 0.45, 0.45, 0.4, 0.5), np.concatenate([pillars, cars]), cross_m)


def location(index: int, count: int) -> Points:
    """Position [3] in metres of stop `index` of `count`, along one aisle after the other, in alternating directions."""
    length_m = SIZE_M[0] - 6
    way_m = (index + 0.5) / count * length_m * len(AISLES_M)
    aisle = min(int(way_m / length_m), len(AISLES_M) - 1)
    along = way_m - aisle * length_m
    return np.array([3 + (along if aisle % 2 == 0 else length_m - along), AISLES_M[aisle], ANTENNA_M])


def response(seed: int, index: int, count: int) -> NDArray[np.complex64]:
    """`cfr` complex64 [64, 4, 272] at stop `index`."""
    rng = rng_for(seed, _EXAMPLES, index)
    garage = draw_garage(seed)
    antennas = line_array(PICO_M, np.pi / 2, CHANNELS, CARRIER_HZ)
    place = location(index, count) + np.array([*rng.normal(0, 0.05, 2), 0.0])
    creep_m_per_s = float(rng.choice([0.0, rng.uniform(0, 0.1)]))
    ends = [place, place + np.array([creep_m_per_s * REPEATS * REPEAT_S, 0, 0])]
    points = np.linspace(0, 1, 9 if creep_m_per_s else 1)[:, None] * (ends[1] - ends[0]) + ends[0]
    few = np.array([array_response(paths_from(garage, p), antennas, CARRIER_HZ, OFFSETS_HZ) for p in points])
    at = np.linspace(0, len(few) - 1, REPEATS)
    low = np.minimum(at.astype(int), max(len(few) - 2, 0))
    share = (at - low)[:, None, None]
    cfr = few[low] * (1 - share) + few[np.minimum(low + 1, len(few) - 1)] * share
    turns = rng.random() + np.cumsum(rng.normal(0, 0.01, REPEATS)) + rng.normal(0, 0.3) * np.arange(REPEATS) * REPEAT_S
    gain = 10 ** (rng.normal(0, 0.1, (REPEATS, 1)) / 20) * np.exp(2j * np.pi * turns)[:, None]
    cfr = LEVEL * gain[:, :, None] * cfr * 10 ** (np.array([0.0, -1.2, -0.6, -4.0]) / 20)[:, None]  # unequal chains
    noise = np.sqrt(np.mean(np.abs(cfr) ** 2) / 2 * 10 ** (-SNR_DB / 10))
    cfr += noise * (rng.standard_normal(cfr.shape) + 1j * rng.standard_normal(cfr.shape))
    return cfr.astype(np.complex64)


def _write(directory: Path, seed: int, index: int, count: int) -> tuple[str, dict]:
    name = f"location_{index + 1:03d}.mat"
    savemat(directory / name, {"cfr": response(seed, index, count)})
    return name, {"position_m": [round(float(x), 3) for x in location(index, count)]}


def generate(directory: Path, count: int, seed: int, jobs: int = 1) -> None:
    """Write `count` locations (published: 476), 0.6 MB each, in `jobs` processes.

    Raises
    ------
    ConfigurationError : a directory that is not empty.
    """
    directory = start(directory, count)
    files = for_each(_write, ((directory, seed, i, count) for i in range(count)), jobs)
    settings = {"count": count, "size_m": list(SIZE_M), "station_m": PICO_M.tolist(), "carrier_hz": CARRIER_HZ}
    finish(directory, "cfr_5g", seed, settings, dict(files))
