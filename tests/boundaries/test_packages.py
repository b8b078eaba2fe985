# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors advise the installation of what the project's metadata asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path

from wavesfm_core.packages import REQUIREMENTS, install_command

ROOT = Path(__file__).parents[2]


def test_requirements_are_those_of_the_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {requirement for requirements in extras.values() for requirement in requirements}
    assert set(REQUIREMENTS.values()) <= asked


def test_a_command_is_quoted_for_the_shell() -> None:
    assert install_command("typer", "rich") == "pip install 'typer>=0.12' 'rich>=13'"
