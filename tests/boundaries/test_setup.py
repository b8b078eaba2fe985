# SPDX-License-Identifier: GPL-3.0-or-later
"""What scripts/setup refuses, and that its lists, the pins and the page of dependencies agree."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("requirements-radio.txt", "requirements-train.txt")
VERBS = (
    "scripts/setup",
    "scripts/test",
    "scripts/check",
    "scripts/demo",
    "scripts/pictures",
    "scripts/companion",
    ".ci/run",
)


def pins(name: str) -> dict[str, str]:
    """Name and version of each line of a requirements file; a line that is no exact pin fails."""
    found = {}
    for line in (ROOT / "scripts" / name).read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            match = re.fullmatch(r"([a-z0-9-]+)==([0-9.]+)", requirement)
            assert match, f"{name}: found {requirement!r}, expected name==version"
            found[match[1]] = match[2]
    return found


def setup_with(tools: dict[str, str], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup with shell one-liners in front of the system's tools."""
    for name, body in tools.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    command = [str(ROOT / "scripts/setup"), *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=directory, timeout=300
    )


def test_without_root_it_prints_the_line_to_run(tmp_path: Path) -> None:
    done = setup_with({"dpkg-query": "exit 1", "id": "echo 1000", "sudo": "exit 1"}, tmp_path)
    assert done.returncode == 2
    assert "neither root nor password-free sudo" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sudo apt-get update && ")]
    assert {"gnuradio", "libfftw3-dev", "python3-venv"} <= set(line.split())


def test_it_names_only_the_packages_that_are_missing(tmp_path: Path) -> None:
    query = 'case "$*" in *cmake*) exit 1 ;; *) echo installed ;; esac'
    done = setup_with({"dpkg-query": query, "id": "echo 1000", "sudo": "exit 1"}, tmp_path)
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("--no-install-recommends cmake")


def test_a_failing_apt_get_ends_it_with_its_words(tmp_path: Path) -> None:
    tools = {"dpkg-query": "exit 1", "id": "echo 0", "apt-get": "echo no route to host; exit 100"}
    done = setup_with(tools, tmp_path)
    assert done.returncode == 2
    assert "no route to host" in done.stderr
    assert "apt-get update failed" in done.stderr


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    done = setup_with({}, tmp_path, "--radio")
    assert done.returncode == 2
    assert "found argument '--radio', expected --radio-only" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_are_executable_and_stop_at_faults(verb: str) -> None:
    assert os.access(ROOT / verb, os.X_OK)
    text = (ROOT / verb).read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text


def test_ci_runs_the_verbs() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-2:] == ["scripts/check", "scripts/test"]


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs/dependencies.md").read_text()
    packages = re.search(r"^packages=\((.*?)^\)", (ROOT / "scripts/setup").read_text(), re.DOTALL | re.MULTILINE)
    assert packages is not None
    names = re.sub(r"#.*", "", packages[1]).split() + [name for file in REQUIREMENTS for name in pins(file)]
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)] == []


def test_environments_agree_where_they_can() -> None:
    radio, train = (pins(name) for name in REQUIREMENTS)
    different = {name for name in radio.keys() & train.keys() if radio[name] != train[name]}
    assert different == {"numpy", "pyyaml", "scipy"}  # the radio environment has Debian's own, beside GNU Radio


@pytest.mark.parametrize(
    ("project", "requirements"), [("pyproject.toml", REQUIREMENTS), ("trainer/pyproject.toml", REQUIREMENTS[1:])]
)
def test_what_the_packages_ask_for_is_pinned(project: str, requirements: tuple[str, ...]) -> None:
    values = tomllib.loads((ROOT / project).read_text())["project"]
    asked = {re.split(r"[<>=!~\[ ;]", line)[0] for line in values["dependencies"]} - {"wavesfm-core"}
    assert asked
    for name in requirements:
        assert asked <= pins(name).keys()
