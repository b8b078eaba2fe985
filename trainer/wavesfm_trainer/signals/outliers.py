# SPDX-License-Identifier: GPL-3.0-or-later
"""Families of signals that are none of the classes: what a model learns to call unknown, and what it is tested on.

TRAINING families are drawn with their weights; HELD_OUT ones are never trained on and measure how unknown signals of
other kinds are told from the classes.
"""

from __future__ import annotations

from . import outlier_carriers as carriers
from . import outlier_links as links
from . import outlier_waves as waves
from .base import SignalClass, View

UNKNOWN = "unknown"
ANY = (View(20e3, 250e3, 1), View(250e3, 3.2e6, 2), View(3.2e6, 25e6, 1.2), View(25e6, 56e6, 0.2))
NARROW = (View(20e3, 60e3, 1), View(60e3, 300e3, 2), View(300e3, 1e6, 0.7))
WIDE = (View(0.4e6, 3.2e6, 2), View(3.2e6, 25e6, 1.5), View(25e6, 56e6, 0.2))

_TRAINED = (
    ("psk", carriers.psk, ANY, 3.0),
    ("qam", carriers.qam, ANY, 1.5),
    ("tetra", carriers.tetra, NARROW, 1.2),
    ("four-level-fsk", carriers.four_level, ANY, 1.3),
    ("msk", carriers.msk, NARROW, 1.6),
    ("fast-fsk", carriers.fast_fsk, WIDE, 0.7),
    ("cdma", carriers.cdma, WIDE, 0.8),
    ("sweep", waves.sweep, ANY, 1.0),
    ("chirp-radar", waves.chirp_radar, WIDE, 1.0),
    ("pulse-pairs", waves.pulse_pairs, (View(1e6, 20e6),), 0.5),
    ("multicarrier", waves.multicarrier, ANY, 1.5),
    ("television", waves.television, (View(40e3, 400e3, 1), View(400e3, 16e6, 1)), 1.5),
    ("video-link", waves.video_link, (View(2e6, 40e6),), 0.5),
    ("other-fm", waves.other_fm, (View(60e3, 1e6), View(1e6, 3e6, 0.3)), 0.8),
    ("telegraphy", waves.telegraphy, (View(8e3, 60e3),), 0.7),
    ("satellite", links.satellite, (View(8e3, 60e3, 2), View(60e3, 250e3), View(250e3, 2e6, 0.5)), 2.0),
    ("agile-radar", links.agile_radar, WIDE, 0.8),
    ("hopper", links.hopper, (View(0.2e6, 3.2e6), View(3.2e6, 25e6)), 0.7),
    ("drone-link", links.drone_link, (View(4e6, 25e6, 2), View(25e6, 56e6, 0.4)), 0.8),
    ("slow-scan", links.slow_scan, (View(8e3, 48e3),), 0.4),
)
_HELD_OUT = (
    ("many-tones", carriers.many_tones, ANY),
    ("direct-sequence", carriers.direct_sequence, ANY),
    ("plain-pulses", waves.plain_pulses, WIDE),
    ("filter-bank", waves.filter_bank, ANY),
    ("single-sideband", waves.single_sideband, (View(8e3, 60e3),)),
)

TRAINING: dict[str, SignalClass] = {
    name: SignalClass(name, "none of the classes", views, make) for name, make, views, _ in _TRAINED
}
WEIGHTS: dict[str, float] = {name: weight for name, _, _, weight in _TRAINED}
HELD_OUT: dict[str, SignalClass] = {
    name: SignalClass(name, "none of the classes", views, make) for name, make, views in _HELD_OUT
}

__all__ = ["HELD_OUT", "TRAINING", "UNKNOWN", "WEIGHTS"]
