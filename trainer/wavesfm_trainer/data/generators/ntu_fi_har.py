# SPDX-License-Identifier: GPL-3.0-or-later
"""NTU-Fi HAR: six activities beside a WiFi link, four seconds each.

Layout: `NTU-Fi_HAR/{train_amp,test_amp}/<activity>/<activity><n>.mat`, MATLAB 5, key `CSIamp` float64 (342, 2000):
three antennas of 114 subcarriers in dB, 500 packets per second. 22 % of each activity are test, as published (264 of
1,200). Unlike the published set, the note names person and room of every file, so that a split by person is possible.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from .kinematics import MOTIONS, draw_person
from .output import finish, for_each, rng_for, start
from .wifi_csi import TIME_S, draw_room, logged_amplitudes, moving_response

ACTIVITIES = ("run", "walk", "fall", "box", "circle", "clean")
N_PERSONS, N_ROOMS = 20, 3
_PERSONS, _ROOMS, _EXAMPLES = 1, 2, 3  # streams of random numbers


def amplitudes(
    seed: int, index: int, persons: int = N_PERSONS, rooms: int = N_ROOMS
) -> tuple[np.ndarray, str, int, int]:
    """Example `index`: CSIamp float64 [342, 2000], activity, person and room."""
    activity, turn = ACTIVITIES[index % len(ACTIVITIES)], index // len(ACTIVITIES)
    person_number, room_number = turn % persons, turn % rooms
    room = draw_room(rng_for(seed, _ROOMS, room_number))
    person = draw_person(rng_for(seed, _PERSONS, person_number))
    rng = rng_for(seed, _EXAMPLES, index)
    place = room.place + rng.uniform(-0.4, 0.4, 2)
    heading = np.deg2rad(rng.choice([60.0, 90.0, 120.0, 240.0, 270.0, 300.0]) + rng.uniform(-20, 20))
    track = MOTIONS[activity](rng, person, TIME_S)
    csi = logged_amplitudes(rng, room, moving_response(room, person, track, place, float(heading)))
    return csi, activity, person_number, room_number


def _write(directory: Path, seed: int, index: int, persons: int, rooms: int, compress: bool) -> tuple[str, dict]:
    csi, activity, person, room = amplitudes(seed, index, persons, rooms)
    turn = index // len(ACTIVITIES)
    split = "test_amp" if turn * 44 % 200 < 44 else "train_amp"
    name = f"NTU-Fi_HAR/{split}/{activity}/{activity}{turn}.mat"
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    savemat(directory / name, {"CSIamp": csi}, do_compression=compress)
    return name, {"activity": activity, "person": person, "room": room}


def generate(
    directory: Path, count: int, seed: int, jobs: int = 1, persons: int = N_PERSONS, rooms: int = N_ROOMS,
    compress: bool = False,
) -> None:  # fmt: skip
    """Write `count` recordings (12 or more), the activities in turn; 5.5 MB each unless compressed.

    Parameters
    ----------
    directory : empty or new.
    count : number of recordings.
    seed : of persons, rooms and motions.
    jobs : processes.
    persons, rooms : how many there are.
    compress : write compressed MATLAB files.

    Raises
    ------
    ConfigurationError : too few recordings, or a directory that is not empty.
    """
    directory = start(directory, count, 2 * len(ACTIVITIES), "one of each activity for training and one for the test")
    files = for_each(_write, ((directory, seed, i, persons, rooms, compress) for i in range(count)), jobs)
    finish(directory, "ntu_fi_har", seed, {"count": count, "persons": persons, "rooms": rooms}, dict(files))
