# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of every task: what the evaluator says of a run, the radio side says from raw arrays."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.toy_runs import (
    KINDS,
    TASKS,
    TILE_SPEC,
    make_cached_run,
    make_model,
    make_pretrained,
    make_run,
    raws,
    spec_of,
)
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import BundleError, ConfigurationError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.tile import prepare
from wavesfm_trainer.evaluation.evaluate_run import evaluate_run
from wavesfm_trainer.evaluation.trained_run import TrainedTask, load_run, task_spec
from wavesfm_trainer.export import golden_inputs as golden_module
from wavesfm_trainer.export import onnx_model, parity
from wavesfm_trainer.export.export_job import TOLERANCES, ExportJob, ExportOptions
from wavesfm_trainer.export.export_run import export_run
from wavesfm_trainer.export.golden_inputs import generated_arrays
from wavesfm_trainer.export.half_weights import halve_weights
from wavesfm_trainer.export.onnx_model import to_onnx
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.weights import WeightsError

warnings.filterwarnings("ignore", module="torch")
pytestmark = [pytest.mark.filterwarnings("ignore:.*LeafSpec"), pytest.mark.filterwarnings("ignore:# The axis name")]
SAID = {"licence": "CC0-1.0", "training_data": "toys made by a test"}
TRAINED = {"classification": "lora", "position": "last", "channel": "all"}


def export(run, directory, name, precision="fp32", **options):
    return export_run(run, directory, ExportOptions(name=name, precision=precision, **options))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of every kind: (run, cache, evaluation, bundle)."""
    found = {}
    for kind, trainable in TRAINED.items():
        directory = tmp_path_factory.mktemp(kind)
        run, cache = make_cached_run(directory, kind, trainable=trainable, lora_rank=4, last_blocks=1)
        evaluation = evaluate_run(run, cache)
        found[kind] = run, cache, evaluation, export(run, directory / "bundle", f"toy-{kind}", **SAID)
    return found


def estimates_of(bundle, kind, rows):
    """From the raw arrays, through the radio side."""
    arrays = [raw.array for raw in raws(kind)]
    return Pipeline.open(bundle.path, device="onnxruntime").estimate([arrays[row] for row in rows], batch_tiles=4)


def test_classes_from_raw_arrays_are_the_evaluators(made):
    _, _, evaluation, bundle = made["classification"]
    found = estimates_of(bundle, "classification", evaluation.arrays["index"])
    shares = np.array([[prediction.probabilities[label] for label in "abc"] for prediction in found])
    expected = torch.from_numpy(evaluation.arrays["logits"]).softmax(1).numpy()
    assert np.abs(shares - expected).max() < 5e-3  # the cache holds float16
    assert np.ptp(expected, axis=0).min() > 0.1
    sure = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 0.02
    right = [prediction.label == "abc"[target] for prediction, target in zip(found, evaluation.arrays["target"])]
    own = evaluation.arrays["logits"].argmax(1) == evaluation.arrays["target"]
    assert np.array_equal(np.array(right)[sure], own[sure])


def test_positions_from_raw_arrays_are_the_evaluators(made):
    _, _, evaluation, bundle = made["position"]
    found = estimates_of(bundle, "position", evaluation.arrays["index"])
    metres = np.array([estimate.position_m for estimate in found])
    assert found[0].axes == ("x", "y")
    assert np.abs(metres - evaluation.arrays["predicted_m"]).max() < 0.3  # of 80 m, with the cache in float16
    error = np.linalg.norm(metres - evaluation.arrays["target_m"], axis=1).mean()
    assert error == pytest.approx(evaluation.metrics["mean_error_m"], abs=0.1)
    assert np.ptp(metres[:, 0]) > 3


def test_channels_from_raw_arrays_are_the_evaluators(made):
    _, _, evaluation, bundle = made["channel"]
    rows = evaluation.arrays["index"]
    found = np.stack([estimate.channel for estimate in estimates_of(bundle, "channel", rows)])
    assert found.shape[1:] == (2, 2, 8)
    target = np.stack([raws("channel")[row].target for row in rows]).reshape(-1, 2, 2, 2, 8)
    error = (np.abs(found - (target[:, 0] + 1j * target[:, 1])) ** 2).mean((1, 2, 3))
    assert np.allclose(error, evaluation.arrays["squared_error"], rtol=0.01)
    assert error.mean() == pytest.approx(evaluation.metrics["mse"], rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_says_what_it_is(made, kind):
    run, cache, _, bundle = made[kind]
    spec = Bundle.open(bundle.path).spec
    trained = load_run(run)
    assert (spec.name, spec.licence, spec.training_data) == (f"toy-{kind}", *SAID.values())
    assert (spec.preprocess, spec.head) == (spec_of(cache), trained.head)
    assert [tensor.name for tensor in (*spec.inputs, *spec.outputs)] == ["tile", trained.output]
    assert spec.rates_hz == (0.0, 0.0)
    assert spec.versions["trained at commit"] == "0123abc"
    assert {"torch", "onnx", "wavesfm-core", "wavesfm-trainer"} <= spec.versions.keys()
    largest = np.abs(bundle.golden().outputs[trained.output]).max()
    assert spec.tolerance == pytest.approx(TOLERANCES["fp32"] * max(0.1, largest))


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_gives_torchs_outputs(made, kind):
    run, _, _, bundle = made[kind]
    trained = load_run(run)
    session = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    tile = np.random.default_rng(0).normal(size=(17, *bundle.spec.preprocess.tile_shape)).astype(np.float32)
    with torch.no_grad():
        expected = trained.model(torch.from_numpy(tile)).numpy()
    for n in (1, 3, 17):
        (found,) = session.run([trained.output], {"tile": tile[:n]})
        assert np.abs(found - expected[:n]).max() < bundle.spec.tolerance


def test_adapters_are_merged_and_nothing_else_is_in_the_file(made):
    _, _, _, bundle = made["classification"]
    proto = onnx.load(bundle.model_path)
    merged = load_run(made["classification"][0]).model
    merged.merge()
    n_stored = sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    n_needed = sum(p.numel() for p in merged.parameters()) + merged.encoder.positions.numel()
    assert 0.95 * n_needed < n_stored < n_needed + 200  # constants folded, or added; adapters would be 1024 more
    data = bundle.model_path.read_bytes()
    assert b"lora" not in data
    assert b".py" not in data and b"stack_trace" not in data


def test_the_card_of_an_evaluated_run(made):
    _, _, evaluation, bundle = made["position"]
    card = (bundle.path / "README.md").read_text()
    assert card.startswith("# toy-position\n\nEstimates a position along x, y in metres.")
    assert SAID["training_data"] in card and "| licence | CC0-1.0 |" in card
    assert f"| mean_error_m | {evaluation.metrics['mean_error_m']:.4g} |" in card
    assert f"On the {evaluation.n_samples} examples of the test split" in card
    head = bundle.spec.head
    assert f"x {head.low_m[0]:g} to {head.high_m[0]:g} m" in card
    assert "the last 1 blocks and the head (epochs 3, seed 1)" in card
    assert "onnxruntime" in card and "golden tiles are of generated arrays" in card
    lora = (made["classification"][3].path / "README.md").read_text()
    assert "adapters of rank 4" in lora and "| labels | a, b, c |" in lora


def test_a_card_that_is_there_is_kept_unless_another_is_given(made, tmp_path, monkeypatch):
    run, _, _, bundle = made["position"]
    monkeypatch.setattr(onnx_model, "to_onnx", lambda *_: bundle.model_path.read_bytes())
    target = tmp_path / "toy"
    export(run, target, "toy", **SAID, card="# By hand\n")
    assert (target / "README.md").read_text() == "# By hand\n"
    export(run, target, "toy", **SAID)
    assert (target / "README.md").read_text() == "# By hand\n"
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "weights.safetensors").read_bytes())
    export(alone, tmp_path / "other", "toy", **SAID)
    assert "Not evaluated" in (tmp_path / "other" / "README.md").read_text()


# Golden arrays


@pytest.mark.parametrize("floor", [None, 1e-3])
def test_generated_arrays_give_sensible_tiles(floor):
    spec = ImageSpec(2, -30.0, 20.0, (0.3, 0.6), (0.1, 0.08), -0.5, 1.5, floor, 64, 64)
    tiles = np.stack([prepare(array, spec) for array in generated_arrays(spec, 4)])
    assert np.abs(tiles.mean(axis=(0, 2, 3))).max() < 0.5
    assert 0.4 < tiles.std(axis=(0, 2, 3)).min() <= tiles.std(axis=(0, 2, 3)).max() < 1.6
    assert not np.allclose(tiles[0], tiles[1], atol=0.5)


def test_golden_arrays_may_be_real_ones(made, tmp_path, monkeypatch):
    run, _, _, bundle = made["classification"]
    monkeypatch.setattr(onnx_model, "to_onnx", lambda *_: bundle.model_path.read_bytes())
    arrays = [raw.array for raw in raws("classification")[:2]]
    golden = export(run, tmp_path / "toy", "toy", **SAID, arrays=arrays).golden()
    assert all(np.array_equal(a, b) for a, b in zip(golden.inputs, arrays, strict=True))
    with torch.no_grad():
        expected = load_run(run).model(torch.from_numpy(np.stack(golden.tiles))).numpy()
    assert np.allclose(golden.outputs["logits"], expected, atol=1e-4)


def test_raw_arrays_come_evenly_from_a_reader(tmp_path, monkeypatch):
    class Reader:
        def read(self, root, task):
            assert (root, task.name) == (tmp_path, "toy-classes")
            return iter(raws("classification", n=9))

    monkeypatch.setattr(golden_module, "open_reader", lambda name, where: Reader())
    arrays = golden_module.raw_arrays(TASKS["classification"], tmp_path, 3)
    expected = [raws("classification", n=9)[i].array for i in (0, 4, 8)]
    assert all(np.array_equal(a, b) for a, b in zip(arrays, expected, strict=True))


# Refusals


@pytest.fixture
def honest(made, monkeypatch):
    """A bundle whose model is exported once and for all, with its run."""
    run, _, _, bundle = made["classification"]
    monkeypatch.setattr(onnx_model, "to_onnx", lambda *_: bundle.model_path.read_bytes())
    return run, bundle


@pytest.mark.parametrize("error", [3e-3, -0.5, np.nan])
def test_a_model_that_differs_from_torch_is_refused(honest, monkeypatch, tmp_path, error):
    class Wrong(parity.TorchEngine):
        def run(self, inputs):
            outputs = super().run(inputs)
            outputs["logits"][-1, 1] += error if len(inputs["tile"]) == 7 else 0
            return outputs

    monkeypatch.setattr(parity, "TorchEngine", Wrong)
    with pytest.raises(BundleError, match="logits of ONNX against torch: found a difference of"):
        export(honest[0], tmp_path / "toy", "toy", **SAID)
    assert not (tmp_path / "toy").exists()


def test_a_model_of_other_weights_is_refused(honest, tmp_path):
    trained = load_run(honest[0])
    other = make_run(tmp_path / "other", trained.preprocess, trained.head, seed=5)
    with pytest.raises(BundleError, match="logits of ONNX against torch"):
        export(other, tmp_path / "toy", "toy", **SAID)
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("size", [1, 2])
def test_a_model_whose_tiles_see_each_other_is_refused(honest, monkeypatch, size):
    run, bundle = honest
    trained, real = load_run(run), parity.open_engine

    def leaking(*args, **options):
        engine = real(*args, **options)
        run_honestly = engine.run

        def leaks(inputs):
            outputs = run_honestly(inputs)
            if len(inputs["tile"]) == size:
                outputs["logits"] = outputs["logits"] + 5 * bundle.spec.tolerance
            return outputs

        engine.run = leaks
        return engine

    monkeypatch.setattr(parity, "open_engine", leaking)
    with pytest.raises(BundleError, match=f"logits of batch {size} against batch 7"):
        parity.matching_engine(bundle, trained, "fp32")


@pytest.mark.parametrize(
    ("options", "field", "found"),
    [
        ({"precision": "int8"}, "precision", "'int8'"),
        ({"precision": "fp16", "half_weights": True}, "half_weights", "on with fp16"),
        ({"licence": " "}, "licence", "nothing"),
        ({"training_data": ""}, "training_data", "nothing"),
        ({"rates_hz": (1e6, 2e6)}, "rates_hz", "(1000000.0, 2000000.0)"),
        ({"arrays": []}, "arrays", "none"),
    ],
)
def test_options_that_contradict_are_refused(made, tmp_path, options, field, found):
    with pytest.raises(ConfigurationError) as caught:
        export(made["classification"][0], tmp_path / "toy", "toy", **{**SAID, **options})
    assert (caught.value.field, caught.value.found) == (field, found)
    assert not (tmp_path / "toy").exists()


def test_a_pretrained_run_is_refused(tmp_path):
    spec = ImageSpec(1, 0.0, 1.0, (0.5,), (0.2,), height=32, width=32)
    run = make_pretrained(tmp_path / "run", {"a": spec})
    with pytest.raises(WeightsError, match="kind: found masked_autoencoder, expected a fine-tuned task"):
        export(run, tmp_path / "toy", "toy", **SAID)


# Precision


def exported(kind, precision, half_weights=False):
    """(model as trained, bundle's spec, ONNX bytes) of a toy."""
    heads = {
        "classification": HeadSpec("classification", ("a", "b", "c")),
        "channel": HeadSpec("channel", grid=(2, 2, 8)),
    }
    model = make_model(heads[kind], 1)
    if half_weights:
        halve_weights(model)
    spec = ImageSpec(1, 0.0, 1.0, (0.5,), (0.2,), height=32, width=32)
    contract = task_spec(TrainedTask(None, model, spec, heads[kind], {}), "toy")
    return model, contract, to_onnx(model, contract, precision, half_weights)


def types_of(proto):
    """Tensor types by name, of everything that the graph computes."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output, *inferred.input)}


@pytest.mark.parametrize(("kind", "precision"), [("classification", "bf16"), ("channel", "fp16")])
def test_products_are_half_and_norms_and_softmax_are_not(kind, precision):
    model, contract, data = exported(kind, precision)
    proto = onnx.load_from_string(data)
    types, half = types_of(proto), {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    by_kind = {}
    for node in proto.graph.node:
        by_kind.setdefault(node.op_type, []).extend(types[name] for name in node.output)
    assert set(by_kind["LayerNormalization"]) == set(by_kind["Softmax"]) == {onnx.TensorProto.FLOAT}
    assert len(by_kind["Softmax"]) == (3 if kind == "channel" else 2)
    products = by_kind["MatMul"]
    assert products.count(half) >= 13 and products.count(half) >= len(products) - 1  # the head's last is float32
    assert {types[t.name] for t in (*proto.graph.input, *proto.graph.output)} == {onnx.TensorProto.FLOAT}
    stored = [t for t in proto.graph.initializer if t.data_type == half]
    assert sum(int(np.prod(t.dims)) for t in stored) > 0.8 * sum(p.numel() for p in model.encoder.blocks.parameters())
    if precision == "fp16":
        tile = np.random.default_rng(1).normal(size=(7, 1, 32, 32)).astype(np.float32)
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        with torch.no_grad():
            expected = model(torch.from_numpy(tile)).numpy()
        for n in (1, 7):
            (found,) = session.run(None, bundle_inputs(contract, tile[:n], [0.0] * n))
            assert found.dtype == np.float32
            assert 0 < np.abs(found - expected[:n]).max() < TOLERANCES["fp16"] * np.abs(expected).max()


def run_onnx(data, tile):
    """The first output, by onnxruntime."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"tile": tile.numpy()})[0]


def test_large_activations_do_not_overflow_in_float16():
    """A residual of 1e5 is beyond float16; norms and sums are float32, so nothing is lost."""
    model, contract, _ = exported("classification", "fp32")
    tile = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.encoder.cls.fill_(1e5).mul_(torch.linspace(-1, 1, 32))
        expected = model(tile).numpy()
    found = run_onnx(to_onnx(model, contract, "fp16"), tile)
    assert np.isfinite(found).all()
    assert np.allclose(found, expected, atol=0.02 * float(np.abs(expected).max()))


def test_a_weight_that_float16_cannot_hold_is_refused():
    model, contract, _ = exported("classification", "fp32")
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[0, 0] = 1e5
    with pytest.raises(ConfigurationError, match=r"fp16: found 1e\+05, expected values in float16's range"):
        to_onnx(model, contract, "fp16")
    with pytest.raises(
        ConfigurationError, match=r"blocks\.1\.mlp\.fc1\.weight: half_weights: found a weight of 1e\+05"
    ):
        halve_weights(model)
    to_onnx(model, contract, "bf16")


def test_half_weights_are_what_torch_was_rounded_to():
    model, _, data = exported("classification", "fp32", half_weights=True)
    proto = onnx.load_from_string(data)
    halves = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    large = sum(p.numel() for p in model.parameters() if p.numel() >= 1024)
    assert sum(int(np.prod(t.dims)) for t in halves) == large
    tile = np.random.default_rng(1).normal(size=(3, 1, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.from_numpy(tile)).numpy()
    assert np.abs(session.run(None, {"tile": tile})[0] - expected).max() < 1e-5


def test_bf16_is_exported_where_an_engine_runs_it_and_refused_elsewhere(honest, tmp_path, monkeypatch):
    run, bundle = honest
    trained = load_run(run)
    trained.model.merge()
    spec = dataclasses.replace(bundle.spec, tolerance=1.0)
    data = to_onnx(trained.model, spec, "bf16")
    monkeypatch.setattr(onnx_model, "to_onnx", lambda *_: data)
    if importlib.util.find_spec("openvino"):
        assert "openvino" in (export(run, tmp_path / "toy", "toy", "bf16", **SAID).path / "README.md").read_text()
        return
    with pytest.raises(BundleError) as caught:
        export(run, tmp_path / "toy", "toy", "bf16", **SAID)
    assert caught.value.field == "precision bf16"
    assert "onnxruntime" in caught.value.found and "openvino" in caught.value.found
    assert not (tmp_path / "toy").exists()


# Spectrograms


def test_a_bundle_of_spectrograms_has_the_rate_and_golden_iq(tmp_path, tone):
    head = HeadSpec("classification", ("noise", "wifi", "lora"))
    run = make_run(tmp_path / "run", TILE_SPEC, head, rate_input=True)
    bundle = export(run, tmp_path / "toy", "toy", **SAID)
    golden, spec = bundle.golden(), bundle.spec
    assert [tensor.name for tensor in spec.inputs] == ["tile", "log10_rate"]
    assert 0 < spec.rates_hz[0] < spec.rates_hz[1]
    assert len(golden.inputs) == golden_module.GOLDEN_IQ
    assert all(TILE_SPEC.min_samples <= len(iq) <= 3 * TILE_SPEC.min_samples for iq in golden.inputs)
    pipeline = Pipeline.open(bundle.path, device="onnxruntime", gate_db=None)
    samples = tone(0.2, 5000)
    model = registry.load(run / "weights.safetensors")
    tile = torch.from_numpy(prepare(samples[: TILE_SPEC.tile_samples], TILE_SPEC)[None])
    for rate in (1e6, 20e6):
        with torch.no_grad():
            expected = model(tile, torch.log10(torch.full((1, 1), rate))).softmax(1).numpy()[0]
        found = pipeline.classify(samples, rate)[0].probabilities
        assert np.allclose([found[label] for label in head.labels], expected, atol=1e-3)


def test_rates_of_other_labels_are_those_of_the_weights_or_unknown(tmp_path, caplog):
    head = HeadSpec("classification", ("noise", "elephant"))
    run = make_run(tmp_path / "run", TILE_SPEC, head, rate_input=True)
    assert ExportJob.resolve(run, tmp_path / "toy", ExportOptions("toy", **SAID)).spec.rates_hz == (0.0, 0.0)
    assert "elephant: sample rates of the training data are not known" in caplog.text
    record = registry.read(run / "weights.safetensors")
    model = registry.build(record)
    registry.save(run / "weights.safetensors", model, record.extra | {"rates_hz": [2e5, 3e6]})
    assert ExportJob.resolve(run, tmp_path / "toy", ExportOptions("toy", **SAID)).spec.rates_hz == (2e5, 3e6)
    registry.save(run / "weights.safetensors", model, record.extra | {"rates_hz": [5, 1]})
    with pytest.raises(WeightsError, match=r"rates_hz: found \[5, 1\], expected the lowest and the highest"):
        export(run, tmp_path / "toy", "toy", **SAID)
    registry.save(run / "weights.safetensors", model, record.extra)
    with pytest.raises(ConfigurationError, match="arrays: found 1, expected none for a spectrogram model"):
        export(run, tmp_path / "toy", "toy", **SAID, rates_hz=(1e6, 2e6), arrays=[np.zeros((1, 8, 8), np.float32)])
