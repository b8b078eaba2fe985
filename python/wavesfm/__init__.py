# SPDX-License-Identifier: GPL-3.0-or-later
"""GNU Radio blocks of gr-wavesfm: live classification of IQ streams and OFDM channel estimation with model bundles."""

from __future__ import annotations

from .channel_estimator import channel_estimator
from .classifier import classifier
from .estimator_display import estimator_display
from .ofdm_pilot_grid import ofdm_pilot_grid
from .prediction_sink import prediction_sink
from .recording_source import recording_source
from .signal_display import signal_display
from .uplink_simulator import uplink_simulator

__all__ = [
    "channel_estimator",
    "classifier",
    "estimator_display",
    "ofdm_pilot_grid",
    "prediction_sink",
    "recording_source",
    "signal_display",
    "uplink_simulator",
]
