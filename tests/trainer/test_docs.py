"""The commands of the README and of the training page, typed as they stand there, with less data."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from wavesfm_core.bundle import Bundle
from wavesfm_core.cli import main as wavesfm
from wavesfm_trainer import cli

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves
ROOT = Path(__file__).parents[2]
FEWER = {"700": "40", "200": "30", "20": "1", "nano": "nano"}


def commands(path):
    """Lines of the first shell block that trains something."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.S)
    block = next(text for text in blocks if "wavesfm-train data" in text)
    return [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("wavesfm")]


def run(line):
    name, *arguments = shlex.split(line)
    arguments = [FEWER.get(argument, argument) for argument in arguments]
    if arguments[0] in ("pretrain", "finetune"):
        arguments += ["--set", "loop.batch_size=32", "--set", "loop.precision=32-true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            (wavesfm if name == "wavesfm" else cli.main)()
        except SystemExit as ended:
            assert not ended.code, line


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_the_commands_of_the_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = commands(page)
    assert len(lines) >= 5
    for line in lines:
        run(line)
    bundle = Bundle.open(tmp_path / "bundles" / "positioning")
    assert bundle.spec.head.task == "position" and bundle.spec.head.axes == ("x", "y", "z")
    assert (tmp_path / "runs" / "positioning" / "evaluation.json").is_file()
