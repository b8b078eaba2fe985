# SPDX-License-Identifier: GPL-3.0-or-later
"""Clustered channels of 3GPP TR 38.901 for one link whose geometry is known: Sionna's tables, computed with numpy.

Sionna draws a link's bearing and speed itself, and needs torch for it. Here both are given, so that the stops of one
drive differ as the drive has it.

References
----------
3GPP TR 38.901, clauses 7.4.1 (path loss), 7.5 (rays, table 7.5-3) and 7.7.1 (clustered delay lines).
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError

TABLES = Path("phy/channel/tr38901/models/v16_1")
OFFSETS = (0.0447, 0.1413, 0.2492, 0.3715, 0.5129, 0.6797, 0.8844, 1.1481, 1.5195, 2.1551)
RAYS = np.array([sign * offset for offset in OFFSETS for sign in (1, -1)])
"""Offsets of the 20 rays of a cluster, for a spread of 1 degree (table 7.5-3)."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """A clustered delay line of N clusters."""

    line_of_sight: bool
    """True if the first cluster is one ray without spread."""
    delays: Floats
    """[N], in units of the delay spread."""
    powers: Floats
    """[N], sum 1."""
    station_deg: Floats
    """[N], azimuth at the station from the bearing of the user."""
    user_deg: Floats
    """[N], azimuth at the user."""
    station_spread_deg: float
    """Spread of the rays of a cluster at the station."""
    user_spread_deg: float
    """The same at the user."""


@lru_cache(maxsize=8)
def profile(letter: str) -> Profile:
    """The profile CDL-`letter` (A to E) of Sionna's tables, read without importing Sionna.

    Raises
    ------
    ConfigurationError : Sionna is not installed, or has no such table.
    """
    spec = importlib.util.find_spec("sionna")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(roots[0]) / TABLES / f"CDL-{letter.upper()}.json" if roots else Path("sionna")
    if not path.is_file():
        raise ConfigurationError("clusters", "sionna", "no table of CDL-" + letter.upper(), "the package sionna-no-rt")
    values = json.loads(path.read_text(encoding="utf-8"))
    powers = 10 ** (np.array(values["powers"]) / 10)
    return Profile(
        bool(values["los"]),
        np.array(values["delays"], float),
        powers / powers.sum(),
        np.array(values["aod"], float),
        np.array(values["aoa"], float),
        float(values["cASD"]),
        float(values["cASA"]),
    )


def response(
    rng: np.random.Generator,
    model: Profile,
    delay_spread_s: float,
    bearing_rad: float,
    broadside_rad: float,
    antennas: int,
    offsets_hz: Floats,
    time_s: Floats,
    speed_waves_per_s: float,
    heading_rad: float,
) -> NDArray[np.complex128]:
    """Channel of a link, mean power 1.

    Parameters
    ----------
    rng : draws the phases of the rays and their coupling.
    model : clusters.
    delay_spread_s : unit of the delays.
    bearing_rad : direction of the user from the station.
    broadside_rad : direction of the broadside of the station's line array, half a wavelength apart.
    antennas : of the station, A.
    offsets_hz : [K], from the carrier.
    time_s : [T].
    speed_waves_per_s : speed of the user over the wavelength.
    heading_rad : direction in which the user moves.

    Returns
    -------
    complex128 [T, A, K].
    """
    n_clusters, n_rays = len(model.delays), len(RAYS)
    offsets = np.stack([rng.permutation(RAYS) for _ in range(n_clusters)])
    at_station = bearing_rad + np.deg2rad(model.station_deg[:, None] + model.station_spread_deg * offsets)
    at_user = bearing_rad + np.deg2rad(model.user_deg[:, None] + model.user_spread_deg * RAYS)
    phase = rng.uniform(0, 2 * np.pi, (n_clusters, n_rays))
    amplitude = np.sqrt(np.repeat(model.powers[:, None] / n_rays, n_rays, axis=1))
    if model.line_of_sight:  # one ray, and the other 19 none
        at_station[0], at_user[0] = bearing_rad, bearing_rad + np.pi
        amplitude[0] = np.sqrt(model.powers[0]) * (np.arange(n_rays) == 0)
    places = (np.arange(antennas) - (antennas - 1) / 2) / 2
    across_array = np.exp(2j * np.pi * places * np.sin(at_station - broadside_rad)[..., None])  # [N, R, A]
    doppler = speed_waves_per_s * np.cos(at_user - heading_rad)
    over_time = np.exp(2j * np.pi * doppler[..., None] * time_s)  # [N, R, T]
    rays = amplitude * np.exp(1j * phase)
    clusters = np.einsum("nr,nra,nrt->nta", rays, across_array, over_time)
    across_band = np.exp(-2j * np.pi * delay_spread_s * model.delays[:, None] * offsets_hz)
    return np.einsum("nta,nk->tak", clusters, across_band)


def indoor_path_loss_db(distance_m: float, carrier_hz: float, line_of_sight: bool) -> float:
    """Mean path loss of the scenario "InH office" (table 7.4.1-1), at 1 m and more."""
    distance_m, carrier_ghz = max(1.0, distance_m), carrier_hz / 1e9
    clear_db = 32.4 + 17.3 * np.log10(distance_m) + 20 * np.log10(carrier_ghz)
    if line_of_sight:
        return float(clear_db)
    return float(max(clear_db, 38.3 * np.log10(distance_m) + 17.3 + 24.9 * np.log10(carrier_ghz)))


def indoor_line_of_sight(distance_m: float) -> float:
    """Probability of a line of sight in the scenario "InH open office" (table 7.4.2-1)."""
    if distance_m <= 5:
        return 1.0
    if distance_m <= 49:
        return float(np.exp(-(distance_m - 5) / 70.8))
    return float(0.54 * np.exp(-(distance_m - 49) / 211.7))
