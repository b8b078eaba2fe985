# SPDX-License-Identifier: GPL-3.0-or-later
"""NTU-Fi HumanID: fourteen persons walk beside a WiFi link, distinguished by gait and build.

Layout: `NTU-Fi-HumanID/{train_amp,test_amp}/{001..013,015}/{a,b,c}<n>.mat`, key `CSIamp` as in NTU-Fi HAR. The
published set does not define a, b and c; here they are three kinds of clothing, which change the body's reflection. As
published, test_amp is the larger part: 39 of a person's 60 files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.io import savemat

from .kinematics import draw_person, walk
from .output import finish, for_each, rng_for, start
from .wifi_csi import TIME_S, draw_room, logged_amplitudes, moving_response

PERSONS = tuple(f"{n:03d}" for n in (*range(1, 14), 15))
CONDITIONS = {"a": 1.0, "b": 1.25, "c": 0.85}  # of the reflection
N_ROOMS = 2
_PERSONS, _ROOMS, _EXAMPLES = 1, 2, 3


def amplitudes(seed: int, index: int) -> tuple[np.ndarray, str, str, int]:
    """Example `index`: CSIamp float64 [342, 2000], person, condition, room."""
    number, turn = index % len(PERSONS), index // len(PERSONS)
    condition, room_number = tuple(CONDITIONS)[turn % 3], turn % N_ROOMS
    room = draw_room(rng_for(seed, _ROOMS, room_number))
    person = draw_person(rng_for(seed, _PERSONS, number))
    dressed = replace(person, build=person.build * CONDITIONS[condition])
    rng = rng_for(seed, _EXAMPLES, index)
    place = room.place + rng.uniform(-0.1, 0.1, 2)  # all persons walk the same path across the link
    heading = float(np.deg2rad(90 + rng.uniform(-4, 4)))
    track = walk(rng, person, TIME_S)
    csi = logged_amplitudes(rng, room, moving_response(room, dressed, track, place, heading))
    return csi, PERSONS[number], condition, room_number


def _write(directory: Path, seed: int, index: int, compress: bool) -> tuple[str, dict]:
    csi, person, condition, room = amplitudes(seed, index)
    number = index // len(PERSONS) // 3
    split = "test_amp" if number * 13 % 20 < 13 else "train_amp"
    name = f"NTU-Fi-HumanID/{split}/{person}/{condition}{number}.mat"
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    savemat(directory / name, {"CSIamp": csi}, do_compression=compress)
    return name, {"person": person, "condition": condition, "room": room}


def generate(directory: Path, count: int, seed: int, jobs: int = 1, compress: bool = False) -> None:
    """Write `count` recordings (56 or more; published: 840), the persons in turn; 5.5 MB each unless compressed.

    Raises
    ------
    ConfigurationError : too few recordings, or a directory that is not empty.
    """
    directory = start(directory, count, 4 * len(PERSONS), "each person in both parts")
    files = for_each(_write, ((directory, seed, i, compress) for i in range(count)), jobs)
    finish(directory, "ntu_fi_humanid", seed, {"count": count, "rooms": N_ROOMS}, dict(files))
