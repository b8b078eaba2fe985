# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches on the device, their order, augmentation, the frozen part computed once, and what does not fit."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.loop_toys import SIDE, examples, finetuning, head, loop_args, pretraining
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.models.step_random import StepRandom
from wavesfm_trainer.training import Augmentation, DeviceExamples, FinetuneArgs, FinetuneObjective, Loaders, fit
from wavesfm_trainer.training.augmentation import FREQUENCY_ROLL_PX, crop_and_flip, mirror_and_roll
from wavesfm_trainer.training.batches import move, refuse_too_large
from wavesfm_trainer.training.feature_cache import FEATURE_DTYPES, cache_prefix, prefix_bytes
from wavesfm_trainer.training.objectives import ValidationBatch

CPU = torch.device("cpu")


def prepared(objective, loaders):
    objective.prepare(loaders, nullcontext, CPU)
    objective.model.eval()
    return objective, loaders


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_batches_are_standardised_as_the_bundle_will(dtype):
    made = examples(10, channels=3, dtype=dtype)
    data = DeviceExamples(made, "toy")
    assert data.tensors["image"].dtype == (torch.uint8 if dtype == np.uint8 else torch.float16)  # kept small
    batch = data.batch(torch.tensor([7, 2]))
    np.testing.assert_allclose(batch["tile"], made.standardised([7, 2]), rtol=1e-5, atol=1e-6)
    assert batch["index"].tolist() == [7, 2] and batch["target"].tolist() == [1, 2]
    assert batch["log10_rate"].shape == (2, 1) and batch["snr_db"].shape == (2,)


def test_the_order_depends_on_seed_and_epoch_and_shows_all():
    data = DeviceExamples(examples(20), "toy")
    assert sorted(data.order(1, 0).tolist()) == list(range(20))
    assert torch.equal(data.order(1, 0), data.order(1, 0))
    for other in (data.order(1, 1), data.order(2, 0), DeviceExamples(examples(20), "other").order(1, 0)):
        assert not torch.equal(data.order(1, 0), other)


def test_repeats_balance_data_sets_as_the_paper_has_them():
    data = DeviceExamples(examples(10), "toy", repeats=3.5)
    order = data.order(0, 0)
    assert len(order) == data.virtual_length == 35
    assert set(torch.bincount(order).tolist()) == {3, 4}


def test_data_sets_in_turn_and_one_that_is_used_up_drops_out():
    large, small = DeviceExamples(examples(20), "large"), DeviceExamples(examples(4, 3), "small", repeats=2)
    plan = Loaders([large, small]).plan(0, 0, batch_size=4)
    assert [part.examples.name for part in plan] == ["large", "small"] * 2 + ["large"] * 3
    shown = torch.cat([part.index for part in plan if part.examples is large])
    assert sorted(shown.tolist()) == list(range(20))


def test_the_last_batch_is_filled_up_from_the_same_order():
    data = DeviceExamples(examples(10), "toy")
    plan = Loaders([data]).plan(0, 0, batch_size=4)
    assert [len(part.index) for part in plan] == [4, 4, 4]
    shown = torch.cat([part.index for part in plan])
    assert torch.equal(shown, torch.cat([data.order(0, 0), data.order(0, 0)[:2]]))
    assert len(Loaders([data]).plan(0, 0, batch_size=64)[0].index) == 10


def test_processes_share_each_batch():
    data = DeviceExamples(examples(10), "toy")
    whole = Loaders([data]).plan(3, 1, batch_size=4)
    halves = [Loaders([data]).plan(3, 1, batch_size=4, rank=rank, world=2) for rank in (0, 1)]
    for one, first, second in zip(whole, *halves):
        assert torch.equal(one.index, torch.cat([first.index, second.index]))


def test_validation_batches_show_every_example_once_over_all_processes():
    data = DeviceExamples(examples(10), "toy")
    seen = [batch["index"] for rank in (0, 1) for _, batch in data.batches(4, rank, 2)]
    assert sorted(torch.cat(seen).tolist()) == list(range(10))


@pytest.mark.parametrize("kind", ["csi", "spectrogram"])
def test_augmentation_is_the_same_for_one_process_and_for_two(kind):
    data = DeviceExamples(examples(8, 3), "toy", Augmentation(kind, rate_hidden=0.5))
    whole = data.batch(torch.arange(8), StepRandom(5, 9))
    parts = [data.batch(torch.arange(8).view(2, 4)[rank], StepRandom(5, 9, rank, 2)) for rank in (0, 1)]
    for key in ("tile", "log10_rate"):
        torch.testing.assert_close(whole[key], torch.cat([part[key] for part in parts]))
    assert not torch.equal(whole["tile"], data.batch(torch.arange(8), StepRandom(5, 10))["tile"])
    assert not torch.equal(whole["tile"], data.batch(torch.arange(8))["tile"])


class Fixed:
    """StepRandom that say what they are told."""

    def __init__(self, *values: float) -> None:
        self.values = torch.tensor(values)

    def rand(self, n, *shape):
        return self.values.expand(n, *shape)


def test_a_crop_is_the_part_of_the_image_it_says():
    """A plane is reproduced by a bicubic resize, but near the border: its values say where the crop lay."""
    plane = torch.linspace(0, 1, SIDE)[None, None, :, None].expand(1, 1, SIDE, SIDE)
    area, aspect_even, place = 0.0, 0.5, 1.0  # the smallest crop, square, at the far end, not flipped
    cropped = crop_and_flip(plane, Fixed(area, aspect_even, place, place, 0.9, 0.9))[0, 0, :, SIDE // 2]
    part = 0.8**0.5
    position = SIDE * (1 - part) + (torch.arange(SIDE) + 0.5) * part - 0.5
    torch.testing.assert_close(cropped[2:-3], (position / (SIDE - 1))[2:-3], atol=1e-4, rtol=0)
    flipped = crop_and_flip(plane, Fixed(area, aspect_even, place, place, 0.1, 0.9))[0, 0, :, SIDE // 2]
    torch.testing.assert_close(flipped, cropped.flip(0))


def test_the_whole_image_cropped_is_the_image():
    image = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(crop_and_flip(image, Fixed(1.0, 0.5, 0.3, 0.3, 0.9, 0.9)), image, atol=1e-5, rtol=0)
    both = crop_and_flip(image, Fixed(1.0, 0.5, 0.3, 0.3, 0.1, 0.1))
    torch.testing.assert_close(both, image.flip(2, 3), atol=1e-5, rtol=0)


def test_a_spectrogram_is_rolled_in_time_shifted_and_mirrored_in_frequency():
    image = torch.rand(2, 1, SIDE, SIDE)
    still = (FREQUENCY_ROLL_PX + 0.5) / (2 * FREQUENCY_ROLL_PX + 1)
    assert torch.equal(mirror_and_roll(image, Fixed(0.5, 0.9, still, 0.9)), image)
    assert torch.equal(mirror_and_roll(image, Fixed(0.5, 0.1, still, 0.9)), image.roll(SIDE // 2, 2))
    assert torch.equal(mirror_and_roll(image, Fixed(0.5, 0.9, 0.999, 0.9)), image.roll(FREQUENCY_ROLL_PX, 3))
    assert torch.equal(mirror_and_roll(image, Fixed(0.5, 0.9, still, 0.1)), image.flip(3))


def test_rates_are_hidden_or_blurred_and_unknown_ones_stay_unknown():
    rate = torch.full((4000, 1), 6.0)
    rate[:100] = 0.0
    found = Augmentation(rate_hidden=0.1).rate(rate, StepRandom(0, 0))
    assert (found[:100] == 0).all()
    hidden = (found[100:] == 0).float().mean()
    assert 0.07 < hidden < 0.13
    left = found[100:][found[100:] > 0]
    assert float(left.std()) == pytest.approx(0.01, rel=0.1) and float(left.mean()) == pytest.approx(6.0, abs=1e-3)


def test_memory_that_does_not_suffice_is_refused_by_name():
    with pytest.raises(
        ConfigurationError, match=r"wifi: memory on cpu: found 9.00 GB needed, expected at most 8.00 GB"
    ):
        refuse_too_large(9_000_000_000, CPU, "wifi", free=10_000_000_000)
    refuse_too_large(7_000_000_000, CPU, "wifi", free=10_000_000_000)
    data = DeviceExamples(examples(10), "toy")
    assert data.bytes_on_device() == 10 * (SIDE * SIDE * 2 + 8 + 4 + 4)
    assert data.bytes_on_device(without_images=True) == 10 * 16


def test_images_that_do_not_fit_a_device_stay_on_the_host(monkeypatch, caplog):
    """On torch's device without memory, which a test has everywhere."""
    device, index = torch.device("meta"), torch.tensor([7, 2])
    here, there, data, alone = (DeviceExamples(examples(10), "toy") for _ in range(4))
    free = 2 * data.bytes_on_device()
    monkeypatch.setattr("wavesfm_trainer.training.batches.free_memory", lambda _: free)
    move([there], device)
    assert {tensor.device for tensor in there.tensors.values()} == {device} and not caplog.text
    free = data.bytes_on_device() // 2
    move([data], device)
    assert data.tensors["image"] is data.host["image"] and data.tensors["target"].device == device
    assert data.batch(index)["tile"].device == device
    assert "images go to meta batch by batch: toy (0.00 GB): memory on meta" in caplog.text
    free = 10
    with pytest.raises(ConfigurationError, match=r"toy .*: memory on meta"):
        move([data], device)
    here.to(CPU, images_on_host=True)
    assert torch.equal(here.batch(index)["tile"], alone.batch(index)["tile"])


@pytest.mark.parametrize("trainable", ["probe", "last"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 5e-2)])
def test_cached_features_give_the_predictions_of_the_model(trainable, dtype, tolerance):
    objective, loaders = finetuning(loop_args(), trainable=trainable, feature_dtype=dtype)
    objective.model.pretrained = True
    plain = loaders.training[0].batch(torch.arange(24))
    prepared(objective, loaders)
    kept = loaders.training[0].batch(torch.arange(24))
    assert objective.cached and "tile" not in kept and kept["features"].dtype == FEATURE_DTYPES[dtype]
    assert "image" not in loaders.training[0].tensors  # not on the device beside them
    with torch.no_grad():
        torch.testing.assert_close(objective.outputs(kept), objective.outputs(plain), rtol=tolerance, atol=tolerance)


def test_features_are_made_once_and_a_run_on_them_ends_like_one_without(tmp_path, monkeypatch):
    ends = []
    for name, cached in (("on", "always"), ("off", "never")):
        args = loop_args(epochs=3)
        objective, loaders = finetuning(args, trainable="last", cache_prefix=cached, feature_dtype="float32")
        calls, real = [], objective.model.prefix
        monkeypatch.setattr(objective.model, "prefix", lambda *a, real=real, calls=calls: calls.append(1) or real(*a))
        result = fit(objective, loaders, args, tmp_path / name)
        assert len(calls) == (
            3 if cached == "always" else 0
        )  # the size of one, then one batch of each split; not per epoch
        ends.append((result["train_loss"], result["val_loss"], objective.model.head.weight.detach()))
    assert ends[0][:2] == pytest.approx(ends[1][:2], rel=1e-4)
    torch.testing.assert_close(ends[0][2], ends[1][2], rtol=1e-3, atol=1e-5)


def test_prefix_is_not_kept_where_it_would_be_wrong():
    augmented = {"trainable": "last", "augmentation": Augmentation("spectrogram")}
    objective, loaders = prepared(*finetuning(loop_args(), **augmented))
    assert not objective.cached and "tile" in loaders.training[0].batch(torch.arange(2))
    assert not prepared(*finetuning(loop_args(), trainable="all"))[0].cached
    assert not prepared(*finetuning(loop_args(), trainable="last", keep=((0.5, 0.5), (1.0, 1.0))))[0].cached
    with pytest.raises(ConfigurationError, match="cache_prefix: found always with augmentation"):
        prepared(*finetuning(loop_args(), cache_prefix="always", **augmented))
    with pytest.raises(ConfigurationError, match="cache_prefix: found always with no frozen, deterministic block"):
        prepared(*finetuning(loop_args(), cache_prefix="always", trainable="all"))


def test_features_too_large_are_refused_or_made_at_each_step(monkeypatch, caplog):
    objective, loaders = finetuning(loop_args(), trainable="last", cache_prefix="always")
    needed = prefix_bytes(objective.model, loaders.all, torch.float16)
    assert needed == (24 + 12) * 17 * 32 * 2
    monkeypatch.setattr("wavesfm_trainer.training.batches.free_memory", lambda device: needed)
    with pytest.raises(ConfigurationError, match="toy: features of the frozen blocks: memory on cpu"):
        prepared(objective, loaders)
    assert not prepared(*finetuning(loop_args(), trainable="last"))[0].cached
    assert "computed at each step" in caplog.text


def test_features_out_of_the_range_of_float16_are_refused():
    objective, loaders = finetuning(loop_args(), trainable="last")
    with torch.no_grad():
        objective.model.encoder.cls.fill_(1e6)
    with pytest.raises(Exception, match="toy: features: found values that are not finite"):
        cache_prefix(objective.model, loaders.all, nullcontext, CPU, torch.float16)


def test_looking_at_some_patches_follows_the_progress_of_the_run():
    objective, loaders = prepared(*finetuning(loop_args(), keep=((0.5, 0.25), (1.0, 1.0))))
    seen, real = [], objective.model.forward
    objective.model.forward = lambda tile, rate, keep: seen.append(keep) or real(tile, rate, keep)
    batch = loaders.training[0].batch(torch.arange(4))
    objective.progress = 0.4
    objective.training_loss(batch, StepRandom(0, 0))
    objective.progress = 0.6
    objective.training_loss(batch, StepRandom(0, 1))
    assert seen[0].shape == (4, 4) and seen[1] is None


def test_positions_are_learnt_between_the_corners_and_watched_in_metres():
    objective, loaders = prepared(*finetuning(loop_args(), "position"))
    batch = loaders.training[0].batch(torch.tensor([0, 1, 2]))  # (0, 0), (10, 0), (20, 5) of 20 x 10 m
    perfect = torch.tensor([[-1.0, -1.0], [0.0, -1.0], [1.0, 0.0]])
    assert float(objective.loss(perfect, batch)) == pytest.approx(0, abs=1e-12)
    objective.outputs = lambda batch: perfect + torch.tensor([0.3, 0.8])  # 3 m and 4 m
    figures = objective.validate([ValidationBatch("toy", 0, batch)], lambda sums: sums)
    assert figures["val_mean_error_m"] == pytest.approx(5.0)
    assert objective.monitor == "val_mean_error_m" and objective.mode == "min"


def test_channels_are_learnt_in_units_of_the_scale_and_watched_in_their_own():
    objective, loaders = prepared(*finetuning(loop_args(), "channel"))
    batch = loaders.training[0].batch(torch.arange(6))
    outputs = batch["target"] / 2.0  # the head's scale
    assert float(objective.loss(outputs, batch)) == pytest.approx(0, abs=1e-9)
    objective.outputs = lambda batch: outputs + 0.5  # one in each part
    figures = objective.validate([ValidationBatch("toy", 0, batch)], lambda sums: sums)
    power = float(batch["target"].square().sum(1).mean())
    assert figures["val_mse"] == pytest.approx(2.0, rel=1e-5)
    assert figures["val_nmse_db"] == pytest.approx(10 * np.log10(2 / power), abs=1e-3)


@pytest.mark.parametrize("kind", ["position", "channel"])
def test_regressions_learn(tmp_path, kind):
    args = loop_args(epochs=8, lr=5e-3)
    result = fit(*finetuning(args, kind), args, tmp_path / "run")
    if kind == "position":
        assert result["best"] < 4.0  # the mean of the positions is 7 m off
    else:
        assert result["val_nmse_db"] < -1.0  # zeros have 0 dB, the means without their noise -4.3 dB


def test_validation_accuracy_is_the_mean_over_the_classes_that_are_there():
    objective, _ = finetuning(loop_args())
    target = torch.tensor([0, 0, 0, 0, 2])
    objective.outputs = lambda batch: torch.eye(3)[torch.tensor([0, 0, 0, 1, 2])]
    figures = objective.validate([ValidationBatch("toy", 0, {"target": target})], lambda sums: sums)
    assert figures["val_class_accuracy"] == pytest.approx((0.75 + 1.0) / 2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss": "mae"}, "loss: found 'mae'"),
        ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing: found 0.1, expected none, or loss cross_entropy"),
        ({"label_smoothing": 1.0}, "label_smoothing: found 1.0"),
        ({"keep": ((0.5, 0.5),)}, r"keep: found \(\(0.5, 0.5\),\), expected stages in order that end at 1.0"),
        ({"cache_prefix": "always", "keep": ((1.0, 0.5),)}, "cache_prefix: found 'always', expected never with keep"),
        ({"feature_dtype": "int8"}, "feature_dtype: found 'int8'"),
    ],
)
def test_contradictions_are_named(options, named):
    with pytest.raises(ConfigurationError, match="FinetuneArgs: " + named):
        FinetuneArgs(**options)


def test_data_that_do_not_fit_the_model_or_the_task_are_named():
    objective, _ = finetuning(loop_args())
    wrong = {
        "image: found 3 x 32 x 32, expected 1 x 32 x 32": examples(8, channels=3),
        "target: found torch.float32 of": examples(8, kind="position"),
        "target: found nothing": examples(8, kind="pretraining"),
    }
    for named, made in wrong.items():
        with pytest.raises(InputError, match=named):
            objective.prepare(Loaders([DeviceExamples(made, "toy")]), nullcontext, CPU)
    fewer = FinetuneObjective(objective.model, HeadSpec("classification", ("a", "b")))
    with pytest.raises(InputError, match=r"target: found 0 to 2, expected 0 to 1, as there are labels"):
        fewer.prepare(Loaders([DeviceExamples(examples(8), "toy")]), nullcontext, CPU)
    with pytest.raises(ConfigurationError, match="loss: found snr_mse, expected one of mse for position"):
        FinetuneObjective(objective.model, head("position"), FinetuneArgs(loss="snr_mse"))


def test_noise_is_in_units_of_the_standardised_tile():
    """0.05 as in the authors' code, whose augmentation follows the normalisation: a variance of 0.0025."""
    made = examples(64, channels=3)
    data = DeviceExamples(made, "toy", Augmentation("csi"))
    batch = data.batch(torch.arange(64), StepRandom(0, 0))
    noise = batch["tile"] - batch["clean"]
    assert made.spec.std[0] == 0.25  # before standardising, the same number would be four times as much
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert "clean" not in DeviceExamples(made, "toy", Augmentation("csi", noise=0.0)).batch(
        torch.arange(4), StepRandom(0, 0)
    )


def test_masked_modelling_reconstructs_the_clean_tile():
    objective, loaders = pretraining(loop_args(), {"one": (8, 1)})
    batch = loaders.training[0].batch(torch.arange(8), StepRandom(1, 1))
    model = objective.model.eval()
    with torch.no_grad():
        found = float(objective.training_loss(batch, StepRandom(1, 2)))
        out = model(batch["tile"], noise=StepRandom(1, 2).rand(8, 16), reconstruct=True)
        errors = {
            name: (out.prediction - model.encoder.patchify(batch[name])).square().sum(dim=-1)[out.mask].mean()
            for name in ("clean", "tile")
        }
    assert found == pytest.approx(float(errors["clean"]), rel=1e-5)
    assert found != pytest.approx(float(errors["tile"]), rel=1e-3)
