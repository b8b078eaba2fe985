# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README tells a new user to type works, on the model that ships."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line is not installed")
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUNDLE = ROOT / "models" / "rf20-nano"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
SHELL = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
WAVESFM = [line.split("wavesfm ", 1)[1] for line in SHELL if "bin/wavesfm " in line]
NAME, GRIDS = "capture.cu8", "grids.npz"


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A directory with a capture and slots of the README's names, and the models where the README has them."""
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 4, (60_000, 2)) + 127.5
    t = np.arange(20_000, 40_000)
    samples[t] += 60 * np.stack([np.cos(0.3 * t), np.sin(0.3 * t)], axis=1)
    np.clip(np.rint(samples), 0, 255).astype(np.uint8).tofile(tmp_path / NAME)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / NAME).write_bytes((tmp_path / NAME).read_bytes())
    grids = rng.normal(size=(2, 3, 16, 14, 48))
    np.savez(tmp_path / GRIDS, y_rg=(grids[0] + 1j * grids[1]).astype(np.complex64))
    (tmp_path / "models").symlink_to(ROOT / "models")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from wavesfm_core.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)


def test_the_readme_has_the_commands_that_are_tested_here() -> None:
    assert [command.split()[0] for command in WAVESFM] == [
        "classify", "classify", "annotate", "info", "check", "bench", "estimate",
    ]  # fmt: skip


@pytest.mark.parametrize("command", WAVESFM)
def test_a_command_of_the_readme_runs(command: str, folder: Path) -> None:
    words = {"RECORDING": NAME, "GRIDS": GRIDS, "FOLDER": "recordings"}
    arguments = [words.get(word, word) for word in shlex.split(command)]
    if "--start" in arguments:  # in seconds, of a recording whose name tells no rate
        arguments += ["--rate", "2M"]
    if arguments[0] == "bench":
        arguments += ["--seconds", "0.05"]
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if "--json" in arguments:
        assert (folder / arguments[arguments.index("--json") + 1]).read_text().count("\n") == 1
    if "recordings" in arguments:
        assert done.stdout.count("capture.cu8 ") == 2
    if arguments[0] == "annotate":
        assert (folder / "capture.sigmf-meta").is_file()


def test_the_python_lines_of_the_readme_run(folder: Path) -> None:
    (lines,) = (text for kind, text in BLOCKS if kind == "python")
    done = subprocess.run([sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 ")


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)|(?<=\n)(scripts/\w+)|`(examples/\w+\.grc)`", README))
def test_what_the_readme_points_at_is_there(path: tuple[str, ...]) -> None:
    assert (ROOT / "".join(path)).exists()
