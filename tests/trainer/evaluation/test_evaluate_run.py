# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation: the run's own preprocessing and head on a cache that fits it, and a refusal of one that does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.toy_runs import (
    KINDS,
    TILE_SPEC,
    head_of,
    make_cache,
    make_cached_run,
    make_pretrained,
    make_run,
    make_tile_shards,
    raws,
    spec_of,
)
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_trainer.data.cache import read_cache
from wavesfm_trainer.data.tile_dataset import Tiles, read_shards
from wavesfm_trainer.evaluation.evaluate_recordings import ManifestRow, judge
from wavesfm_trainer.evaluation.evaluate_run import Batches, evaluate_run
from wavesfm_trainer.evaluation.evaluate_tiles import synthetic_report, tile_report
from wavesfm_trainer.evaluation.run_files import read_evaluation
from wavesfm_trainer.evaluation.torch_engine import open_pipeline, run_pipeline
from wavesfm_trainer.evaluation.trained_run import load_run
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.weights import WeightsError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run and a cache of every kind."""
    return {kind: make_cached_run(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def outputs_of(run, cache, split="test"):
    examples = read_cache(cache, split)
    with torch.no_grad():
        return registry.load(run / "weights.safetensors")(torch.from_numpy(examples.standardised())).numpy(), examples


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_is_returned(made, kind):
    run, cache = made[kind]
    found, read = evaluate_run(run, cache, batch_size=4), read_evaluation(run)
    assert (read.kind, read.task, read.split) == (kind, f"toy {kind}", "test")
    assert read.metrics == found.metrics
    examples = read_cache(cache, "test")
    assert read.n_samples == len(examples)
    assert [examples.source[i] for i in range(3)] == [f"file{row}" for row in read.arrays["index"][:3]]
    assert list(read.arrays["group"]) == list(examples.group)


def test_classes(made):
    run, cache = made["classification"]
    found = evaluate_run(run, cache, batch_size=5)
    logits, examples = outputs_of(run, cache)
    assert np.allclose(found.arrays["logits"], logits, atol=1e-5)
    assert np.array_equal(found.arrays["target"], examples.target)
    assert found.metrics["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == examples.target))
    assert found.labels == ("a", "b", "c")


def test_positions_in_metres_between_the_runs_corners(made):
    run, cache = made["position"]
    found = evaluate_run(run, cache)
    outputs, examples = outputs_of(run, cache)
    head = load_run(run).head
    metres = np.array(head.low_m) + (outputs + 1) / 2 * (np.array(head.high_m) - head.low_m)
    assert np.allclose(found.arrays["predicted_m"], metres, atol=1e-3)
    assert np.array_equal(found.arrays["target_m"], examples.target)
    error = np.linalg.norm(metres - examples.target, axis=1)
    assert found.metrics["mean_error_m"] == pytest.approx(error.mean(), rel=1e-4)


def test_channels_in_the_units_of_the_targets(made):
    run, cache = made["channel"]
    found = evaluate_run(run, cache, batch_size=4)
    outputs, examples = outputs_of(run, cache)
    error = ((1.5 * outputs.astype(float) - examples.target) ** 2).sum(1).mean((1, 2))
    assert np.allclose(found.arrays["squared_error"], error, rtol=1e-4)
    assert np.allclose(found.arrays["power"], (examples.target.astype(float) ** 2).sum(1).mean((1, 2)))
    assert np.array_equal(found.arrays["snr_db"], examples.snr_db)
    assert np.isfinite(found.arrays["snr_db"]).all()


@pytest.mark.parametrize("kind", ["classification", "channel", "pretraining"])
def test_a_cache_with_other_statistics_is_seen_with_the_runs(tmp_path, kind):
    """Of the same arrays, in a data set that is otherwise much louder: the same tiles but for rounding."""
    given = raws(kind)
    make_cache(tmp_path / "own.h5", kind, given)
    make_cache(tmp_path / "loud.h5", kind, [*given, *raws(kind, n=6, seed=9, scale=3.0)])
    spec, examples = spec_of(tmp_path / "own.h5"), read_cache(tmp_path / "loud.h5")
    assert (examples.spec.low, examples.spec.mean) != (spec.low, spec.mean)
    seen = Batches(examples, spec, 4, torch.device("cpu")).tile(slice(0, 30)).numpy()
    expected = np.stack([prepare(raw.array, spec) for raw in given])
    assert np.abs(seen - expected).max() < 0.02  # float16 over a range that is three times as wide
    assert np.abs(examples.standardised(slice(0, 30)) - expected).max() > 0.3


def test_the_same_statistics_change_no_bit(made):
    _, cache = made["classification"]
    examples = read_cache(cache, "test")
    seen = Batches(examples, examples.spec, 4, torch.device("cpu")).tile(slice(None)).numpy()
    assert np.array_equal(seen, examples.standardised())


@pytest.mark.parametrize(
    ("kind", "changes", "field", "found"),
    [
        ("classification", {"labels": ("a", "c", "b")}, "labels", "['a', 'c', 'b']"),
        ("classification", {"range": (-1.0, 1.0)}, "preprocess.range_low", "-1.0"),
        ("classification", {"height": 40}, "preprocess.height", "40"),
        ("position", {"axes": ("y", "x")}, "axes", "['y', 'x']"),
        ("channel", {"grid": (2, 4, 4)}, "grid", "[2, 4, 4]"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(made, tmp_path, kind, changes, field, found):
    run, _ = made[kind]
    make_cache(tmp_path / "other.h5", kind, **changes)
    with pytest.raises(InputError) as caught:
        evaluate_run(run, tmp_path / "other.h5", output=tmp_path / "out")
    assert (caught.value.where, caught.value.field, caught.value.found) == (str(tmp_path / "other.h5"), field, found)
    assert not (tmp_path / "out").exists()


def test_a_cache_of_another_kind_or_channel_count_is_refused(made, tmp_path):
    run, _ = made["classification"]
    with pytest.raises(InputError, match="kind: found position, expected classification"):
        evaluate_run(run, made["position"][1])
    one = [dataclasses.replace(raw, array=raw.array[:1]) for raw in raws("classification")]
    make_cache(tmp_path / "one.h5", "classification", one, channels=1)
    with pytest.raises(InputError, match=r"preprocess\.channels: found 1, expected 3, as the run was trained on"):
        evaluate_run(run, tmp_path / "one.h5")


def test_fewer_axes_than_the_cache_has(made, tmp_path):
    _, cache = made["position"]
    run = make_run(tmp_path / "run", spec_of(cache), HeadSpec("position", axes=("x",), low_m=(0.0,), high_m=(80.0,)))
    found = evaluate_run(run, cache)
    assert np.array_equal(found.arrays["target_m"], read_cache(cache, "test").target[:, :1])


def test_a_weights_file_will_do_and_the_output_may_go_elsewhere(made, tmp_path):
    run, cache = made["classification"]
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "weights.safetensors").read_bytes())
    found = evaluate_run(alone, cache, split="train", output=tmp_path / "out")
    assert (found.task, found.split) == ("toy-classes", "train")
    assert read_evaluation(tmp_path / "out").metrics == found.metrics
    assert not (tmp_path / "evaluation.json").exists()


def test_what_is_no_run_is_refused(made, tmp_path):
    run, cache = made["classification"]
    with pytest.raises(WeightsError, match=r"weights\.safetensors: file: found nothing"):
        evaluate_run(tmp_path, cache)
    registry.save(tmp_path / "bare.safetensors", registry.load(run / "weights.safetensors"))
    with pytest.raises(WeightsError, match="head: found nothing, expected weights written by wavesfm-train finetune"):
        evaluate_run(tmp_path / "bare.safetensors", cache)
    with pytest.raises(ConfigurationError, match="batch_size: found 0"):
        evaluate_run(run, cache, batch_size=0)
    with pytest.raises(ConfigurationError, match="device: found nonsense"):
        evaluate_run(run, cache, device="nonsense")


def test_weights_and_head_that_contradict_are_refused(made, tmp_path):
    run, cache = made["classification"]
    model = registry.load(run / "weights.safetensors")
    extra = registry.read(run / "weights.safetensors").extra
    extra["head"]["labels"] = ["a", "b"]
    registry.save(tmp_path / "weights.safetensors", model, extra)
    with pytest.raises(WeightsError, match=r"head of classification: found \(2,\), expected \(3,\)"):
        evaluate_run(tmp_path, cache)


# Pre-training


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    directory = tmp_path_factory.mktemp("spectra")
    make_cache(directory / "a.h5", "pretraining")
    return directory / "a.h5"


@pytest.mark.parametrize("reading", ["paper", "code"])
def test_the_loss_of_each_tile(spectra, tmp_path, reading):
    run = make_pretrained(tmp_path / "run", {"a": spec_of(spectra)}, reading=reading)
    found = evaluate_run(run, spectra, batch_size=4)
    again = evaluate_run(run, spectra, batch_size=7)
    assert np.allclose(found.arrays["loss"], again.arrays["loss"], rtol=1e-6)
    model, examples = registry.load(run / "weights.safetensors"), read_cache(spectra, "test")
    losses = []
    for row in range(len(examples)):  # masks differ, but each is 12 of 16 patches of noise
        noise = torch.from_numpy(np.random.default_rng(row).uniform(size=(1, 16)).astype(np.float32))
        losses.append(float(model(torch.from_numpy(examples.standardised([row])), None, noise).loss.detach()))
    assert found.metrics["loss"] == pytest.approx(np.mean(losses), rel=0.1)
    assert found.metrics["loss"] > 1 if reading == "paper" else found.metrics["loss"] < 20


def test_the_losses_are_what_the_models_own_is_the_mean_of(spectra, tmp_path):
    from wavesfm_trainer.evaluation.evaluate_run import tile_losses

    run = make_pretrained(tmp_path / "run", {"a": spec_of(spectra)})
    model, examples = registry.load(run / "weights.safetensors"), read_cache(spectra, "test")
    noise = torch.rand(6, 16, generator=torch.Generator().manual_seed(0))
    tile = torch.from_numpy(examples.standardised(slice(0, 6)))
    with torch.no_grad():
        assert tile_losses(model, tile, None, noise).mean() == pytest.approx(float(model(tile, None, noise).loss), 1e-5)


def test_reconstructions_at_three_ratios_in_the_range_of_the_cache(spectra, tmp_path):
    arrays = evaluate_run(make_pretrained(tmp_path / "run", {"a": spec_of(spectra)}), spectra).arrays
    examples = read_cache(spectra, "test")
    rows = np.linspace(0, len(examples) - 1, 4).round().astype(int)
    assert np.allclose(arrays["original"], examples.image[rows].astype(np.float32))
    assert np.allclose(arrays["ratio"], [0.7, 0.8, 0.9])
    for i, hidden in enumerate((11, 12, 14)):  # floor of 16 patches' share
        assert (arrays[f"hidden_{i}"].sum(1) == hidden).all()
        assert arrays[f"reconstruction_{i}"].shape == (4, 1, 32, 32)
    assert not np.allclose(arrays["reconstruction_0"], arrays["reconstruction_2"])


def test_which_of_several_data_sets_a_cache_is_like(spectra, tmp_path):
    spec = spec_of(spectra)
    louder = dataclasses.replace(spec, high=spec.high + 1)
    three = ImageSpec(3, 0.0, 1.0, (0.0,) * 3, (1.0,) * 3, height=32, width=32)
    run = make_pretrained(tmp_path / "several", {"csi": three, "loud": louder, "quiet": spec})
    assert evaluate_run(run, spectra).n_samples == 15
    run = make_pretrained(tmp_path / "csi", {"csi": three, "more": dataclasses.replace(three, low=-1.0)})
    with pytest.raises(InputError, match=r"preprocess: found 1 x 32 x 32, .*: csi \(3 x 32 x 32\), more"):
        evaluate_run(run, spectra)
    run = make_pretrained(tmp_path / "loud", {"loud": louder, "other": dataclasses.replace(spec, low=-99.0)})
    with pytest.raises(InputError, match=r"statistics of none .* loud, other"):
        evaluate_run(run, spectra)
    run = make_pretrained(tmp_path / "linear", {"one": dataclasses.replace(spec, decibel_floor=None)})
    with pytest.raises(InputError, match=r"decibel_floor: found 0\.001, expected None, as the run"):
        evaluate_run(run, spectra)


# Tiles of the signal generator, and recordings

LABELS = ("quiet", "left", "right")


@pytest.fixture(scope="module")
def tile_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiles")
    make_tile_shards(directory / "tiles" / "train", LABELS, seed=1)
    make_tile_shards(directory / "tiles" / "test", LABELS, seed=2)
    head = HeadSpec("classification", LABELS)
    return make_run(directory / "run", TILE_SPEC, head, rate_input=True), directory / "tiles"


def test_tile_shards_are_evaluated_with_their_rates(tile_run):
    run, shards = tile_run
    found = evaluate_run(run, shards)
    tiles = read_shards(shards / "test")
    tile = torch.from_numpy((tiles.picture[:, None].astype(np.float32) / 255 - 0.3) / 0.2)
    model = registry.load(run / "weights.safetensors")
    with torch.no_grad():
        logits = model(tile, torch.from_numpy(tiles.log10_rate[:, None])).numpy()
        blind = model(tile).numpy()
    assert np.allclose(found.arrays["logits"], logits, atol=1e-4)
    assert not np.allclose(logits, blind, atol=1e-3)
    assert np.array_equal(found.arrays["snr_db"], tiles.snr_db)


def test_the_report_by_snr_and_length(tile_run):
    run, shards = tile_run
    report = tile_report(run_pipeline(run), shards / "test", batch_tiles=5)
    tiles = read_shards(shards / "test")
    logits = evaluate_run(run, shards).arrays["logits"]
    assert report == synthetic_report(logits, tiles, LABELS, 32)
    clear = np.flatnonzero((tiles.snr_db >= 10) & (tiles.rows < 32))
    of = Tiles(**{name: value[clear] for name, value in vars(tiles).items()})
    partial = synthetic_report(logits[clear], of, LABELS, 32)["mean_class_accuracy"]
    assert report["mean_class_accuracy_10db_partial"] == partial
    assert list(report["by_snr_db"]) == ["-5..0", "0..5", "5..10", "10..20", "20..30", "30..61"]


def test_tiles_of_another_task_or_geometry_are_refused(tile_run, tmp_path):
    pipeline = run_pipeline(tile_run[0])
    with pytest.raises(InputError, match=r"labels: found \['a', 'b', 'c'\]"):
        tile_report(pipeline, make_tile_shards(tmp_path / "a", ("a", "b", "c")))
    other = dataclasses.replace(TILE_SPEC, fft_size=128)
    with pytest.raises(InputError, match=r"preprocess\.fft_size: found 128, expected 64"):
        tile_report(pipeline, make_tile_shards(tmp_path / "b", LABELS, spec=other))


def test_a_recording_is_judged_by_a_run_and_by_a_bundle(tile_run, fake_bundle, tone, tmp_path):
    tone(0.3, 5000).tofile(tmp_path / "tone.cf32")
    row = ManifestRow(tmp_path / "tone.cf32", "right", 1e6, "cf32")
    for path in (tile_run[0], fake_bundle):
        judged = judge(open_pipeline(path), row)
        assert (judged.n_tiles, judged.n_gated) == (3, 0)
        assert judged.found in LABELS
    assert judged.right  # the bundle's model knows tones


def test_a_pretrained_run_is_no_pipeline(spectra, tmp_path):
    run = make_pretrained(tmp_path / "run", {"a": spec_of(spectra)})
    with pytest.raises(WeightsError, match="kind: found masked_autoencoder, expected a fine-tuned task"):
        run_pipeline(run)


def test_a_pipeline_of_a_run_estimates_from_arrays(made):
    run, cache = made["position"]
    pipeline = run_pipeline(run)
    (estimate,) = pipeline.estimate([raws("position")[0].array])
    low, high = np.array(pipeline.bundle.spec.head.low_m), np.array(pipeline.bundle.spec.head.high_m)
    tile = prepare(raws("position")[0].array, spec_of(cache))
    with torch.no_grad():
        output = registry.load(run / "weights.safetensors")(torch.from_numpy(tile[None])).numpy()[0]
    assert np.allclose(estimate.position_m, low + (output + 1) / 2 * (high - low), atol=1e-3)
    assert (
        head_of({"kind": "position", "axes": ["x", "y"], "target_low": [0, 0], "target_high": [1, 1]}).axes
        == estimate.axes
    )
