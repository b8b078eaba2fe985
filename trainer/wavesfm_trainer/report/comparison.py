# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a comparison of channel estimators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wavesfm_core.errors import InputError

from ..evaluation.compare_estimators import BACKING_OFF, LINEAR, PoolCurves
from . import figures

FILES = {"mse-over-snr.svg": False, "nmse-over-snr.svg": True}
"""File -> whether it is in decibels."""


def draw_comparison(pool: PoolCurves, decibel: bool) -> figures.Figure:
    """MSE, or NMSE in dB, of each estimator over SNR; linear estimators are dashed."""
    curves = {}
    for name, curve in pool.estimators.items():
        if not name.endswith(BACKING_OFF):
            values = np.array([curve.nmse_db if decibel else curve.mse])
            curves[name] = figures.Curve(np.array(pool.snr_db), values, reference=name in LINEAR)
    return figures.over_snr(curves, decibel)


def write_comparison_figures(directory: Path, pool: PoolCurves) -> list[Path]:
    """Write the figures of a pool, and return their paths. InputError if they cannot be written."""
    try:
        for name, decibel in FILES.items():
            figures.save(draw_comparison(pool, decibel), directory / name)
    except OSError as error:
        raise InputError(directory, "directory", error.strerror or error, "a place that can be written") from None
    return [directory / name for name in FILES]
