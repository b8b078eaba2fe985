# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors cross from a worker process to the one that started it."""

from __future__ import annotations

import pickle

import pytest
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError, InputError, WavesfmError


@pytest.mark.parametrize("kind", [WavesfmError, BundleError, InputError, EngineError, ConfigurationError])
def test_an_error_survives_pickling(kind: type[WavesfmError]) -> None:
    error = kind("a.dat", "records", 3, "four")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.where, again.field, again.found, again.expected) == ("a.dat", "records", "3", "four")
    assert str(again) == str(error) == "a.dat: records: found 3, expected four"
