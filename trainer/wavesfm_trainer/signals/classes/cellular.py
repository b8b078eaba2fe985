# SPDX-License-Identifier: GPL-3.0-or-later
"""Cellular: LTE, NR and NB-IoT cells and the LTE sidelink, as far as they are in a receiver's band."""

from __future__ import annotations

import numpy as np

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..ofdm import Band, fits
from ..standards import lte, nbiot, nr, sidelink


def _emission(iq: IQ, band: Band, view_hz: float, low: int, high: int) -> Emission:
    """An emission of one signal with carriers [low, high)."""
    occupied_hz = min((band.high - band.low) * band.spacing_hz, view_hz)
    placed = not fits(low, high, band.spacing_hz, view_hz)
    return Emission(unit_power(iq), band.rate_hz, occupied_hz, placed)


def _draw_size(rng: np.random.Generator, view_hz: float) -> int:
    """Resource blocks of an LTE cell: mostly wide ones, in wide views those that fit."""
    sizes = np.array(lte.RESOURCE_BLOCKS)
    weight = np.array([0.15, 0.2, 0.6, 1.0, 0.5, 1.0])
    fit = sizes * 180e3 < view_hz * 1.05
    if view_hz > 2.5e6:
        weight = weight * np.where(fit, 3.0, 1.0)
    return int(rng.choice(sizes, p=weight / weight.sum()))


def _draw_centre(rng: np.random.Generator, view_hz: float, half: int, spacing_hz: float, at: int = 0) -> int:
    """Carrier at the centre of the view: 0 if the cell fits into the view, else `at` or a random one."""
    if fits(-half, half, spacing_hz, view_hz):
        return 0
    return at if rng.random() < 0.75 else int(rng.integers(-half // 1.1, half // 1.1 + 1))


def _lte(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One LTE cell, rarely the uplink of its phones."""
    n_rb = _draw_size(rng, view_hz)
    band = lte.band_of(view_hz, n_rb, _draw_centre(rng, view_hz, 6 * n_rb, lte.SPACING_HZ))
    make_iq = lte.uplink if rng.random() < 0.06 else lte.cell
    return _emission(make_iq(rng, duration_s, n_rb, band), band, view_hz, -6 * n_rb, 6 * n_rb + 1)


def _lte_pair(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Two neighbouring LTE cells of different power, both at least partly in view."""
    sizes = [_draw_size(rng, view_hz / 2) for _ in range(2)]
    apart = round(
        sum({6: 1.4, 15: 3, 25: 5, 50: 10, 75: 15, 100: 20}[size] for size in sizes) / 2 * 1e6 / lte.SPACING_HZ
    )
    between = (6 * sizes[0] + apart - 6 * sizes[1]) // 2
    middle = (apart + 6 * (sizes[1] - sizes[0])) // 2
    at = middle if fits(-6 * sizes[0], apart + 6 * sizes[1], lte.SPACING_HZ, view_hz) else between
    reach = max(at + 6 * sizes[0], apart + 6 * sizes[1] - at)
    whole = lte.look(view_hz, lte.SPACING_HZ, -reach, reach)
    bands = [
        lte.band_of(view_hz, size, at - move, whole.fft_size) for size, move in zip(sizes, (0, apart), strict=True)
    ]
    parts = [unit_power(lte.cell(rng, duration_s, size, band)) for size, band in zip(sizes, bands, strict=True)]
    level = np.float32(10 ** (rng.uniform(-15, 15) / 20))
    seen = sum(band.high - band.low for band in bands)
    iq = unit_power(parts[0] + level * parts[1])
    return Emission(iq, bands[0].rate_hz, min(seen * lte.SPACING_HZ, view_hz), True)


def _nr(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One NR cell, mostly with little traffic."""
    spacing_hz, n_rb, ssb_low = nr.draw_carrier(rng, view_hz)
    centre = _draw_centre(rng, view_hz, 6 * n_rb, spacing_hz, ssb_low + nr.SSB_CARRIERS // 2)
    band = nr.band_of(view_hz, spacing_hz, n_rb, centre)
    load = float(rng.choice([0.0, rng.uniform(0.01, 0.15), rng.uniform(0.15, 1), 1.0], p=[0.27, 0.4, 0.21, 0.12]))
    return _emission(nr.cell(rng, duration_s, band, n_rb, ssb_low, load), band, view_hz, -6 * n_rb, 6 * n_rb)


def _nbiot(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """An NB-IoT cell."""
    band, count = nbiot.draw_band(rng, view_hz)
    return _emission(nbiot.cell(rng, duration_s, band, count), band, view_hz, 0, 12 * count)


def _sidelink(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Vehicles on a 10 or 20 MHz sidelink carrier."""
    n_rb = 50 if view_hz < 19e6 or rng.random() < 0.6 else 100
    band = sidelink.band_of(view_hz, n_rb)
    return _emission(sidelink.traffic(rng, duration_s, n_rb, band), band, view_hz, -6 * n_rb, 6 * n_rb)


MAKERS = (_lte, _lte_pair, _nr, _nbiot, _sidelink)


def _weights(view_hz: float) -> tuple[float, ...]:
    """Relative frequency of each kind at a view, in the order of MAKERS."""
    if view_hz < 1.5e6:
        return (0.15, 0.0, 0.05, 0.8, 0.0)
    if view_hz < 2.6e6:
        return (0.68, 0.0, 0.12, 0.2, 0.0)
    if view_hz < 4.2e6:
        return (0.75, 0.0, 0.25, 0.0, 0.0)
    if view_hz < 8e6:
        return (0.65, 0.08, 0.25, 0.0, 0.02)
    return (0.45, 0.1, 0.27, 0.0, 0.18)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One cell, two neighbouring ones, or vehicles, of a kind that is common at the view."""
    weights = np.array(_weights(view_hz))
    kind = MAKERS[int(rng.choice(len(MAKERS), p=weights / weights.sum()))]
    return kind(rng, duration_s, view_hz)


SIGNAL = SignalClass(
    label="cellular",
    standard="3GPP TS 36.211 clauses 4 to 6, 9 and 10; TS 38.211 clauses 5.3 and 7",
    views=(View(0.25e6, 1.5e6, 1.5), View(1.8e6, 2.4e6, 3), View(2.4e6, 12e6, 2), View(15e6, 25e6, 3.5)),
    make=make,
    shortest_s=0.001,
)
