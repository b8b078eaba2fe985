# SPDX-License-Identifier: GPL-3.0-or-later
"""CSI amplitudes of a WiFi link beside a moving person, as logged by a 40 MHz 802.11n card with three antennas.

The channel is the sum of the room's fixed paths (walls and objects, by geometry) and one path over each part of the
body, whose length changes with the motion. Not modelled: blocking of other paths by the body, double reflections, and
late or missing packets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kinematics import REFLECTS, Person, Track
from .propagation import LIGHT_M_PER_S, Points, Scene, array_response, line_array, paths_from

CARRIER_HZ, PACKETS_HZ, N_PACKETS = 5.19e9, 500.0, 2000
ANTENNAS, SUBCARRIERS = 3, 114
OFFSETS_HZ = np.concatenate([np.arange(-58, -1), np.arange(2, 59)]) * 312.5e3  # IEEE 802.11-2016 table 19-6
TIME_S = np.arange(N_PACKETS) / PACKETS_HZ
BODY_M = 0.55  # amplitude an average torso sends on, as Scene.cross_m
LEVEL, NOISE, LARGEST = 130.0, 1.6, 511  # rms of the fixed channel and of the noise in converter steps; 10 bit
AGC_DB = 0.15
NODES = 12  # the body's paths differ by some metres: over 36 MHz that is a few radians, and 12 nodes give 1e-5


@dataclass(frozen=True)
class Room:
    """A room with its link."""

    scene: Scene
    """Walls and objects."""
    transmitter: Points
    """Position [3] of the transmitter in metres."""
    antennas: Points
    """Positions [3, 3] of the receiver's antennas in metres."""
    place: Points
    """Position [2] where people move, in metres."""
    fixed: NDArray[np.complex128]
    """CSI of the fixed paths, complex [3, 114]."""


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room of about 40 square metres with furniture and a link of 3 to 4.5 m through its middle."""
    size = (rng.uniform(6, 9), rng.uniform(5, 7), rng.uniform(2.6, 3.2))
    count = int(rng.integers(6, 14))
    scatterers = rng.uniform(0, 1, (count, 3)) * np.array(size)
    walls = tuple(float(r) for r in rng.uniform(0.25, 0.6, 6))
    scene = Scene(size, walls, scatterers, rng.uniform(0.05, 0.4, count))  # type: ignore[arg-type]
    middle = np.array([size[0] / 2, size[1] / 2])
    half, height = rng.uniform(1.5, 2.25), rng.uniform(0.9, 1.3)
    turn = rng.uniform(-0.25, 0.25)
    along = np.array([np.cos(turn), np.sin(turn)])
    transmitter = np.array([*(middle - half * along), height])
    receiver = np.array([*(middle + half * along), height])
    antennas = line_array(receiver, turn + np.pi, ANTENNAS, CARRIER_HZ)
    fixed = array_response(paths_from(scene, transmitter), antennas, CARRIER_HZ, OFFSETS_HZ)
    return Room(scene, transmitter, antennas, middle, fixed)


def _interpolation() -> tuple[NDArray, NDArray]:
    """Chebyshev nodes in Hz [12] across the band, and weights [12, 114] from them to the subcarriers."""
    edge_hz = float(np.abs(OFFSETS_HZ).max())
    nodes = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    vander = np.polynomial.chebyshev.chebvander
    weights = vander(OFFSETS_HZ / edge_hz, NODES - 1) @ np.linalg.inv(vander(nodes, NODES - 1))
    return nodes * edge_hz, weights.T.astype(np.complex64)


NODES_HZ, WEIGHTS = _interpolation()


def moving_response(room: Room, person: Person, track: Track, place: Points, heading_rad: float) -> NDArray:
    """CSI of the paths over the body.

    Parameters
    ----------
    room : room and link.
    person : body size.
    track : positions of the body parts over time.
    place : position [2] of the track in metres.
    heading_rad : its direction.

    Returns
    -------
    complex64 [3, 114, T].
    """
    cos, sin = np.cos(heading_rad), np.sin(heading_rad)
    at = np.empty_like(track)
    at[..., 0] = place[0] + cos * track[..., 0] - sin * track[..., 1]
    at[..., 1] = place[1] + sin * track[..., 0] + cos * track[..., 1]
    at[..., 2] = track[..., 2]
    inbound = np.linalg.norm(at - room.transmitter, axis=2)  # [parts, T]
    outbound = np.linalg.norm(at[:, None] - room.antennas[:, None], axis=3)  # [parts, 3, T]
    turns = (inbound[:, None] + outbound) * (CARRIER_HZ / LIGHT_M_PER_S)
    strength = BODY_M * person.build * REFLECTS[:, None, None] / np.maximum(inbound[:, None] * outbound, 0.25)
    carrier = strength.astype(np.float32) * _phasor(turns)
    delay_s = (inbound + outbound[:, 0]) / LIGHT_M_PER_S
    across = _phasor(delay_s[:, None] * NODES_HZ[:, None])  # [parts, nodes, T]
    at_nodes = np.einsum("pat,pnt->atn", carrier, across)
    return (at_nodes @ WEIGHTS).transpose(0, 2, 1)


def _phasor(turns: NDArray) -> NDArray[np.complex64]:
    """exp(-2 pi i turns) in single precision; whole turns are removed in double precision."""
    angle = (-2 * np.pi * (turns - np.rint(turns))).astype(np.float32)
    out = np.empty(angle.shape, np.complex64)
    out.real, out.imag = np.cos(angle), np.sin(angle)
    return out


def logged_amplitudes(rng: np.random.Generator, room: Room, moving: NDArray) -> NDArray[np.float64]:
    """Amplitudes as the card logs them.

    The card scales each packet to its converter with small gain variations, adds noise, and rounds I and Q.

    Parameters
    ----------
    rng : source of gain and noise.
    room : with the fixed CSI.
    moving : CSI of the moving paths, complex64 [3, 114, T].

    Returns
    -------
    float64 [342, T], dB of converter steps, antenna after antenna.
    """
    n = moving.shape[2]
    gain = LEVEL / np.sqrt(np.mean(np.abs(room.fixed) ** 2)) * 10 ** (rng.normal(0, AGC_DB, n) / 20)
    csi = (room.fixed[:, :, None].astype(np.complex64) + moving) * gain.astype(np.float32)
    parts = csi.reshape(ANTENNAS * SUBCARRIERS, n).view(np.float32)
    parts += np.float32(NOISE / np.sqrt(2)) * rng.standard_normal(parts.shape, dtype=np.float32)
    parts = np.clip(np.rint(parts), -LARGEST, LARGEST)
    power = parts[:, ::2] ** 2 + parts[:, 1::2] ** 2
    return (10 * np.log10(np.maximum(power, 1))).astype(np.float64)
