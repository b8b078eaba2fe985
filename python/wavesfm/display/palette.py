# SPDX-License-Identifier: GPL-3.0-or-later
"""Colours of labels and themes; no Qt. Colour never stands alone: the label is written beside it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.types import NOISE, UNKNOWN

LABEL_COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
    "#88CCEE", "#DDCC77", "#AA4499",
)  # fmt: skip
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008, and three of Tol's muted scheme)."""
GREY = "#A0A0A0"

_STOPS = (
    (0.0, (0, 0, 4)), (0.2, (22, 20, 75)), (0.4, (20, 72, 128)), (0.6, (32, 130, 133)), (0.8, (122, 190, 90)),
    (1.0, (253, 231, 110)),
)  # fmt: skip


@dataclass(frozen=True)
class Theme:
    """Colours of a window."""

    name: str
    """dark or light."""
    background: str
    """Of the window."""
    panel: str
    """Of tables and lists."""
    text: str
    """Of labels and axes."""
    faint: str
    """Of grid lines and what matters less."""
    accent: str
    """Of the selected emitter."""
    warning: str
    """Of losses."""


DARK = Theme("dark", "#14181d", "#1c2229", "#e6e9ec", "#6d7680", "#ffffff", "#ffb454")
LIGHT = Theme("light", "#f4f5f6", "#ffffff", "#1b1f23", "#8a929a", "#000000", "#a34700")
THEMES = {theme.name: theme for theme in (DARK, LIGHT)}


def label_colour(label: str) -> str:
    """The colour of a label as #rrggbb: the same in every window and picture."""
    if label in ("", NOISE, UNKNOWN):
        return GREY
    return LABEL_COLOURS[zlib.crc32(label.encode()) % len(LABEL_COLOURS)]


def power_colours() -> NDArray[np.uint8]:
    """uint8 [256, 3]: red, green, blue of a scale whose lightness rises with the power, also without colour vision."""
    places, colours = np.array([each[0] for each in _STOPS]), np.array([each[1] for each in _STOPS])
    levels = np.linspace(0, 1, 256)
    return np.stack([np.interp(levels, places, colours[:, channel]) for channel in range(3)], axis=1).astype(np.uint8)
