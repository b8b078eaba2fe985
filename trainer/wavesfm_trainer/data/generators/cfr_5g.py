# SPDX-License-Identifier: GPL-3.0-or-later
"""5G CFR of a parking garage: a vehicle sends reference symbols to a station with four channels.

Layout: one MATLAB 5 file per location with `cfr` complex64 (a, 4, b): a repeats of the reference symbol, four channels
of the pico cell, b subcarriers. The published set has 476 locations; its a, b and file names are unknown. Here they are
64 repeats, 272 subcarriers (one per resource block of 100 MHz at 3.5 GHz) and `location_<n>.mat`. The note has
positions.

Path loss, line of sight and shadowing are those of TR 38.901's indoor office, and the multipath is a clustered delay
line (see `clusters`) whose bearing, speed and level follow from the drive. The receiver's automatic gain control has
steps of GAIN_STEP_DB, as in real ones, so values are of one size wherever the vehicle is. During the repeats the
vehicle stands or creeps, and the clock drifts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from . import clusters
from .output import finish, for_each, rng_for, start
from .propagation import LIGHT_M_PER_S, Points

CARRIER_HZ, SPACING_HZ = 3.5e9, 360e3
CHANNELS, REPEATS, SUBCARRIERS = 4, 64, 272
OFFSETS_HZ = (np.arange(SUBCARRIERS) - (SUBCARRIERS - 1) / 2) * SPACING_HZ
REPEAT_S = 0.01
SIZE_M, ANTENNA_M = (70.0, 32.0, 3.0), 1.2
PICO_M = np.array([35.0, 16.0, 2.7])
BROADSIDE_RAD = np.pi / 2
AISLES_M = (6.0, 16.0, 26.0)
SENT_DBM, NOISE_DBM = 10.0, -87.0
"""Power of the vehicle; noise of the receiver over the band, with a noise figure of 7 dB."""
BEST_SNR_DB = 35.0
"""Of a receiver whose own errors are the limit."""
GAIN_STEP_DB, STEP_ERROR_DB = 3.0, 0.4
"""Step of the automatic gain control, and standard deviation of the error of a step."""
LEVEL = 400.0
"""Root mean square of the values, in steps of the converter, which are whole."""
SHADOWING_DB = {True: 3.0, False: 8.03}
DELAY_SPREAD_S, SPREAD_OF_IT = {True: 35e-9, False: 70e-9}, 1.6
"""Median delay spread with and without a line of sight, and the factor of its standard deviation."""
CHAINS_DB = np.array([0.0, -1.2, -0.6, -4.0])
"""Unequal receive chains."""
_EXAMPLES, _STEPS = 2, 3


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
    place = location(index, count)
    way = place - PICO_M
    distance_m = float(np.linalg.norm(way))
    clear = bool(rng.random() < clusters.indoor_line_of_sight(distance_m))
    spread_s = DELAY_SPREAD_S[clear] * SPREAD_OF_IT ** rng.standard_normal()
    speed_m_per_s = float(rng.choice([0.0, rng.uniform(0, 0.1)]))
    model = clusters.profile(str(rng.choice(["D", "E"] if clear else ["A", "B", "C"])))
    cfr = clusters.response(
        rng, model, spread_s, float(np.arctan2(way[1], way[0])), BROADSIDE_RAD, CHANNELS, OFFSETS_HZ,
        np.arange(REPEATS) * REPEAT_S, speed_m_per_s * CARRIER_HZ / LIGHT_M_PER_S, 0.0,
    )  # fmt: skip
    loss_db = clusters.indoor_path_loss_db(distance_m, CARRIER_HZ, clear) + rng.normal(0, SHADOWING_DB[clear])
    received_dbm = SENT_DBM - loss_db
    turns = rng.random() + np.cumsum(rng.normal(0, 0.01, REPEATS)) + rng.normal(0, 0.3) * np.arange(REPEATS) * REPEAT_S
    gain = 10 ** (rng.normal(0, 0.1, (REPEATS, 1)) / 20) * np.exp(2j * np.pi * turns)[:, None]
    cfr = cfr * gain[:, :, None] * 10 ** (CHAINS_DB / 20)[:, None]
    noise = np.sqrt(0.5 * 10 ** (-min(received_dbm - NOISE_DBM, BEST_SNR_DB) / 10))
    cfr += noise * (rng.standard_normal(cfr.shape) + 1j * rng.standard_normal(cfr.shape))
    cfr *= LEVEL * 10 ** (_after_gain_db(seed, received_dbm) / 20)
    return (np.rint(cfr.real) + 1j * np.rint(cfr.imag)).astype(np.complex64)


def _after_gain_db(seed: int, received_dbm: float) -> float:
    """Level behind the automatic gain control, in dB from the wanted one."""
    step = round(received_dbm / GAIN_STEP_DB)
    error_db = float(rng_for(seed, _STEPS, abs(step)).normal(0, STEP_ERROR_DB))
    return received_dbm - step * GAIN_STEP_DB + error_db


def _write(directory: Path, seed: int, index: int, count: int) -> tuple[str, dict]:
    name = f"location_{index + 1:03d}.mat"
    savemat(directory / name, {"cfr": response(seed, index, count)})
    return name, {"position_m": [round(float(x), 3) for x in location(index, count)]}


def generate(directory: Path, count: int, seed: int, jobs: int = 1) -> None:
    """Write `count` locations (published: 476), 0.6 MB each, in `jobs` processes.

    Raises
    ------
    ConfigurationError : a directory that is not empty, or Sionna's tables are missing.
    """
    clusters.profile("A")
    directory = start(directory, count)
    files = for_each(_write, ((directory, seed, i, count) for i in range(count)), jobs)
    settings = {
        "count": count, "size_m": list(SIZE_M), "station_m": PICO_M.tolist(), "carrier_hz": CARRIER_HZ,
        "model": "TR 38.901 InH path loss, CDL-A to E", "gain_step_db": GAIN_STEP_DB,
    }  # fmt: skip
    finish(directory, "cfr_5g", seed, settings, dict(files))
