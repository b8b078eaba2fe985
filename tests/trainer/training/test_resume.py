# SPDX-License-Identifier: GPL-3.0-or-later
"""A run killed in the middle of an epoch and resumed ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support import loop_toys
from support.loop_toys import finetuning, loop_args, pretraining
from wavesfm_core.errors import WavesfmError
from wavesfm_trainer.training import RunError, fit
from wavesfm_trainer.training.schedule import lr_factor
from wavesfm_trainer.training.training_loop import TrainingLoop

SETS = {"one": (20, 1), "three": (12, 3)}
EVERYTHING = {"epochs": 3, "accumulate": 2, "save_every": 1, "ema_decay": 0.9, "optimizer": "muon", "clip": 1.0}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(run):
    """metrics.csv without the clock."""
    found = list(csv.DictReader((run / "metrics.csv").open()))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def state_of(run):
    values = json.loads((run / "state" / "state.json").read_text())
    return load_file(run / "state" / values["tensors"])


def assert_same(one, other):
    assert rows(one) == rows(other)
    for a, b in (
        (state_of(one), state_of(other)),
        (load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")),
    ):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


def stopped_after(monkeypatch, steps):
    """As if killed then, but this process lives on."""
    real = TrainingLoop._optimiser_step

    def step(self, group):
        if self.step == steps:
            raise KeyboardInterrupt
        real(self, group)

    monkeypatch.setattr(TrainingLoop, "_optimiser_step", step)


def test_kill_9_in_the_middle_of_an_epoch(tmp_path):
    asked = {"run": str(tmp_path / "killed"), "args": EVERYTHING, "sets": SETS, "kill_after": 5}  # 3 steps an epoch
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, loop_toys.__file__, json.dumps(asked)], env=environment, timeout=600)
    assert process.returncode == -signal.SIGKILL
    kept = json.loads((tmp_path / "killed" / "state" / "state.json").read_text())
    assert (kept["epoch"], kept["batch"], kept["step"]) == (1, 2, 4)  # step 5 was never kept
    args = loop_args(**EVERYTHING)
    resumed = fit(*pretraining(args, SETS), args, tmp_path / "killed")
    unbroken = fit(*pretraining(args, SETS), args, tmp_path / "unbroken")
    assert_same(tmp_path / "killed", tmp_path / "unbroken")
    assert {**resumed, "run": ""} == {**unbroken, "run": ""}
    assert len(rows(tmp_path / "killed")) == 3


def test_killed_between_the_row_and_the_state_of_an_epoch(tmp_path, monkeypatch):
    """The row, and perhaps better weights, are written, but the state is not: the epoch comes again and counts once."""
    args = loop_args(epochs=3)
    with monkeypatch.context() as patch:
        real = TrainingLoop._save

        def save(self):
            if self.epoch == 2:
                raise KeyboardInterrupt
            real(self)

        patch.setattr(TrainingLoop, "_save", save)
        with pytest.raises(KeyboardInterrupt):
            fit(*finetuning(args), args, tmp_path / "killed")
    assert [row["epoch"] for row in rows(tmp_path / "killed")] == ["1", "2"]
    fit(*finetuning(args), args, tmp_path / "killed")
    fit(*finetuning(args), args, tmp_path / "unbroken")
    assert_same(tmp_path / "killed", tmp_path / "unbroken")


def test_killed_while_the_state_was_being_written(tmp_path, monkeypatch):
    """Tensors of the new state are there, state.json still names the old ones, which are there too."""
    args = loop_args(epochs=2, save_every=1)
    with monkeypatch.context() as patch:
        stopped_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            fit(*finetuning(args), args, tmp_path / "killed")
    directory = tmp_path / "killed" / "state"
    (directory / "step-000000005-000001.safetensors").write_bytes(b"half of it")
    (directory / "step-000000006-000001.safetensors.partial").write_bytes(b"")
    fit(*finetuning(args), args, tmp_path / "killed")
    fit(*finetuning(args), args, tmp_path / "unbroken")
    assert_same(tmp_path / "killed", tmp_path / "unbroken")
    assert len(list(directory.iterdir())) == 2


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run that stopped after its first epoch."""
    args = loop_args()
    with monkeypatch.context() as patch:
        stopped_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            fit(*finetuning(args), args, tmp_path / "run")
    return tmp_path / "run"


def test_another_option_is_refused_by_name(begun):
    args = loop_args(lr=1e-3)
    with pytest.raises(RunError, match=r"config.json: args.lr: found 0.003 in the existing run, expected 0.001"):
        fit(*finetuning(args), args, begun)
    args = loop_args()
    with pytest.raises(RunError, match=r"objective.args.label_smoothing: found 0.0"):
        fit(*finetuning(args, label_smoothing=0.1), args, begun)
    with pytest.raises(RunError, match=r"data.training.toy.examples: found 24"):
        fit(*finetuning(args, n=27), args, begun)


def test_what_the_weights_do_not_depend_on_may_change(begun, tmp_path):
    args = loop_args(save_every=2, log_every=1)
    assert fit(*finetuning(args), args, begun)["epochs"] == 2


def test_a_run_is_not_overwritten(begun):
    args = loop_args()
    with pytest.raises(RunError, match=r"config.json: found a run, expected an empty directory, or resume"):
        fit(*finetuning(args), args, begun, resume=False)


def test_a_finished_run_returns_what_came_out(tmp_path, monkeypatch):
    args = loop_args(epochs=1)
    first = fit(*finetuning(args), args, tmp_path / "run")
    stopped_after(monkeypatch, 0)
    assert fit(*finetuning(args), args, tmp_path / "run") == first
    assert first["epochs"] == 1


def test_a_damaged_state_is_named(begun):
    args = loop_args()
    values = json.loads((begun / "state" / "state.json").read_text())
    tensors = begun / "state" / values["tensors"]
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"step-.*safetensors: contents: found .*, expected a whole safetensors file"):
        fit(*finetuning(args), args, begun)
    tensors.write_bytes(whole)
    (begun / "state" / "state.json").write_text("{")
    with pytest.raises(RunError, match=r"state.json: contents: found .*, expected JSON"):
        fit(*finetuning(args), args, begun)


def test_a_disk_that_is_too_small_is_told_before_the_first_step(begun, tmp_path, monkeypatch):
    args = loop_args()
    state = sum(tensor.nbytes for tensor in state_of(begun).values())  # weights, and two moments of each of them
    needed = state + state // 3

    def free(n_bytes):
        usage = SimpleNamespace(free=n_bytes)
        monkeypatch.setattr("wavesfm_trainer.training.run_directory.shutil.disk_usage", lambda path: usage)

    free(int(1.5 * needed))
    with pytest.raises(RunError, match=r"new: disk: found .* MB free, expected .* MB, for weights and state"):
        fit(*finetuning(args), args, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert fit(*finetuning(args), args, begun)["epochs"] == 2  # half of it is there already
    free(needed // 2)
    with pytest.raises(RunError, match="disk: found"):
        fit(*finetuning(loop_args(seed=1)), loop_args(seed=1), tmp_path / "new")


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wavesfm_core.atomic_file.os.fsync", full)
    args = loop_args()
    with pytest.raises(WavesfmError, match=r"writing: found .*No space left on device.*, expected room on the disk"):
        fit(*finetuning(args), args, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_finished_run_goes_on_for_more_epochs(tmp_path):
    """With the optimiser as it was and the schedule of the new length."""
    run = tmp_path / "run"
    short, long = (loop_args(epochs=n, lr=1e-2, min_lr=1e-4, warmup_epochs=w) for n, w in ((2, 1), (5, 2)))
    assert fit(*finetuning(short), short, run)["steps"] == 6
    moment = {k: v for k, v in state_of(run).items() if k.endswith("head.weight.exp_avg_sq")}
    result = fit(*finetuning(long), long, run)
    assert (result["epochs"], result["steps"]) == (5, 15)
    assert [row["epoch"] for row in rows(run)] == list("12345")
    expected = [1e-2 * lr_factor(step, 6, 15, 1e-2) for step in (8, 11, 14)]
    assert [float(row["lr"]) for row in rows(run)][2:] == pytest.approx(expected)
    after = state_of(run)
    assert moment and all(float(after[name].sum()) > 0.5 * float(value.sum()) for name, value in moment.items())
    assert float(after["optimizer.head.weight.step"]) == 15
    config = json.loads((run / "config.json").read_text())
    assert (config["args"]["epochs"], config["extended_from"]) == (5, [2])
    assert fit(*finetuning(long), long, run)["steps"] == 15  # finished again
    with pytest.raises(RunError, match=r"args.epochs: found 5 in the existing run"):
        fit(*finetuning(short), short, run)


def test_an_extension_that_was_killed_goes_on(tmp_path, monkeypatch):
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    short, long = loop_args(epochs=1), loop_args(epochs=3)
    for path in (run, unbroken):
        fit(*finetuning(short), short, path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 4)
        fit(*finetuning(long), long, run)
    for path in (run, unbroken):
        assert fit(*finetuning(long), long, path)["steps"] == 9
    assert_same(run, unbroken)


def test_an_unfinished_run_keeps_its_length(tmp_path, monkeypatch):
    short, long = loop_args(epochs=2), loop_args(epochs=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 4)
        fit(*finetuning(short), short, tmp_path / "run")
    with pytest.raises(RunError, match=r"args.epochs: found 2 in the existing run"):
        fit(*finetuning(long), long, tmp_path / "run")
