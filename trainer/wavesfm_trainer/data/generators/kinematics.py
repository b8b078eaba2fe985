# SPDX-License-Identifier: GPL-3.0-or-later
"""Human motion: positions of eleven body parts over time for six activities, with individual variation.

Speeds, cadences and limb swings have the magnitudes reported by gait and sports studies. Body parts are point
reflectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARTS = (
    "torso", "head", "hips", "left_elbow", "right_elbow", "left_hand", "right_hand",
    "left_knee", "right_knee", "left_foot", "right_foot",
)  # fmt: skip
# Share of a person's reflection, and the height of each part of someone 1 m tall who stands.
REFLECTS = np.array([1.0, 0.3, 0.6, 0.2, 0.2, 0.16, 0.16, 0.3, 0.3, 0.18, 0.18])
HEIGHTS = np.array([0.74, 0.94, 0.55, 0.62, 0.62, 0.47, 0.47, 0.28, 0.28, 0.04, 0.04])
SIDES = np.array([0, 0, 0, 0.13, -0.13, 0.14, -0.14, 0.06, -0.06, 0.06, -0.06])
ELBOWS, HANDS, KNEES, FEET = [3, 4], [5, 6], [7, 8], [9, 10]
OPPOSITE = np.array([[1.0], [-1.0]])  # left and right half a cycle apart

Track = NDArray[np.float64]  # [parts, T, 3]: forward, to the left and up, from the place where the person is


@dataclass(frozen=True)
class Person:
    """Properties of a person that are constant over recordings; 1.0 is an average adult."""

    height_m: float
    """Height in metres."""
    build: float
    """Factor of the reflected amplitude."""
    pace: float
    """Factor of all rhythms."""
    reach: float
    """Factor of all swings."""
    bounce: float
    """Factor of vertical movement."""
    sway: float
    """Factor of sideways movement."""
    lameness: float
    """Share by which the left side swings less."""
    stride: float
    """Factor of the stride's length at the same pace."""


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a person."""
    return Person(
        height_m=float(np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)),
        build=float(rng.uniform(0.75, 1.3)),
        pace=float(rng.uniform(0.82, 1.18)),
        reach=float(rng.uniform(0.75, 1.25)),
        bounce=float(rng.uniform(0.6, 1.5)),
        sway=float(rng.uniform(0.5, 1.6)),
        lameness=float(rng.uniform(0.0, 0.35)),
        stride=float(rng.uniform(0.85, 1.15)),
    )


def _standing(person: Person, n: int) -> Track:
    track = np.zeros((len(PARTS), n, 3))
    track[:, :, 1] = (SIDES * person.height_m)[:, None]
    track[:, :, 2] = (HEIGHTS * person.height_m)[:, None]
    return track


def _breathe(rng: np.random.Generator, track: Track, time_s: NDArray) -> Track:
    """Add the movement of breathing and small involuntary movements."""
    track[0, :, 0] += 0.005 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.35) * time_s + rng.random()))
    track[:3] += 0.01 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * time_s[:, None] + rng.random(3)))
    return track


def _to_and_fro(distance_m: NDArray, span_m: float) -> NDArray:
    """A path of length `distance_m` folded into +-span_m / 2, with turns of about one step."""
    turns = distance_m / (2 * span_m)
    return span_m / np.pi * np.arcsin(0.985 * np.sin(2 * np.pi * turns))


def _gait(
    rng: np.random.Generator, person: Person, time_s: NDArray, speed: float, stride_hz: float, swing_m: float
) -> Track:
    """Steps at `stride_hz` (two per stride) while going to and fro at `speed` m/s; feet swing by +-swing_m."""
    track = _standing(person, len(time_s))
    side = np.array([[1 - person.lameness], [1.0]]) * OPPOSITE
    phase = 2 * np.pi * (stride_hz * (time_s + 0.03 / stride_hz * np.sin(2 * np.pi * 0.4 * time_s)) + rng.random())
    legs, arms = side * np.sin(phase), -side * np.sin(phase)
    track[FEET, :, 0] += swing_m * legs
    track[FEET, :, 2] += 0.35 * swing_m * np.maximum(OPPOSITE * np.cos(phase), 0)
    track[KNEES, :, 0] += 0.5 * swing_m * legs
    track[HANDS, :, 0] += 0.7 * person.reach * swing_m * arms
    track[HANDS, :, 2] += 0.25 * person.reach * swing_m * np.abs(arms)
    track[ELBOWS, :, 0] += 0.35 * person.reach * swing_m * arms
    track[:, :, 2] += 0.06 * swing_m * person.bounce * np.cos(2 * phase)
    track[:3, :, 1] += 0.03 * person.sway * np.sin(phase)
    track[:, :, 0] += _to_and_fro(speed * time_s + rng.uniform(0, 6), 3.0)
    return _breathe(rng, track, time_s)


def walk(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Walk at about 1.2 m/s and 0.9 strides per second."""
    stride_hz = 0.92 * person.pace * rng.normal(1, 0.03)
    return _gait(rng, person, time_s, 1.3 * person.stride * stride_hz, stride_hz, 0.32 * person.stride)


def run(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Run at about 2.7 m/s and 1.4 strides per second."""
    stride_hz = 1.4 * person.pace * rng.normal(1, 0.04)
    track = _gait(rng, person, time_s, 1.95 * person.stride * stride_hz, stride_hz, 0.5 * person.stride)
    track[HANDS, :, 2] += 0.12 * person.height_m  # forearms held up
    return track


def fall(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Some slow steps, a fall within about half a second, then lying still."""
    track = _gait(rng, person, time_s, 0.35 * person.pace, 0.7 * person.pace, 0.12)
    start_s, takes_s = rng.uniform(0.7, 2.2), rng.uniform(0.45, 0.8)
    down = np.clip((time_s - start_s) / takes_s, 0, 1)
    still = np.interp(time_s, [start_s, start_s + takes_s], [1.0, 0.0])
    hold = track[:, int(np.searchsorted(time_s, start_s))][:, None]
    track = hold + (track - hold) * still[:, None]
    angle = np.deg2rad(86) * down**2  # gravity: slowly at first
    heights = track[:, :, 2].copy()
    way = rng.choice([-1.0, 1.0], p=[0.3, 0.7])
    track[:, :, 0] += way * heights * np.sin(angle)
    track[:, :, 2] = heights * np.cos(angle) + 0.1 * np.sin(angle)
    track[HANDS, :, 0] += way * 0.35 * person.reach * np.sin(np.pi * down) ** 2  # reaching for the floor
    return _breathe(rng, track, time_s)


def box(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Punch with both hands in turn while the feet hardly move."""
    track = _standing(person, len(time_s))
    rate_hz = 1.25 * person.pace * rng.normal(1, 0.05)  # of each hand
    phase = 2 * np.pi * (rate_hz * time_s + rng.random())
    punch = np.maximum(OPPOSITE * np.sin(phase), 0) ** 3 * np.array([[1 - 0.5 * person.lameness], [1.0]])
    track[HANDS, :, 2] += 0.32 * person.height_m
    track[HANDS, :, 0] += 0.2 + 0.52 * person.reach * punch
    track[HANDS, :, 1] -= 0.1 * OPPOSITE * punch
    track[ELBOWS, :, 2] += 0.08 * person.height_m
    track[ELBOWS, :, 0] += 0.1 + 0.28 * person.reach * punch
    track[:3, :, 0] += 0.035 * person.sway * np.sin(2 * phase)
    track[:3, :, 2] += 0.012 * person.bounce * np.cos(2 * phase)
    return _breathe(rng, track, time_s)


def circle(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Circle both stretched arms about the shoulders, steadily."""
    track = _standing(person, len(time_s))
    phase = 2 * np.pi * (rng.choice([-1, 1]) * 0.85 * person.pace * rng.normal(1, 0.05) * time_s + rng.random())
    lag = rng.choice([0.0, np.pi]) * np.array([[1.0], [0.0]])
    shoulder_m, arm_m = 0.82 * person.height_m, 0.36 * person.height_m * (0.8 + 0.2 * person.reach)
    for parts, length_m in ((HANDS, arm_m), (ELBOWS, arm_m / 2)):
        track[parts, :, 0] = length_m * np.sin(phase + lag)
        track[parts, :, 2] = shoulder_m - length_m * np.cos(phase + lag)
    track[:3, :, 0] += 0.015 * person.sway * np.sin(phase)
    return _breathe(rng, track, time_s)


def clean(rng: np.random.Generator, person: Person, time_s: NDArray) -> Track:
    """Bend down and wipe the floor with one hand while moving slowly."""
    track = _standing(person, len(time_s))
    track[:, :, 2] *= np.array([0.62, 0.6, 0.75, 0.5, 0.6, 0.12, 0.5, 0.9, 0.9, 1, 1])[:, None]
    track[:2, :, 0] += 0.3
    phase = 2 * np.pi * (0.75 * person.pace * rng.normal(1, 0.06) * time_s + rng.random())
    wipe = 0.38 * person.reach * np.sin(phase)
    track[6, :, 0] += 0.6 + 0.1 * np.cos(phase)
    track[6, :, 1] += wipe
    track[4, :, 0] += 0.4
    track[4, :, 1] += 0.5 * wipe
    track[:2, :, 1] += 0.16 * person.sway * np.sin(phase)
    track[:, :, 0] += _to_and_fro(0.16 * person.pace * time_s + rng.uniform(0, 2), 1.0)
    return _breathe(rng, track, time_s)


MOTIONS: dict[str, Callable[[np.random.Generator, Person, NDArray], Track]] = {
    "run": run, "walk": walk, "fall": fall, "box": box, "circle": circle, "clean": clean,
}  # fmt: skip
