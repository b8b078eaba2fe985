# SPDX-License-Identifier: GPL-3.0-or-later
"""GNU Radio blocks of gr-wavesfm: live classification of IQ streams and OFDM channel estimation with model bundles."""

from __future__ import annotations

from .channel_estimator import channel_estimator
from .classifier import classifier
from .ofdm_pilot_grid import ofdm_pilot_grid
from .prediction_sink import prediction_sink
from .recording_source import recording_source
from .uplink_simulator import uplink_simulator

__all__ = [
    "channel_estimator",
    "classifier",
    "ofdm_pilot_grid",
    "prediction_sink",
    "recording_source",
    "uplink_simulator",
]
