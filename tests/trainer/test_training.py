"""The loop on a toy network and made-up tiles."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.spec import SpectrogramSpec, to_dict
from wavesfm_trainer import training
from wavesfm_trainer.evaluation import TorchEngine, load_run, predict_tiles
from wavesfm_trainer.model import SIZES, ViT, ViTSize
from wavesfm_trainer.tiles import Tiles, read_cache
from wavesfm_trainer.training import FREQUENCY_ROLL, TileBatches, TrainArgs, augmented, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),  # config.json is there already
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]
LABELS = ("column", "bars", "edges", "flat")


@pytest.fixture(autouse=True)
def toy_size(monkeypatch):
    monkeypatch.setitem(SIZES, "toy", ViTSize(depth=1, width=32, heads=2))
    monkeypatch.setattr(training.L.Trainer, "__init__", _quiet(training.L.Trainer.__init__))


def _quiet(init):
    def wrapped(self, *args, **options):
        init(self, *args, **{**options, "accelerator": "cpu"})

    return wrapped


def made_up(n, seed):
    """Pictures of four kinds that stay what they are when mirrored in frequency and rolled in time."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(40, 80, (n, 224, 224)).astype(np.uint8)
    label = np.arange(n) % 4
    picture[label == 0, :, 96:128] = 220
    picture[label == 1, ::8] = 220
    picture[label == 2, :, :16] = picture[label == 2, :, -16:] = 220
    ones = np.ones(n, np.float32)
    return Tiles(picture, label.astype(np.int64), 6 * ones, 20 * ones, (448 * ones).astype(np.int32))


def cache(directory, n=24, seed=0, labels=LABELS):
    directory.mkdir()
    note = {"spec": to_dict(SpectrogramSpec()), "labels": list(labels), "drawn": list(labels), "seed": 1}
    (directory / "cache.json").write_text(json.dumps(note))
    np.savez(directory / "shard-00000.npz", **vars(made_up(n, seed)))
    return directory


@pytest.fixture
def caches(tmp_path):
    return cache(tmp_path / "train"), cache(tmp_path / "val", 12, seed=1)


def args(**options):
    usual = {"size": "toy", "batch_size": 8, "warmup_steps": 5, "max_steps": 4, "steps_per_epoch": 20, "lr": 3e-3}
    return TrainArgs(**{**usual, "ema_decay": 0.8, "precision": "32-true", **options})


def columns(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {name: [float(row[name]) for row in rows if row.get(name)] for name in ("train_loss", "val_accuracy", "lr")}


def test_a_run_learns_and_leaves_what_evaluation_reads(caches, tmp_path):
    run = train(*caches, tmp_path / "run", args(max_steps=40, lr=5e-3, keep=((1.0, 1.0),)))
    found = columns(run)
    assert found["train_loss"][-1] < 0.8 < np.log(4)
    assert found["val_accuracy"][-1] > 0.7  # chance is 0.25
    assert found["lr"][-1] < 0.1 * 5e-3
    config = json.loads((run / "config.json").read_text())
    assert config["labels"] == list(LABELS)
    assert config["args"]["max_steps"] == 40
    data = read_cache(caches[0])
    assert config["spec"]["mean"] == pytest.approx(data.picture.mean() / 255, abs=1e-3)
    assert config["spec"]["std"] == pytest.approx(data.picture.std() / 255, abs=1e-3)
    trained = load_run(run)
    validation = read_cache(caches[1])
    predicted = predict_tiles(TorchEngine(trained.model), validation, trained.preprocess).argmax(1)
    assert np.mean(predicted == validation.label) == pytest.approx(found["val_accuracy"][-1], abs=1e-6)


def test_the_seed_decides_the_weights(caches, tmp_path):
    runs = [train(*caches, tmp_path / name, args(seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, same, other = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_what_is_kept_are_the_averaged_weights_also_midway(caches, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(training, "save_weights", lambda model, path: kept.append(model.head.weight.clone()))
    # With a decay of 1 the average stays what it was after the first step.
    train(*caches, tmp_path / "run", args(max_steps=7, steps_per_epoch=2, ema_decay=1.0))
    assert len(kept) == 2  # after three epochs and at the end
    assert torch.equal(kept[0], kept[1])


def test_training_may_start_from_weights(caches, tmp_path):
    first = train(*caches, tmp_path / "first", args())
    start = first / "model.safetensors"
    again = train(*caches, tmp_path / "again", args(max_steps=1, lr=0.0, seed=9), start_from=start)
    before, after = load_file(start), load_file(again / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_share_of_patches_follows_the_schedule(caches, tmp_path, monkeypatch):
    seen, forward = [], ViT.forward

    def spy(self, tile, rate):
        if self.training:
            seen.append(self.keep)
        return forward(self, tile, rate)

    monkeypatch.setattr(ViT, "forward", spy)
    train(*caches, tmp_path / "run", args(max_steps=10, keep=((0.45, 0.25), (0.85, 0.5), (1.0, 1.0))))
    assert seen == [0.25] * 5 + [0.5] * 4 + [1.0]


def test_a_loss_that_is_not_finite_ends_the_run(caches, tmp_path, monkeypatch):
    forward, calls = ViT.forward, []

    def breaks(self, tile, rate):
        calls.append(1)
        return forward(self, tile, rate) * (float("nan") if len(calls) > 2 else 1.0)

    monkeypatch.setattr(ViT, "forward", breaks)
    with pytest.raises(FloatingPointError, match="step 2: loss: found nan, expected a finite number"):
        train(*caches, tmp_path / "run", args())


def test_minutes_end_a_run(caches, tmp_path):
    run = train(*caches, tmp_path / "run", args(max_steps=100_000, max_minutes=1e-9))
    assert (run / "model.safetensors").exists()


def test_a_cache_that_grows_is_read_again(caches):
    data = training.GrowingTiles(caches[0], read_cache(caches[1]), args(), 0.25, 0.1)
    assert len(data.train_dataloader().dataset) == 24
    np.savez(caches[0] / "shard-00001.npz", **vars(made_up(8, 3)))
    assert len(data.train_dataloader().dataset) == 32


def test_validation_of_other_labels_is_refused(caches, tmp_path):
    other = cache(tmp_path / "other", labels=LABELS[::-1])
    with pytest.raises(InputError, match="labels"):
        train(caches[0], other, tmp_path / "run", args())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "huge"}, "size"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"keep": ()}, "keep"),
        ({"keep": ((0.5, 1.0),)}, "keep"),
        ({"keep": ((0.9, 0.5), (0.3, 0.5), (1.0, 1.0))}, "keep"),
        ({"keep": ((1.0, 0.0),)}, "keep"),
        ({"keep": ((1.0, 1.5),)}, "keep"),
    ],
)
def test_contradictory_options_are_refused_by_name(options, field):
    with pytest.raises(ConfigurationError) as caught:
        TrainArgs(**options)
    assert field in caught.value.field


def test_batches_are_standardised_and_rates_hidden():
    tiles = made_up(400, 0)
    torch.manual_seed(0)
    plain = TileBatches(tiles, 0.3, 0.2).__getitems__([3, 5])
    expected = (tiles.picture[[3, 5], None] / 255 - 0.3) / 0.2
    assert np.allclose(plain["tile"].numpy(), expected, atol=1e-5)
    assert plain["log10_rate"].ravel().tolist() == [6.0, 6.0]
    assert plain["label"].tolist() == [3, 1]
    rate = TileBatches(tiles, 0.3, 0.2, 0.25, augment=True).__getitems__(list(range(400)))["log10_rate"]
    assert 0.15 < float((rate == 0).float().mean()) < 0.35
    assert float((rate[rate > 0] - 6).abs().max()) < 0.1
    assert tiles.log10_rate.min() == 6  # the cache itself is not changed


def test_augmentation_mirrors_rolls_and_shifts_each_tile_as_a_whole():
    torch.manual_seed(3)
    source = torch.rand(1, 1, 32, 32)
    out = augmented(source.repeat(60, 1, 1, 1))
    shifts = range(-FREQUENCY_ROLL, FREQUENCY_ROLL + 1)
    keys = [(mirror, roll, shift) for mirror in (False, True) for roll in range(32) for shift in shifts]
    candidates = torch.cat([(source.flip(-1) if m else source).roll((r, s), dims=(-2, -1)) for m, r, s in keys])
    found, shifted = set(), set()
    for picture in out:
        matches = ((candidates - picture).abs().amax(dim=(1, 2, 3)) < 0.08).nonzero().ravel().tolist()
        assert len(matches) == 1
        mirror, roll, shift = keys[matches[0]]
        found.add((mirror, roll > 0))
        shifted.add(shift)
    assert found == {(False, False), (False, True), (True, False), (True, True)}
    assert min(shifted) < 0 < max(shifted)
