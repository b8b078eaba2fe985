# SPDX-License-Identifier: GPL-3.0-or-later
"""Help texts of options are those of the fields that they set."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from wavesfm_trainer.cli.field_help import field_help
from wavesfm_trainer.export.export_job import ExportOptions
from wavesfm_trainer.training.label_budget import LabelBudget
from wavesfm_trainer.training.loop_args import LoopArgs

OPTIONS = {
    "training.loop_args": LoopArgs,
    "training.label_budget": LabelBudget,
    "export.export_job": ExportOptions,
}


@pytest.mark.parametrize(("module", "cls"), OPTIONS.items())
def test_every_field_is_documented(module, cls):
    for field in dataclasses.fields(cls):
        text = field_help(module, cls.__name__, field.name)
        assert text.endswith(".") and "\n" not in text


def test_a_field_without_a_docstring_is_an_error():
    with pytest.raises(KeyError):
        field_help("training.loop_args", "LoopArgs", "speed")


def test_help_is_shown_without_importing_torch():
    code = (
        "import sys\nfrom wavesfm_trainer.cli import app\nfrom typer.testing import CliRunner\n"
        "found = CliRunner().invoke(app, ['export', '--help'], env={'COLUMNS': '300'})\n"
        "assert 'Arithmetic in the graph: fp32, fp16 or bf16.' in found.output, found.output\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=300)
