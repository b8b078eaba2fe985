# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors cross process borders, as a pool of workers sends them."""

from __future__ import annotations

import pickle

from wavesfm_core.errors import InputError


def test_an_error_is_the_same_after_pickling():
    error = InputError("file.cf32", "samples", 3, "4 or more")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError and str(again) == str(error)
    assert (again.where, again.field, again.found, again.expected) == ("file.cf32", "samples", "3", "4 or more")
