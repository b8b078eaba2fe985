# SPDX-License-Identifier: GPL-3.0-or-later
"""Two gloo processes give the losses and the weights of one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support import loop_toys
from support.loop_toys import loop_args, pretraining
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.training import fit

# Both modalities meet in one optimiser step: the last batch of the step does not use the other's patch embedding, whose
# gradient must be exchanged all the same. 7 batches an epoch leave a group of one.
SETS = {"one": (30, 1), "three": (22, 3)}
ARGS = {"epochs": 2, "accumulate": 2, "clip": 1.0, "save_every": 1}


def started(command, asked):
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "RANK")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(asked)], env=environment, timeout=900, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def rows(run):
    return list(csv.DictReader((run / "metrics.csv").open()))


def assert_close(run, single):
    for one, two in zip(rows(single), rows(run), strict=True):
        for name in ("train_loss", "val_loss", "val_loss_one", "val_loss_three"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-5), name
    one, two = load_file(single / "weights.safetensors"), load_file(run / "weights.safetensors")
    for name in one:
        if name.endswith("qkv.bias"):  # softmax does not see the bias of the key: its gradient is rounding alone
            (q1, _, v1), (q2, _, v2) = one[name].chunk(3), two[name].chunk(3)
            one[name], two[name] = torch.cat([q1, v1]), torch.cat([q2, v2])
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    run = tmp_path_factory.mktemp("ddp") / "single"
    args = loop_args(**ARGS)
    fit(*pretraining(args, SETS), args, run)
    return run


def test_two_processes_that_fit_starts(single, tmp_path):
    asked = {"run": str(tmp_path / "two"), "args": ARGS, "sets": SETS, "devices": 2}
    started([sys.executable, loop_toys.__file__], asked)
    assert_close(tmp_path / "two", single)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["processes"] == 2


def test_two_processes_under_torchrun(single, tmp_path):
    asked = {"run": str(tmp_path / "two"), "args": ARGS, "sets": SETS}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started([*command, loop_toys.__file__], asked)
    assert_close(tmp_path / "two", single)


def test_a_batch_that_cannot_be_shared_is_refused():
    _, loaders = pretraining(loop_args(), SETS)
    with pytest.raises(
        ConfigurationError, match="batch_size: found 8, expected a multiple of 3, the number of processes"
    ):
        loaders.plan(0, 0, 8, rank=0, world=3)
