# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of channel estimators, ours and the paper's, through core's pipeline; and all estimators side by side."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from support.toy_pools import COMB, SPEC, channels, write
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import HeadSpec, to_dict
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.pilot_grid import observe
from wavesfm_core.types import Slot
from wavesfm_trainer import cli
from wavesfm_trainer.data.channel_pool import ChannelPool
from wavesfm_trainer.data.numerologies import read_numerology
from wavesfm_trainer.evaluation.compare_estimators import (
    BACKING_OFF,
    LINEAR,
    Curve,
    PoolCurves,
    compare,
    read_comparison,
    write_comparison,
)
from wavesfm_trainer.evaluation.evaluate_run import evaluate_run
from wavesfm_trainer.evaluation.torch_engine import open_channel_pipeline, run_pipeline
from wavesfm_trainer.evaluation.trained_run import load_task_run
from wavesfm_trainer.export import half_weights as half_weights_module
from wavesfm_trainer.export.export_job import ExportOptions, described_pools
from wavesfm_trainer.export.export_run import export_run
from wavesfm_trainer.export.golden_inputs import generated_grids
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.channel_model import ChannelModel, ModeArgs
from wavesfm_trainer.models.task_model import TaskArgs, TaskModel
from wavesfm_trainer.models.vit import EncoderArgs
from wavesfm_trainer.models.weights import WeightsError
from wavesfm_trainer.report.html_report import write_report
from wavesfm_trainer.report.tables import channel_table

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch says of its exporter
SAID = {"licence": "CC0-1.0", "training_data": "made-up channels"}


def export(run, directory, name, precision="fp32", **options):
    return export_run(run, directory, ExportOptions(name=name, precision=precision, **options))


ENCODER = EncoderArgs(size="custom", depth=1, width=32, heads=2, decoder_depth=1, decoder_width=16, decoder_heads=2)
PAPER = read_numerology("paper")


def make_run(directory, spec, seed=0, spread=0.3):
    """A run's directory with a model that says something at random."""
    torch.manual_seed(seed)
    model = ChannelModel.of(ModeArgs(6), spec, ENCODER, Covariances.learn([channels(spec, 300, seed=1)]))
    torch.nn.init.normal_(model.head.weight, std=spread)
    directory.mkdir()
    extra = {"head": to_dict(model.task_head), "preprocess": to_dict(model.preprocess)}
    registry.save(directory / "weights.safetensors", model, extra)
    scenario = {"model": "umi", "speed_m_per_s": 3.0, "delay_spread_s": None, "carrier_hz": 3.5e9}
    training = {"train": {"examples": 300, "scenario": scenario, "slots": {"snr_db": [-11.0, 21.0]}}}
    config = {
        "name": "toy", "command": "train-channels", "recipe": "toy", "task": "", "method": "all", "pretrained": "",
        "seed": seed, "args": {"epochs": 3}, "trainable_parameters": 1, "data": {"training": training},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(numerology, run, bundle, pool) by name."""
    root, found = tmp_path_factory.mktemp("estimators"), {}
    for name, spec in (("square", SPEC), ("comb", COMB)):
        run = make_run(root / f"run-{name}", spec)
        bundle = export(run, root / f"bundle-{name}", f"toy-{name}", half_weights=name == "comb", **SAID)
        found[name] = spec, run, bundle, write(root / f"{name}.h5", spec, channels(spec, 30, seed=4), seed=4)
    return found


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory):
    """A run of the paper's estimator, as finetune channel-estimation leaves it."""
    directory = tmp_path_factory.mktemp("paper") / "run"
    directory.mkdir()
    torch.manual_seed(1)
    encoder = replace(ENCODER, width=16, channels=(2,))
    model = TaskModel(encoder, TaskArgs(head="block", grid=PAPER.grid_shape, output="channel", trainable="all"))
    image = ImageSpec(2, -4.0, 5.0, (0.1, -0.1), (0.4, 0.5), -1.0, 1.0)
    extra = {"head": to_dict(HeadSpec("channel", grid=PAPER.grid_shape)), "preprocess": to_dict(image)}
    registry.save(directory / "weights.safetensors", model, extra)
    (directory / "config.json").write_text(json.dumps({"task": "channel-estimation", "command": "finetune"}))
    return directory


def slots(spec, count=5, seed=6):
    return [Slot(grid, 0, 0) for grid in generated_grids(spec, count, seed)]


def estimates(pipeline, given):
    return np.stack([estimate.channel for estimate in pipeline.predict(given)])


@pytest.mark.parametrize("name", ["square", "comb"])
def test_a_bundle_gives_the_runs_channels_through_core(made, name):
    spec, run, bundle, _ = made[name]
    given = slots(spec)
    expected = estimates(open_channel_pipeline(run, "cpu"), given)
    found = estimates(ChannelPipeline.open(bundle.path, device="onnxruntime"), given)
    assert found == pytest.approx(expected, abs=(2e-2 if name == "comb" else 2e-4) * float(np.abs(expected).max()))
    model, grids = registry.load(run / "weights.safetensors"), np.stack([slot.grid for slot in given])
    linear = LMMSE(spec, model.covariances()).estimate(grids)
    assert np.abs(found - linear).max() > 0.05 * np.abs(linear).max()  # it is not LMMSE, and still


@pytest.mark.parametrize("name", ["square", "comb"])
def test_a_bundle_says_what_it_is(made, name):
    spec, _, bundle, _ = made[name]
    said = Bundle.open(bundle.path).spec
    assert said.preprocess == PilotGridSpec(spec, "least_squares") and said.head == HeadSpec(
        "channel", grid=spec.grid_shape
    )
    assert [(t.name, t.source) for t in said.inputs] == [("tile", "tile"), ("snr_db", "snr_db")]
    assert bundle.covariances().space == pytest.approx(
        Covariances.learn([channels(spec, 300, seed=1)]).space, abs=1e-5
    )  # fmt: skip
    report = replay_golden(bundle, open_engine(bundle, "onnxruntime"))
    assert report.tiles == 3 and report.engine_difference <= said.tolerance
    assert len(bundle.golden().inputs) == 3 and bundle.golden().inputs[0].shape == spec.grid_shape
    data = bundle.model_path.read_bytes()
    assert b".py" not in data and b"covariance" not in data  # these are beside it, for LMMSE


def test_lmmse_runs_beside_the_model(made):
    spec, _, bundle, _ = made["square"]
    pipeline, given = ChannelPipeline.open(bundle.path, method="lmmse"), slots(spec)
    expected = LMMSE(spec, bundle.covariances()).estimate(np.stack([slot.grid for slot in given]))
    assert estimates(pipeline, given) == pytest.approx(expected, abs=1e-5)


def test_half_weights_are_stored_so_and_refused_where_they_cost_too_much(made, tmp_path, monkeypatch):
    proto = onnx.load(made["comb"][2].model_path)
    assert any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer)
    assert not any(
        t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load(made["square"][2].model_path).graph.initializer
    )
    monkeypatch.setattr(half_weights_module, "COST_LIMIT_DB", 1e-9)
    with pytest.raises(ConfigurationError, match=r"half_weights: found .* dB more error at 20 dB"):
        export(made["square"][1], tmp_path / "b", "toy", half_weights=True, **SAID)
    assert not (tmp_path / "b").exists()


def test_the_encoder_may_compute_in_halves(made, tmp_path):
    spec, run, _, _ = made["square"]
    bundle = export(run, tmp_path / "b", "toy", "fp16", **SAID)
    given = slots(spec)
    expected = estimates(open_channel_pipeline(run, "cpu"), given)
    found = estimates(ChannelPipeline.open(bundle.path, device="onnxruntime"), given)
    assert found == pytest.approx(expected, abs=2e-2 * float(np.abs(expected).max()))


def test_golden_slots_take_no_arrays(made, tmp_path):
    with pytest.raises(ConfigurationError, match="arrays"):
        export(made["square"][1], tmp_path / "b", "toy", arrays=[np.zeros((2, 3, 4), np.float32)], **SAID)


def test_the_papers_estimator_is_of_the_same_kind(paper_run, tmp_path):
    bundle = export(paper_run, tmp_path / "bundle", "paper", **SAID)
    preprocess = bundle.spec.preprocess
    assert isinstance(preprocess, PilotGridSpec) and preprocess.layout == "image" and preprocess.numerology == PAPER
    assert [t.name for t in bundle.spec.inputs] == ["tile"] and not bundle.spec.covariances
    given = slots(PAPER, 2)
    expected = estimates(open_channel_pipeline(paper_run, "cpu"), given)
    found = estimates(ChannelPipeline.open(bundle.path, device="onnxruntime"), given)
    assert found == pytest.approx(expected, abs=2e-3 * float(np.abs(expected).max()))


def test_a_numerology_of_another_grid_is_refused(paper_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(1)
    model = TaskModel(
        replace(ENCODER, channels=(2,)), TaskArgs(head="block", grid=(2, 2, 8), output="channel", last_blocks=1)
    )
    extra = {
        "head": to_dict(HeadSpec("channel", grid=(2, 2, 8))),
        "preprocess": to_dict(ImageSpec(2, 0.0, 1.0, (0.0, 0.0), (1.0, 1.0))),
    }
    registry.save(run / "weights.safetensors", model, extra)
    (run / "config.json").write_text(json.dumps({"task": "channel-estimation"}))
    with pytest.raises(WeightsError, match=r"head\.grid"):
        export(run, tmp_path / "b", "toy", **SAID)
    (run / "config.json").write_text(json.dumps({"task": "of somebody else"}))
    assert isinstance(export(run, tmp_path / "b", "toy", **SAID).spec.preprocess, ImageSpec)
    with pytest.raises(ConfigurationError, match="a channel estimator"):
        open_channel_pipeline(run)


def test_a_run_whose_weights_and_contract_differ_is_refused(made, tmp_path):
    run = make_run(tmp_path / "run", SPEC)
    model = registry.load(run / "weights.safetensors")
    extra = {"head": to_dict(model.task_head), "preprocess": to_dict(PilotGridSpec(COMB, "least_squares"))}
    registry.save(run / "weights.safetensors", model, extra)
    with pytest.raises(WeightsError, match="another numerology"):
        load_task_run(run)


def test_evaluate_and_the_pipeline_of_tiles_say_where_slots_belong(made):
    _, run, _, pool = made["square"]
    with pytest.raises(InputError, match="compare-channels"):
        evaluate_run(run, pool)
    with pytest.raises(ConfigurationError):
        run_pipeline(run).estimate([np.zeros((4, 4, 16), np.float32)])


# Side by side


def test_the_comparison_has_cores_numbers(made):
    spec, run, _, path = made["square"]
    pool, known = ChannelPool(path), Covariances.learn([channels(spec, 300, seed=1)])
    (found,) = compare([pool], {"ours": open_channel_pipeline(run, "cpu")}, known, 20, 3, (0.0, 20.0))
    assert list(found.estimators) == [*LINEAR, "ours", "ours" + BACKING_OFF] and found.slots == 20
    from wavesfm_trainer.data.generators.output import rng_for
    from wavesfm_trainer.data.generators.sionna_grids import send

    h = pool.read(0, 20)
    y = send(rng_for(3, 1, 0), h, np.full(20, 20.0, np.float32), spec).received
    seen = observe(y, spec, noise_power=0.01, signal_power=1.0)
    expected = {
        "LS": LeastSquares(spec).estimate(y),
        "LMMSE space-time-frequency": LMMSE(spec, known).estimate(y, seen),
        "LMMSE, SNR measured": LMMSE(spec, known).estimate(y),
        "ours": estimates(open_channel_pipeline(run, "cpu"), [Slot(grid, 0, 0) for grid in y]),
    }
    for name, estimate in expected.items():
        mse = np.mean(np.abs(estimate - h) ** 2)
        assert found.estimators[name].mse[1] == pytest.approx(mse, rel=1e-4)
        assert found.estimators[name].nmse_db[1] == pytest.approx(
            10 * np.log10(mse / np.mean(np.abs(h) ** 2)), abs=1e-3
        )


def test_a_model_that_fits_no_pilots_backs_off_to_least_squares(made, tmp_path):
    spec, _, _, path = made["square"]
    wild = make_run(tmp_path / "wild", spec, spread=30.0)
    known = Covariances.learn([channels(spec, 300, seed=1)])
    (found,) = compare([ChannelPool(path)], {"wild": open_channel_pipeline(wild, "cpu")}, known, 20, 0, (20.0,))
    share = found.estimators["wild" + BACKING_OFF].backed_off
    assert share is not None and share[0] == 1.0
    assert found.estimators["wild" + BACKING_OFF].mse == found.estimators["LS"].mse
    assert found.estimators["wild"].mse[0] > 2 * found.estimators["LS"].mse[0]
    assert found.excess_db("wild") > 3 and found.excess_db("wild" + BACKING_OFF) == 0
    assert channel_table(found).notes[-1] == f"wild{BACKING_OFF}: never worse than LS."


@pytest.mark.parametrize(
    ("apart_db", "said"),
    [((-3.0, -1.25), "at every SNR at least 1.25 dB better than LS."), ((-3.0, 0.4), "up to 0.40 dB worse than LS.")],
)
def test_the_table_says_how_far_from_least_squares(apart_db, said):
    curves = {"LS": Curve((1.0, 1.0), (5.0, 0.0)), "a" + BACKING_OFF: Curve((1.0, 1.0), (5 + apart_db[0], apart_db[1]))}
    pool = PoolCurves("toy", {"model": "umi"}, 10, [-5.0, 0.0], curves)
    assert channel_table(pool).notes[-1] == f"a{BACKING_OFF}: {said}"


def call(*arguments):
    """Exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


def test_commands_compare_report_and_export_with_the_table(made, tmp_path, capsys):
    spec, _, _, path = made["square"]
    run = make_run(tmp_path / "run", spec)
    other = write(tmp_path / "far.h5", spec, channels(spec, 20, seed=8, n_paths=5), seed=8, model="tdl-c")
    models = ["--model", f"ours={run}", "--model", f"bundle={made['square'][2].path}"]
    assert call("compare-channels", path, other, *models, "--out", run, "--count", 10, "--device", "cpu") == 0
    first, second = read_comparison(run / "comparison.json")
    assert (first.name, second.name, second.scenario["model"]) == ("square", "far", "tdl-c")
    assert first.estimators["bundle"].nmse_db == pytest.approx(first.estimators["ours"].nmse_db, abs=0.01)
    with (run / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 7 * len(first.estimators)
    assert (run / "nmse-over-snr.svg").stat().st_size > 1000
    page = write_report(tmp_path).read_text()
    assert "Channel estimation: run" in page and "tdl-c, 3 m/s, delay spread 100 ns" in page
    assert "Normalised error over SNR" in page and "ours, backing off" in page
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comparison.json").write_text("{}")
    assert "broken/comparison.json: format: found nothing, expected 1" in write_report(tmp_path).read_text()
    assert call("export", run, tmp_path / "bundle", "--name", "toy") == 0
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "300 slots of umi at 3.5 GHz, 3 m/s" in card and "| ours, backing off | " in card
    assert f"{first.estimators['ours'].nmse_db[0]:.2f}" in card and "-11 to 21 dB" in card


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "x"], "--model: found 'x', expected NAME=PATH"),
        (["--model", "a=RUN", "--model", "a=RUN"], "different names"),
        (["--model", "a=NONE"], "nothing"),
        (["--model", "a=OTHER"], "numerology"),
    ],
)
def test_comparisons_that_cannot_be_are_refused(made, tmp_path, capsys, options, said):
    places = {"RUN": made["square"][1], "NONE": tmp_path / "none", "OTHER": made["comb"][1]}
    given = [option.replace(name, str(p)) for option in options for name, p in [_place(option, places)]]
    assert call("compare-channels", made["square"][3], *given, "--out", tmp_path / "out") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def _place(option, places):
    return next(((name, path) for name, path in places.items() if name in option), ("nowhere", ""))


def test_a_model_without_covariances_asks_for_them(paper_run, tmp_path, capsys):
    pool = write(tmp_path / "p.h5", PAPER, channels(PAPER, 4, seed=1))
    assert call("compare-channels", pool, "--model", f"paper={paper_run}", "--out", tmp_path) == 2
    assert "--covariances" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(format=2),
        lambda v: v.update(pools=[]),
        lambda v: v["pools"][0].pop("snr_db"),
        lambda v: v["pools"][0]["estimators"]["LS"]["mse"].pop(),
        lambda v: v["pools"][0]["estimators"]["LS"].update(nmse_db="high"),
        lambda v: v["pools"][0].update(colour=1),
    ],
)
def test_a_damaged_comparison_is_refused(made, tmp_path, change):
    known = Covariances.learn([channels(SPEC, 300, seed=1)])
    write_comparison(tmp_path, compare([ChannelPool(made["square"][3])], {}, known, 4, 0, (0.0,)))
    values = json.loads((tmp_path / "comparison.json").read_text())
    change(values)
    (tmp_path / "comparison.json").write_text(json.dumps(values))
    with pytest.raises(InputError):
        read_comparison(tmp_path / "comparison.json")


def test_pools_of_a_run_that_saw_none():
    class Other:
        config = {"data": {"training": {"x": {"examples": 3}}}}  # noqa: RUF012

    assert described_pools(Other()) == ""
