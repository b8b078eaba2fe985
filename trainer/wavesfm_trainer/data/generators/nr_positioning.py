# SPDX-License-Identifier: GPL-3.0-or-later
"""5G NR positioning: the channels between a user and four (outdoor) or five (indoor) base stations at known positions.

Layout: MATLAB 7.3 files `dataset_SNR{10,20,50}_outdoor.mat` (indoor: the published names with dates), with `features`
float64 (N, stations, 16, 193) and `labels/position` float64 (N, 3) in metres, N = count. All files have the same
positions in the same order. Each station has a horizontal array of 16 antennas and 193 subcarriers over 98 MHz at 3.5
GHz.

The channels are geometric. The models of TR 38.901 draw delays and angles independently for every user, so that a
position could not be learnt from them, and Sionna's ray tracer is not part of the package without ray tracing. Here all
users see the same walls, ground, scatterers and obstacles; delays, angles and gains follow from the position. A feature
is the real part of the channel with the phase of the direct path removed (as after carrier recovery; the delay remains,
stations are synchronous), with noise at the file's SNR. Users are at street height or on floors of buildings. How the
published features were computed is unknown.

The level is kept: all features of a data set have one scale. Uplink power control (TS 38.213, clause 7.1) makes up for
POWER_CONTROL of the path loss to the nearest station in steps of 1 dB, so that levels lie within a range that features
of 0 to 1 can show. Each station's automatic gain control has steps of GAIN_STEP_DB, whose errors are the station's own
and stay in the features, as in real receivers that take the gain out again.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError

from ..cache import SPARE_BYTES, whole_file
from .output import finish, rng_for, start
from .propagation import Points, Scene, array_response, line_array, paths_from

CARRIER_HZ, SPACING_HZ = 3.5e9, 510e3
ANTENNAS, SUBCARRIERS = 16, 193
OFFSETS_HZ = (np.arange(SUBCARRIERS) - SUBCARRIERS // 2) * SPACING_HZ
CENTRE, SPREAD = 0.46, 0.115  # mean and standard deviation of the published features
OBSTACLE_LOSS = 10 ** (-15 / 20)
POWER_CONTROL = 0.8  # alpha, the share of the path loss that is made up for
GAIN_STEP_DB, STEP_ERROR_DB = 3.0, 0.4
REFERENCE_USERS = 64  # whose mean level scales the features
FLOOR_M, USER_M = 3.0, 1.5
HEADER_BYTES, CHUNK_BYTES = 512, 256  # of MATLAB, in front of HDF5; of HDF5's index for one chunk, at most
_SCENE, _USERS, _NOISE, _STEPS, _REFERENCE = 1, 2, 3, 4, 5
FILES = {
    "outdoor": {s: f"dataset_SNR{s}_outdoor.mat" for s in (10, 20, 50)},
    "indoor": {
        10: "dataset_SNR10_indoor_21-11-17_03-07.mat",
        20: "dataset_SNR20_indoor_21-11-17_01-50.mat",
        50: "dataset_SNR50_indoor_21-11-16_23-11.mat",
    },
}
SIZES_M = {"outdoor": (80.0, 60.0, 40.0), "indoor": (60.0, 20.0, 4.0)}
STATIONS_M = {
    "outdoor": ((0.5, 0.5, 12), (79.5, 0.5, 18), (79.5, 59.5, 24), (0.5, 59.5, 30)),
    "indoor": ((0.5, 0.5, 3.5), (59.5, 0.5, 3.0), (59.5, 19.5, 3.5), (0.5, 19.5, 3.0), (30, 10, 3.8)),
}


@dataclass(frozen=True)
class Site:
    """A scene with its stations and obstacles."""

    scene: Scene
    """Walls and scatterers."""
    stations: tuple[Points, ...]
    """Antenna positions of each station, [16, 3] in metres."""
    obstacles: NDArray[np.float64]
    """Upright cylinders [n, 4]: x, y, radius, height in metres."""
    steps_db: NDArray[np.float64]
    """Errors [stations, 64] of the steps of each station's gain."""


def draw_site(seed: int, scene: str) -> Site:
    """The surroundings that all users of a data set share."""
    rng = rng_for(seed, _SCENE)
    size = np.array(SIZES_M[scene])
    count = 40
    scatterers = rng.uniform(0, 1, (count, 3)) * size * np.array([1, 1, 0.6])
    walls = (0.45, 0.35, 0.4, 0.3, 0.5, 0.0 if scene == "outdoor" else 0.4)
    obstacles = rng.uniform(0.15, 0.85, (6, 2)) * size[:2]
    shape = np.stack([rng.uniform(0.5, 2.5, 6), rng.uniform(0.3, 0.6, 6) * size[2]], axis=1)
    middle = size[:2] / 2
    stations = []
    for place in np.array(STATIONS_M[scene], float):
        facing = float(np.arctan2(*(middle - place[:2])[::-1]))
        stations.append(line_array(place, facing, ANTENNAS, CARRIER_HZ))
    box = Scene(SIZES_M[scene], walls, scatterers, rng.uniform(0.5, 2.5, count))
    steps_db = rng_for(seed, _STEPS).normal(0, STEP_ERROR_DB, (len(stations), 64))
    return Site(box, tuple(stations), np.concatenate([obstacles, shape], axis=1), steps_db)


def draw_position(rng: np.random.Generator, scene: str) -> Points:
    """Position of a user [3] in metres: outdoors six of ten are on the street, the others on floors of buildings."""
    x, y, height = SIZES_M[scene]
    floors = max(int((height - USER_M) / FLOOR_M), 0)
    floor = int(rng.integers(1, floors + 1)) if floors and scene == "outdoor" and rng.random() < 0.4 else 0
    place = rng.uniform(0.02, 0.98, 2) * np.array([x, y])
    return np.array([*place, USER_M + FLOOR_M * floor])


def _is_blocked(site: Site, user: Points, station: Points) -> bool:
    """Whether an obstacle crosses the line of sight."""
    way = station[:2] - user[:2]
    centre = site.obstacles[:, :2] - user[:2]
    share = np.clip(centre @ way / max(way @ way, 1e-9), 0, 1)
    beside_m = np.linalg.norm(centre - share[:, None] * way, axis=1)
    height_m = user[2] + share * (station[2] - user[2])
    return bool(np.any((beside_m < site.obstacles[:, 2]) & (height_m < site.obstacles[:, 3])))


def channel(site: Site, user: Points) -> NDArray[np.complex128]:
    """Frequency responses [stations, 16, 193] of a user at position `user` [3], relative to 1 m of free space."""
    paths = paths_from(site.scene, user)
    out = np.empty((len(site.stations), ANTENNAS, SUBCARRIERS), np.complex128)
    for index, antennas in enumerate(site.stations):
        direct_m = float(np.linalg.norm(user - antennas[0]))
        weight = paths.weight.copy()
        weight[0] *= OBSTACLE_LOSS if _is_blocked(site, user, antennas.mean(axis=0)) else 1.0
        seen = type(paths)(paths.points, paths.before_m, weight)
        out[index] = array_response(seen, antennas, CARRIER_HZ, OFFSETS_HZ, direct_m)
    return out


def received(site: Site, response: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """A channel [stations, 16, 193] as the stations report it: with power control and the errors of gain steps."""
    levels_db = 10 * np.log10(np.mean(np.abs(response) ** 2, axis=(1, 2)))
    sent_db = np.round(-POWER_CONTROL * levels_db.max())
    steps = np.round((levels_db + sent_db) / GAIN_STEP_DB).astype(int) % site.steps_db.shape[1]
    errors_db = site.steps_db[np.arange(len(steps)), steps]
    return response * 10 ** ((sent_db + errors_db) / 20)[:, None, None]


def reference_level(site: Site, seed: int, scene: str) -> float:
    """Root mean square of what is received from REFERENCE_USERS users, over all stations."""
    users = (draw_position(rng_for(seed, _REFERENCE, i), scene) for i in range(REFERENCE_USERS))
    powers = [np.mean(np.abs(received(site, channel(site, user))) ** 2) for user in users]
    return float(np.sqrt(np.mean(powers)))


def features(
    rng: np.random.Generator, response: NDArray[np.complex128], snr_db: float, level: float
) -> NDArray[np.float64]:
    """Features of a user: real part of the noisy channel, scaled by the level of the data set.

    Parameters
    ----------
    rng : source of the noise.
    response : complex [stations, 16, 193], as `received`.
    snr_db : of the mean power over all stations, in dB.
    level : see `reference_level`.

    Returns
    -------
    float64 [stations, 16, 193].
    """
    power = np.mean(np.abs(response) ** 2)
    noise = np.sqrt(power / 2 * 10 ** (-snr_db / 10)) * rng.standard_normal(response.shape)
    return CENTRE + SPREAD * (response.real + noise) / (level / np.sqrt(2))


def generate(directory: Path, count: int, seed: int, scene: str = "outdoor") -> None:
    """Write the three SNR files, about 99 kB per position and file.

    Parameters
    ----------
    directory : empty or new.
    count : number of positions (published: 3,876).
    seed : of positions, surroundings and noise.
    scene : "outdoor" or "indoor".

    Raises
    ------
    ConfigurationError : another scene, or a directory that is not empty.
    InputError : the disk has no room for all three files; checked first.
    """
    if scene not in FILES:
        raise ConfigurationError("nr_positioning", "scene", repr(scene), f"one of {', '.join(FILES)}")
    directory = start(directory, count)
    site = draw_site(seed, scene)
    level = reference_level(site, seed, scene)
    positions = np.array([draw_position(rng_for(seed, _USERS, i), scene) for i in range(count)])
    shape = (count, len(site.stations), ANTENNAS, SUBCARRIERS)
    n_bytes = HEADER_BYTES + 8 * math.prod(shape) + positions.nbytes + CHUNK_BYTES * count + SPARE_BYTES
    with ExitStack() as stack:
        partials = [
            stack.enter_context(whole_file(directory / name, n_bytes, HEADER_BYTES)) for name in FILES[scene].values()
        ]
        files = {
            snr_db: stack.enter_context(_create(partial, shape, positions))
            for snr_db, partial in zip(FILES[scene], partials)
        }
        for index, position in enumerate(positions):
            response = received(site, channel(site, position))
            for snr_db, file in files.items():
                file["features"][index] = features(rng_for(seed, _NOISE, index, snr_db), response, snr_db, level)
    for name in FILES[scene].values():
        _matlab_header(directory / name)
    settings = {
        "count": count, "scene": scene, "model": "geometry: images, scatterers, obstacles", "carrier_hz": CARRIER_HZ,
        "power_control": POWER_CONTROL, "gain_step_db": GAIN_STEP_DB,
        "spacing_hz": SPACING_HZ, "stations_m": [list(map(float, s)) for s in STATIONS_M[scene]],
    }  # fmt: skip
    finish(directory, "nr_positioning", seed, settings, {name: {"snr_db": s} for s, name in FILES[scene].items()})


def _create(path: Path, shape: tuple[int, ...], positions: Points) -> h5py.File:
    file = h5py.File(path, "r+")
    feature_set = file.create_dataset("features", shape, "f8", chunks=(1, *shape[1:]))
    labels = file.create_group("labels")
    for item in (feature_set, labels.create_dataset("position", data=positions)):
        item.attrs["MATLAB_class"] = np.bytes_("double")
    labels.attrs["MATLAB_class"] = np.bytes_("struct")
    return file


def _matlab_header(path: Path) -> None:
    """Write the 128 bytes that identify MATLAB 7.3 files into the user block of HDF5."""
    text = b"MATLAB 7.3 MAT-file, written by wavesfm-train data generate nr_positioning"
    with path.open("r+b") as file:
        file.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")
