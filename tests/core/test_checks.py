# SPDX-License-Identifier: GPL-3.0-or-later
"""The first rule that is broken is raised by name."""

from types import SimpleNamespace

import pytest
from wavesfm_core.checks import require_rules, shown
from wavesfm_core.errors import BundleError, ConfigurationError


def test_rules_that_hold_pass():
    require_rules("args", SimpleNamespace(a=1), {"a": (True, "1")})


def test_the_first_broken_rule_is_named():
    rules = {"a": (True, "1"), "b": (False, "two"), "c": (False, "three")}
    with pytest.raises(BundleError) as caught:
        require_rules("spec", SimpleNamespace(a=1, b="x", c=0), rules, BundleError)
    error = caught.value
    assert (error.where, error.field, error.found, error.expected) == ("spec", "b", "'x'", "two")


def test_values_of_a_mapping_and_a_configuration_error_as_default():
    with pytest.raises(ConfigurationError, match="args: a: found 3, expected 1 or 2"):
        require_rules("args", {"a": 3}, {"a": (False, "1 or 2")})


def test_a_long_value_is_cut_and_an_empty_tuple_is_nothing():
    assert shown("x" * 100) == "'" + "x" * 56 + "..."
    assert shown(()) == "nothing"
