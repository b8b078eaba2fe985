# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop on toys: what a run leaves, the schedule, early end, a loss that is not finite, what is refused."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.loop_toys import LABELS, examples, finetuning, loop_args, pretraining
from torch import nn
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models import registry
from wavesfm_trainer.training import DeviceExamples, Loaders, RunError, fit
from wavesfm_trainer.training import run_directory as runs_module
from wavesfm_trainer.training.schedule import AveragedWeights, lr_factor, make_optimizers
from wavesfm_trainer.training.training_loop import TrainingLoop


def rows(run):
    return list(csv.DictReader((run / "metrics.csv").open()))


def test_a_run_learns_and_leaves_what_others_read(tmp_path):
    args = loop_args(epochs=8, lr=5e-3, tensorboard=True, warmup_epochs=1, clip=1.0)
    objective, loaders = finetuning(args)
    result = fit(objective, loaders, args, tmp_path / "run", config={"name": "toy", "task": "levels"})
    assert result["best"] > 0.9  # chance is 1 / 3
    assert result["best"] == max(float(row["val_class_accuracy"]) for row in rows(tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["name"], config["task"], config["seed"], config["args"]["lr"]) == ("toy", "levels", 0, 5e-3)
    assert (config["watched"], config["mode"]) == ("val_class_accuracy", "max")
    assert config["trainable_parameters"] == sum(p.numel() for p in objective.model.parameters())
    assert {"git_commit", "versions", "command", "recipe", "method", "pretrained"} <= set(config)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["training"]["toy"]["examples_per_class"] == [8, 8, 8]
    assert split["validation"]["toy"]["split"] == {"method": "random"}
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [str(n) for n in range(1, 9)]
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path):
    args = loop_args(epochs=4, lr=5e-3)
    objective, loaders = finetuning(args)
    result = fit(objective, loaders, args, tmp_path / "run")
    model = registry.load(tmp_path / "run" / "weights.safetensors")
    batch = loaders.validation[0].batch(torch.arange(12))
    with torch.no_grad():
        right = model(batch["tile"], batch["log10_rate"]).argmax(1) == batch["target"]
    assert np.mean([right[batch["target"] == c].float().mean() for c in range(3)]) == pytest.approx(result["best"])
    extra = registry.read(tmp_path / "run" / "weights.safetensors").extra
    assert extra["row"]["epoch"] == result["best_epoch"]
    assert extra["head"]["labels"] == list(LABELS)
    assert extra["preprocess"]["mean"] == [0.3]


def test_the_last_weights_on_request(tmp_path):
    args = loop_args(epochs=3, keep="last", ema_decay=0.5)
    objective, loaders = finetuning(args)
    fit(objective, loaders, args, tmp_path / "run")
    assert registry.read(tmp_path / "run" / "weights.safetensors").extra["row"]["epoch"] == 3
    state = load_file(next((tmp_path / "run" / "state").glob("*.safetensors")))
    kept = load_file(tmp_path / "run" / "weights.safetensors")
    assert torch.equal(kept["head.weight"], state["ema.head.weight"])  # the averages
    assert not torch.equal(kept["head.weight"], state["model.head.weight"])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        args = loop_args(epochs=1, seed=seed)
        found.append(fit(*pretraining(args, {"one": (16, 1)}), args, tmp_path / name)["train_loss"])
    assert found[0] == found[1] != found[2]


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path):
    """Without drop path and augmentation; the last group of an epoch is smaller and counts in full."""
    kept = []
    for name, options in (("large", {"batch_size": 8}), ("small", {"batch_size": 4, "accumulate": 2})):
        args = loop_args(epochs=2, lr=1e-3, **options)
        objective, loaders = finetuning(args, n=24, trainable="last")
        objective.model.set_trainable()
        result = fit(objective, loaders, args, tmp_path / name)
        kept.append((result["steps"], objective.model.head.weight.detach()))
    assert kept[0][0] == kept[1][0] == 6
    torch.testing.assert_close(kept[0][1], kept[1][1], rtol=1e-3, atol=1e-5)


def test_the_last_group_of_an_epoch_counts(tmp_path):
    args = loop_args(epochs=2, batch_size=8, accumulate=2)
    result = fit(*finetuning(args, n=24), args, tmp_path / "run")  # 3 batches: a group of two and one of one
    assert result["steps"] == 4


def test_schedule_by_optimiser_steps():
    factors = [lr_factor(step, 4, 20, 0.1) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert (np.diff(factors[4:]) < 0).all()
    assert factors[-1] == pytest.approx(0.1)
    middle = lr_factor(4 + 15 // 2, 4, 20, 0.0) + lr_factor(4 + 15 - 15 // 2, 4, 20, 0.0)
    assert middle == pytest.approx(1)  # a cosine is symmetric


def test_the_learning_rate_of_a_run_follows_the_schedule(tmp_path):
    args = loop_args(epochs=3, lr=1e-2, min_lr=1e-4, warmup_epochs=1)
    fit(*finetuning(args), args, tmp_path / "run")
    found = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert found == pytest.approx([1e-2 * lr_factor(step, 3, 9, 1e-2) for step in (2, 5, 8)])
    decayed = loop_args(epochs=3, lr=1e-2, min_lr=1e-4, warmup_epochs=1, layer_decay=0.5)
    fit(*finetuning(decayed), decayed, tmp_path / "decayed")
    assert [float(row["lr"]) for row in rows(tmp_path / "decayed")] == found  # of no single group


def test_layer_decay_scales_groups_and_the_schedule_keeps_their_ratio():
    args = loop_args(layer_decay=0.5)
    objective, _ = finetuning(args)
    optimizers = make_optimizers(objective.model, objective.parameter_groups(1e-2, 0.05, 0.5), args, (0.9, 0.999))
    assert len(optimizers) == 1 and optimizers[0].defaults["fused"]
    peaks = sorted({group["peak_lr"] for group in optimizers[0].param_groups})
    assert peaks == pytest.approx([1.25e-3, 2.5e-3, 5e-3, 1e-2])


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    args = loop_args(optimizer="muon")
    objective, _ = pretraining(args, {"one": (8, 1), "three": (8, 3)})
    model = objective.model
    muon, adamw = make_optimizers(model, objective.parameter_groups(1e-3, 0.05, 1.0), args, objective.betas)
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    expected = {n for n, p in model.named_parameters() if "blocks." in n and p.ndim == 2}
    assert isinstance(muon, torch.optim.Muon) and taken == expected
    assert any(name.startswith("encoder.blocks.1.") for name in taken) and any("decoder_blocks" in n for n in taken)
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert rest | taken == set(names.values()) and not rest & taken
    assert adamw.param_groups[0]["betas"] == (0.9, 0.95)


def test_a_parameter_that_no_group_has_is_named():
    model = nn.Linear(2, 2)
    group = {"params": [model.weight], "lr": 1e-3, "weight_decay": 0.0}
    with pytest.raises(ConfigurationError, match="parameter groups: found no bias"):
        make_optimizers(model, [group], loop_args(), (0.9, 0.95))
    with pytest.raises(ConfigurationError, match="parameter groups: found weight"):
        make_optimizers(model, [group, group], loop_args(), (0.9, 0.95))


def test_averaged_weights_are_swapped_in_and_out_again():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = AveragedWeights(model, 0.5)
        model.weight.fill_(1.0)
    average.update(0)  # decay min(0.5, 1 / 10)
    average.update(1000)
    assert float(average.average["weight"]) == pytest.approx(0.95)
    with average.swapped():
        assert model.weight.item() == pytest.approx(0.95)
    assert model.weight.item() == 1.0


def test_an_early_end(tmp_path):
    args = loop_args(epochs=30, lr=1e-30, min_lr=0.0, patience=2)  # nothing improves
    result = fit(*finetuning(args), args, tmp_path / "run")
    assert (result["epochs"], result["best_epoch"]) == (3, 1)
    assert len(rows(tmp_path / "run")) == 3


def test_validation_every_other_epoch(tmp_path):
    args = loop_args(epochs=3, validate_every=2)
    fit(*finetuning(args), args, tmp_path / "run")
    assert [bool(row["val_loss"]) for row in rows(tmp_path / "run")] == [False, True, True]


def test_without_validation_the_last_weights_are_kept(tmp_path):
    args = loop_args()
    objective, loaders = finetuning(args)
    fit(objective, Loaders(loaders.training), args, tmp_path / "run")
    assert registry.read(tmp_path / "run" / "weights.safetensors").extra["row"]["epoch"] == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["watched"] is None


def test_a_loss_that_is_not_finite_stops_with_its_batch_kept(tmp_path, monkeypatch):
    args = loop_args(epochs=2)
    objective, loaders = finetuning(args)
    loaders.training[0].host["image"][5, 0, 3, 3] = float("nan")
    with pytest.raises(
        RunError, match=r"loss at step \d: found one that is not finite, expected .* its batch is in"
    ) as e:
        fit(objective, loaders, args, tmp_path / "run")
    step = int(str(e.value).split("loss at step ")[1][0])
    batch = load_file(tmp_path / "run" / f"nonfinite-step-{step}-rank-0.safetensors")
    assert 5 in batch["index"]
    assert torch.isnan(batch["tile"][batch["index"] == 5]).any() and batch["target"].shape == (8,)
    assert not (tmp_path / "run" / "state").exists()  # no state with spoilt weights


def test_a_loss_that_was_looked_at_late_names_its_own_batch(tmp_path, monkeypatch):
    """As on a GPU, where the loop looks now and then only: the batch is made again, augmentation included."""
    monkeypatch.setattr(TrainingLoop, "_account", late_account)
    seen = []
    args = loop_args(epochs=1)
    objective, loaders = pretraining(args, {"one": (40, 1)})
    real = objective.training_loss

    def loss(batch, draws):
        seen.append(batch)
        return real(batch, draws) * (math.nan if len(seen) == 3 else 1.0)

    objective.training_loss = loss
    with pytest.raises(RunError, match="loss at step 3"):
        fit(objective, loaders, args, tmp_path / "run")
    assert len(seen) == 5
    kept = load_file(tmp_path / "run" / "nonfinite-step-3-rank-0.safetensors")
    assert torch.equal(kept["tile"], seen[2]["tile"])


def late_account(self, loss):
    """_account without its look."""
    number = self.epoch * self.per_epoch + self.batch
    bad = (self.first_bad < 0) & ~torch.isfinite(loss)
    self.first_bad = torch.where(bad, torch.full_like(self.first_bad, number), self.first_bad)
    self.loss_sum += loss.double()
    self.batch += 1


def test_bfloat16_learns_too(tmp_path):
    args = loop_args(epochs=6, lr=5e-3, precision="bf16-mixed")
    objective, loaders = finetuning(args)
    assert fit(objective, loaders, args, tmp_path / "run")["best"] > 0.9
    assert objective.model.head.weight.dtype == torch.float32


def test_compile_is_asked_of_the_model(tmp_path, monkeypatch):
    """With the tracing backend, which is quick: the compiled model gives the losses of the eager one."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="eager"))
    found = []
    for name, compiled in (("eager", False), ("compiled", True)):
        args = loop_args(compile=compiled)
        found.append(fit(*pretraining(args, {"one": (16, 1)}), args, tmp_path / name)["train_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_compile_reaches_what_is_run_on_cached_features(tmp_path, monkeypatch):
    asked, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or real(function, backend="eager"))
    found = []
    for name, compiled in (("eager", False), ("compiled", True)):
        args = loop_args(compile=compiled, epochs=1)
        made = finetuning(args, trainable="last", cache_prefix="always")
        found.append(fit(*made, args, tmp_path / name)["train_loss"])
        assert [function.__name__ for function in asked[1:]] == ["from_prefix"] * compiled
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_commit_is_the_trainers_own(tmp_path, monkeypatch):
    def git(*arguments):
        options = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    for name in ("tracked.py", "installed.py"):
        (tmp_path / name).write_text("")
    git("init")
    git("add", "tracked.py")
    git("commit", "-m", "x")
    theirs = git("rev-parse", "HEAD").stdout.strip()
    assert runs_module.git_commit(tmp_path / "tracked.py") == theirs
    assert runs_module.git_commit(tmp_path / "installed.py") is None
    monkeypatch.chdir(tmp_path)
    args = loop_args(epochs=1)
    fit(*finetuning(args), args, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["git_commit"] == runs_module.git_commit(Path(runs_module.__file__)) != theirs


def test_several_data_sets_are_reported_each(tmp_path):
    args = loop_args(epochs=1)
    fit(*pretraining(args, {"one": (16, 1), "three": (9, 3)}), args, tmp_path / "run")
    row = rows(tmp_path / "run")[0]
    each = [float(row["val_loss_one"]), float(row["val_loss_three"])]
    assert float(row["val_loss"]) == pytest.approx(np.mean(each))
    note = safe_open(tmp_path / "run" / "weights.safetensors", framework="pt").metadata()
    assert set(json.loads(note["extra"])["data"]) == {"one", "three"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs: found 0"),
        ({"warmup_epochs": 5.0}, r"warmup_epochs: found 5.0, expected 0 to below epochs \(2\)"),
        ({"min_lr": 1.0}, "min_lr: found 1.0"),
        ({"precision": "16-mixed"}, "precision: found '16-mixed', expected one of 32-true, bf16-mixed"),
        ({"optimizer": "adam"}, "optimizer: found 'adam', expected one of adamw, muon"),
        ({"ema_decay": 1.0}, "ema_decay: found 1.0"),
        ({"lr": math.nan}, "lr: found nan"),
    ],
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(ConfigurationError, match="LoopArgs: " + named):
        loop_args(**options)


def test_two_data_sets_of_one_name_are_refused():
    twice = [DeviceExamples(examples(8), "a"), DeviceExamples(examples(8), "a")]
    with pytest.raises(ConfigurationError, match=r"training: found .*, expected data sets of different names"):
        Loaders(twice)


def test_progress_only_on_a_terminal(tmp_path, monkeypatch, capsys):
    args = loop_args(epochs=1, progress=True)
    fit(*finetuning(args), args, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(runs_module.sys, "stderr", terminal := Terminal())
    fit(*finetuning(args), args, tmp_path / "shown")
    assert "3/3" in terminal.getvalue()


def test_each_epoch_is_logged(tmp_path, caplog):
    args = loop_args(epochs=1)
    with caplog.at_level(logging.INFO, "wavesfm_trainer.training"):
        fit(*finetuning(args), args, tmp_path / "run")
    assert any("epoch 1:" in m and "val_class_accuracy" in m for m in caplog.messages)


def test_the_loop_holds_no_randomness_of_its_own(tmp_path):
    """torch's generator is where it was: nothing in a run draws from it, so nothing of it is missing in a state."""
    args = loop_args(epochs=1)
    made = pretraining(args, {"one": (16, 1)})
    before = torch.get_rng_state()
    fit(*made, args, tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
