# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors cross process borders, as a pool of workers sends them."""

from __future__ import annotations

import copy

from wavesfm_core.errors import InputError


def test_an_error_can_be_taken_apart_and_built_again():
    """A copy is built from __reduce__, as in the process that receives it."""
    error = InputError("file.cf32", "samples", 3, "4 or more")
    again = copy.copy(error)
    assert type(again) is InputError and str(again) == str(error)
    assert (again.where, again.field, again.found, again.expected) == ("file.cf32", "samples", "3", "4 or more")
