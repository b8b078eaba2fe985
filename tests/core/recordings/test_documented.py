# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/recordings.md names tests and suffixes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wavesfm_core.recordings.sample_formats import FORMATS, SUFFIXES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "recordings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "name"), re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT))
def test_a_named_test_exists(path: str, name: str) -> None:
    file = ROOT / path if "/" in path else Path(__file__).with_name(path)
    assert f"def {name}(" in file.read_text(encoding="utf-8")


def test_every_suffix_is_in_the_table() -> None:
    table = TEXT[TEXT.index("| suffix |") : TEXT.index("The frequency is")]
    listed = set(re.findall(r"`\.(\w+)`", table))
    assert set(SUFFIXES) - set(FORMATS) <= listed
    assert listed <= set(SUFFIXES)
