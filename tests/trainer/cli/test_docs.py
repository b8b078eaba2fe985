# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README and of the training page, typed as they stand there, with less data."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from support.toy_runs import make_pretrained
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.cli import main as wavesfm
from wavesfm_trainer import cli

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves
ROOT = Path(__file__).parents[3]
FEWER = {"700": "40", "200": "30", "20": "1", "nano": "nano"}
FEWER_SLOTS = {"40000": "64", "5120": "128", "10000": "8", "1024": "8", "512": "8", "24": "1"}
SMALL = {
    "size": "custom",
    "depth": 1,
    "width": 16,
    "heads": 2,
    "decoder_depth": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
}


def commands(path, holding="wavesfm-train data"):
    """Lines of the first shell block that trains something, or that holds some other text."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.S)
    block = next(text for text in blocks if holding in text)
    return [line.split("#")[0].strip() for line in block.splitlines() if line.startswith(("wavesfm", "mkdir"))]


def run(line, fewer=FEWER, more=()):
    name, *arguments = shlex.split(line)
    if name == "mkdir":
        Path(arguments[-1]).mkdir(parents=True)
        return
    arguments = [fewer.get(argument, argument) for argument in arguments]
    if arguments[0] in ("pretrain", "finetune"):
        arguments += ["--set", "loop.batch_size=32", "--set", "loop.precision=32-true"]
    if arguments[0] == "train-channels":
        arguments += more
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


def test_the_commands_that_train_channel_estimators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [f"--set=model.{key}={value}" for key, value in SMALL.items()]
    for line in commands("docs/training.md", "train-channels chanest"):
        run(line, FEWER_SLOTS, [*small, "--epochs=1", "--set=loop.batch_size=8", "--set=slots.validation_slots=4"])
    assert Bundle.open(tmp_path / "models" / "chanest-nano").spec.head.task == "channel"
    seen = ImageSpec(3, 0.0, 1.0, (0.3,) * 3, (0.25,) * 3)
    make_pretrained(tmp_path / "runs" / "vit-all", {"wifi-csi": seen}, image=224, patch=32)
    for line in commands("docs/training.md", "finetune channel-estimation"):
        run(line, FEWER_SLOTS)
    assert (tmp_path / "runs" / "figure" / "nmse-over-snr.svg").is_file()
