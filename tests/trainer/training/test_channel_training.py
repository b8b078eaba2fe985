# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of the channel estimator: its batches, its loss, that it beats LMMSE, resuming, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.toy_pools import COMB, SPEC, channels, write
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.estimators import LMMSE
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.pilot_grid import at_pilots, least_squares_tiles, observe
from wavesfm_trainer import cli
from wavesfm_trainer.data.channel_pool import ChannelPool
from wavesfm_trainer.data.numerologies import read_numerology
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.channel_model import ChannelModel, ModeArgs
from wavesfm_trainer.models.step_random import StepRandom
from wavesfm_trainer.models.vit import EncoderArgs
from wavesfm_trainer.report.html_report import write_report
from wavesfm_trainer.training import Loaders, LoopArgs, RunError
from wavesfm_trainer.training.channel_batches import ChannelExamples, SlotArgs
from wavesfm_trainer.training.channel_objective import ChannelObjective
from wavesfm_trainer.training.experiment import train_channels
from wavesfm_trainer.training.objectives import ValidationBatch
from wavesfm_trainer.training.recipes import read_recipe, recipe_names

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves
ENCODER = EncoderArgs(size="custom", depth=2, width=32, heads=2, decoder_depth=1, decoder_width=16, decoder_heads=2)
MODES = ModeArgs(frequency_modes=8, patch=4)
LOOP = LoopArgs(epochs=2, batch_size=20, lr=2e-3, ema_decay=0.9, tensorboard=False, progress=False)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Folder with train.h5, validation.h5 and, of another numerology, comb.h5."""
    root = tmp_path_factory.mktemp("pools")
    write(root / "train.h5", SPEC, channels(SPEC, 400, seed=1), seed=1)
    write(root / "validation.h5", SPEC, channels(SPEC, 60, seed=2), seed=2)
    write(root / "comb.h5", COMB, channels(COMB, 30, seed=3), seed=3)
    return root


def recipe(**loop):
    slots = SlotArgs(validation_snr_db=(-5.0, 10.0), validation_slots=50)
    made = replace(read_recipe("chanest"), model=ENCODER, modes=MODES, slots=slots, seeds=(0,))
    return replace(made, loop=replace(LOOP, **loop))


def train(pools, out, made=None, **options):
    return train_channels(made or recipe(), [pools / "train.h5"], pools / "validation.h5", out, **options)


def complex_ls(tile: torch.Tensor) -> np.ndarray:
    """[B, 2 P, A, Fp] -> complex [B, A, P, Fp]."""
    batch, rows, antennas, pilots = tile.shape
    parts = tile.numpy().reshape(batch, rows // 2, 2, antennas, pilots)
    return (parts[:, :, 0] + 1j * parts[:, :, 1]).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("name", ["train", "comb"])
def test_a_batch_is_what_core_makes_of_such_slots(pools, name):
    pool = ChannelPool(pools / f"{name}.h5")
    batch = ChannelExamples(pool, name, SlotArgs()).batch(torch.arange(20), StepRandom(0, 1))
    root = batch["power"].sqrt().numpy()[:, None, None, None]
    ls = np.ascontiguousarray(complex_ls(batch["tile"]) * root, np.complex64)
    grids = np.zeros((20, *pool.spec.grid_shape), np.complex64)
    grids[:, :, list(pool.spec.pilot_symbols), pool.spec.pilot_offset :: pool.spec.pilot_step] = ls * pool.spec.pilots
    seen = observe(grids, pool.spec)
    tiles, roots = least_squares_tiles(seen.ls)
    assert batch["tile"].numpy() == pytest.approx(tiles, abs=1e-5)
    assert batch["power"].sqrt().numpy() == pytest.approx(roots, rel=1e-5)
    assert batch["snr_db"][:, 0].numpy() == pytest.approx(seen.snr_db, abs=2e-3)
    true_db = -10 * np.log10(batch["noise"].numpy())
    assert -11 <= true_db.min() < 0 and 10 < true_db.max() <= 21
    apart = complex_ls(batch["tile"] - batch["pilots"]) * root
    noise = np.mean(np.abs(apart) ** 2, axis=(1, 2, 3))
    assert noise / batch["noise"].numpy() == pytest.approx(np.ones(20), abs=0.6)
    channel = at_pilots(pool.read(0, 20), pool.spec)
    turned = complex_ls(batch["pilots"]) * root / channel
    assert np.abs(turned) == pytest.approx(np.ones_like(channel, np.float64), abs=0.02)
    phases = np.angle(turned[:, 0, 0, 0])
    assert np.ptp(phases) > 3  # one of its own for each slot, and the same all over the slot
    assert turned == pytest.approx(np.broadcast_to(np.exp(1j * phases)[:, None, None, None], turned.shape), abs=0.02)


def test_batches_are_a_function_of_seed_and_step(pools):
    examples = ChannelExamples(ChannelPool(pools / "train.h5"), "train", SlotArgs())
    one, same, other = (examples.batch(torch.arange(8), StepRandom(0, step)) for step in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["snr_db"], other["snr_db"])


def test_validation_is_the_same_each_time_and_on_the_whole_grid(pools):
    pool = ChannelPool(pools / "validation.h5")
    args = SlotArgs(validation_snr_db=(-5.0, 10.0))
    examples = ChannelExamples(pool, "validation", args, seed=3, grids=True, count=50)
    batches = list(examples.batches(20))
    assert [(n, len(b["tile"]), int(b["at"][0])) for n, b in batches] == [
        (0, 20, 0), (1, 20, 0), (2, 10, 0), (3, 20, 1), (4, 20, 1), (5, 10, 1),
    ]  # fmt: skip
    again = dict(examples.batches(20, rank=1, world=2))
    assert sorted(again) == [1, 3, 5] and torch.equal(again[3]["tile"], batches[3][1]["tile"])
    batch = batches[4][1]
    root = batch["power"].sqrt().numpy()[:, None, None, None]
    parts = batch["target"].numpy().reshape(20, 2, *SPEC.grid_shape)
    assert (parts[:, 0] + 1j * parts[:, 1]) * root == pytest.approx(pool.read(20, 20), abs=1e-5)
    assert complex_ls(batch["pilots"]) * root == pytest.approx(at_pilots(pool.read(20, 20), SPEC), abs=1e-5)


def test_the_figures_at_the_start_are_those_of_lmmse(pools):
    pool, learnt = ChannelPool(pools / "validation.h5"), ChannelPool(pools / "train.h5")
    known = Covariances.learn(learnt.batches(100))
    model = ChannelModel.of(MODES, SPEC, ENCODER, known).eval()
    examples = ChannelExamples(pool, "v", SlotArgs(validation_snr_db=(0.0, 15.0)), grids=True)
    objective = ChannelObjective(model)
    objective.prepare(Loaders([examples], [examples]), lambda: None, torch.device("cpu"))
    with torch.no_grad():
        figures = objective.validate((ValidationBatch("v", n, b) for n, b in examples.batches(64)), lambda sums: sums)
    lmmse = LMMSE(SPEC, known)
    for at, snr_db in enumerate((0.0, 15.0)):
        batch = list(examples.batches(64))[at][1]
        root = batch["power"].sqrt().numpy()[:, None, None, None]
        grids = np.zeros((60, *SPEC.grid_shape), np.complex64)
        grids[:, :, list(SPEC.pilot_symbols)] = complex_ls(batch["tile"]) * root * SPEC.pilots
        h = pool.read(0, 60)
        error = np.sum(np.abs(lmmse.estimate(grids) - h) ** 2) / np.sum(np.abs(h) ** 2)
        assert figures[f"val_nmse_db_{snr_db:g}"] == pytest.approx(10 * np.log10(error), abs=0.01)
    assert figures["val_nmse_db"] == pytest.approx((figures["val_nmse_db_0"] + figures["val_nmse_db_15"]) / 2)


def test_the_loss_is_1_for_lmmse_at_every_snr(pools):
    pool = ChannelPool(pools / "train.h5")
    model = ChannelModel.of(MODES, SPEC, ENCODER, Covariances.learn(pool.batches(100)))
    objective = ChannelObjective(model)
    for snr_db in (-5.0, 20.0):
        examples = ChannelExamples(pool, "train", SlotArgs(snr_db=(snr_db, snr_db)))
        loss = objective.training_loss(examples.batch(torch.arange(400), StepRandom(0, 0)), StepRandom(0, 1))
        assert float(loss) == pytest.approx(1.0, abs=0.15)


def test_a_short_training_is_better_than_lmmse(pools, tmp_path):
    result = train(pools, tmp_path / "run", recipe(epochs=12, lr=4e-3, ema_decay=0.0))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = Covariances.learn(ChannelPool(pools / "train.h5").batches(128))
    model = ChannelModel.of(MODES, SPEC, ENCODER, known)
    objective = ChannelObjective(model.eval())
    examples = ChannelExamples(ChannelPool(pools / "validation.h5"), "v", recipe().slots, 0, True, 50)
    objective.prepare(Loaders([examples], [examples]), lambda: None, torch.device("cpu"))
    with torch.no_grad():
        before = objective.validate((ValidationBatch("v", n, b) for n, b in examples.batches(20)), lambda sums: sums)
    assert result["best"] < before["val_nmse_db"] - 0.2
    assert float(rows[-1]["val_nmse_db_-5"]) < before["val_nmse_db_-5"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["command"], config["watched"], config["mode"]) == ("train-channels", "val_nmse_db", "min")
    assert config["data"]["training"]["train"]["scenario"]["model"] == "umi"


def test_the_report_draws_decibels_on_a_linear_axis(pools, tmp_path, recwarn):
    train(pools, tmp_path / "run", recipe(epochs=2))
    page = write_report(tmp_path).read_text()
    assert "Over epochs" in page
    assert not [w for w in recwarn if "log-scaled" in str(w.message)]


def test_a_run_that_was_stopped_goes_on_exactly(pools, tmp_path, monkeypatch):
    from wavesfm_trainer.training import channel_objective

    made = recipe(save_every=7)
    train(pools, tmp_path / "whole", made)
    steps = iter(range(1000))
    loss = channel_objective.ChannelObjective.training_loss

    def stopping(self, batch, draws):
        if next(steps) == 30:
            raise KeyboardInterrupt
        return loss(self, batch, draws)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(channel_objective.ChannelObjective, "training_loss", stopping)
        train(pools, tmp_path / "cut", made)
    train(pools, tmp_path / "cut", made)
    whole, cut = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    with pytest.raises(RunError, match=r"modes\.frequency_modes"):
        train(pools, tmp_path / "cut", replace(made, modes=ModeArgs(frequency_modes=7)))
    with pytest.raises(RunError, match=r"slots\.snr_db"):
        train(pools, tmp_path / "cut", replace(made, slots=replace(made.slots, snr_db=(0.0, 5.0))))


def call(*arguments):
    """Exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


@pytest.mark.parametrize("name", [n for n in recipe_names() if read_recipe(n).command == "train-channels"])
def test_recipes_run_with_the_numerology_that_they_are_for(name, tmp_path):
    spec = read_numerology("nr106" if name == "chanest-nr" else "paper")
    for part, seed in (("train", 1), ("validation", 2)):
        write(tmp_path / f"{part}.h5", spec, channels(spec, 8, seed), seed)
    toy = {"size": "custom", "depth": 1, "width": 16, "heads": 2, "decoder_depth": 1, "decoder_width": 16}
    changes = {f"model.{key}": value for key, value in {**toy, "decoder_heads": 2}.items()}
    changes |= {"loop.batch_size": 4, "loop.tensorboard": "false", "slots.validation_slots": 4}
    options = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    data = ["--train", tmp_path / "train.h5", "--validation", tmp_path / "validation.h5"]
    assert call("train-channels", name, *data, "--out", tmp_path / "run", "--epochs", 1, *options) == 0
    assert registry.load(tmp_path / "run" / "weights.safetensors").spec == spec


def test_several_pools_take_turns_and_covariances_may_be_given(pools, tmp_path):
    write(tmp_path / "other.h5", SPEC, channels(SPEC, 40, seed=7, n_paths=4), seed=7, model="uma")
    known = Covariances.learn([channels(SPEC, 100, seed=9)])
    known.save(tmp_path / "known.npz")
    train_channels(
        recipe(epochs=1),
        [pools / "train.h5", tmp_path / "other.h5"],
        pools / "validation.h5",
        tmp_path / "run",
        tmp_path / "known.npz",
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert set(config["data"]["training"]) == {"train", "other"} and len(config["objective"]["covariances"]) == 64
    model = registry.load(tmp_path / "run" / "weights.safetensors")
    assert model.covariances().frequency == pytest.approx(known.frequency, abs=1e-6)


def test_pools_that_do_not_fit_are_refused_by_name(pools, tmp_path):
    with pytest.raises(InputError, match=r"comb\.h5: numerology\.antennas"):
        train_channels(recipe(), [pools / "train.h5"], pools / "comb.h5", tmp_path / "run")
    with pytest.raises(InputError, match="seed: found 1, as of a training"):
        train_channels(recipe(), [pools / "train.h5"], pools / "train.h5", tmp_path / "run")
    with pytest.raises(InputError, match="space"):
        Covariances.learn([channels(COMB, 50)]).save(tmp_path / "comb.npz")
        train(pools, tmp_path / "run", covariances=tmp_path / "comb.npz")
    with pytest.raises(ConfigurationError, match="command"):
        train(pools, tmp_path / "run", replace(recipe(), command="finetune"))
    with pytest.raises(InputError, match="nothing"):
        train_channels(recipe(), [tmp_path / "none.h5"], pools / "validation.h5", tmp_path / "run")


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"snr_db": (5.0, 0.0)}, "snr_db"),
        ({"snr_db": (-90.0, 0.0)}, "snr_db"),
        ({"validation_snr_db": ()}, "validation_snr_db"),
        ({"validation_snr_db": (0.0, 0.0)}, "validation_snr_db"),
        ({"validation_slots": 0}, "validation_slots"),
    ],
)
def test_slot_options_are_refused_by_name(args, field):
    with pytest.raises(ConfigurationError, match=field):
        SlotArgs(**args)


@pytest.mark.parametrize(
    ("change", "said"),
    [("task=positioning", "task"), ("modes.patch=0", "patch"), ("data={x: {}}", "data"), ("slots.colour=1", "colour")],
)
def test_recipes_that_contradict_are_refused_by_key(change, said):
    with pytest.raises(ConfigurationError, match=said):
        read_recipe("chanest", [change])


def test_other_recipes_have_no_modes():
    with pytest.raises(ConfigurationError, match="modes: found a value, expected none with command finetune"):
        read_recipe("positioning", ["modes.patch=4"])
