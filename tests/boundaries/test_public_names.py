# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that others may rely on: a change here is a change of the contract."""

from __future__ import annotations

import wavesfm_core

PUBLIC = {
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
}


def test_core_exports_exactly_these() -> None:
    assert set(wavesfm_core.__all__) == PUBLIC
    assert [name for name in PUBLIC if not hasattr(wavesfm_core, name)] == []


def test_errors_are_one_tree() -> None:
    for error in ("BundleError", "InputError", "EngineError", "ConfigurationError"):
        assert issubclass(getattr(wavesfm_core, error), wavesfm_core.WavesfmError)
