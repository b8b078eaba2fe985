# SPDX-License-Identifier: GPL-3.0-or-later
"""Common part of trainer and radio: bundles, preprocessing, engines, pipelines; depends on numpy alone."""

from .bundle.image_spec import ImageSpec
from .bundle.pilot_grid_spec import PilotGridSpec
from .bundle.spec import BundleSpec, HeadSpec, TensorSpec
from .bundle.spectrogram_spec import SpectrogramSpec
from .errors import BundleError, ConfigurationError, EngineError, InputError, WavesfmError
from .types import (
    NOISE,
    UNKNOWN,
    Accounts,
    ChannelEstimate,
    PositionEstimate,
    Prediction,
    Slot,
    StreamTime,
    Tile,
)

__version__ = "0.1.0"

__all__ = [
    "NOISE",
    "UNKNOWN",
    "Accounts",
    "BundleError",
    "BundleSpec",
    "ChannelEstimate",
    "ConfigurationError",
    "EngineError",
    "HeadSpec",
    "ImageSpec",
    "InputError",
    "PilotGridSpec",
    "PositionEstimate",
    "Prediction",
    "Slot",
    "SpectrogramSpec",
    "StreamTime",
    "TensorSpec",
    "Tile",
    "WavesfmError",
    "__version__",
]
