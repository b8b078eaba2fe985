# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed models compute what the plain one does, in the precision that was asked for, and where it was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import synthetic_vit, tiny_onnx
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.tensorrt.calibration import activation_ranges, digest
from wavesfm_core.engines.tensorrt.mixed_precision import activations, typed
from wavesfm_core.engines.tensorrt.onnx_graph import BFLOAT16, FLOAT, FLOAT16, OnnxGraph, integer, make_node
from wavesfm_core.engines.tensorrt.precisions import PRECISIONS, RELATIVE_TOLERANCES
from wavesfm_core.engines.tensorrt.transformer_products import Products
from wavesfm_core.errors import BundleError, ConfigurationError
from wavesfm_core.preprocess.golden_inputs import golden_inputs

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json"))
INT8, INT64 = onnx.TensorProto.INT8, onnx.TensorProto.INT64
MODEL = synthetic_vit.vit(**synthetic_vit.SMALL)
TILES = np.random.default_rng(1).normal(size=(5, 2, 32, 32)).astype(np.float32)
HALVES = {"bf16": BFLOAT16, "fp16": FLOAT16, "int8": FLOAT16}


def ranges(model: bytes = MODEL) -> dict[str, float]:
    pytest.importorskip("onnxruntime")
    return activation_ranges(model, {"tile": TILES})


def run(model: bytes, inputs: dict[str, np.ndarray], precision: str, directory: Path) -> np.ndarray:
    """The first output: by onnxruntime, and by OpenVINO for bf16, which onnxruntime does not compute on a CPU."""
    if precision != "bf16":
        onnxruntime = pytest.importorskip("onnxruntime")
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    openvino = pytest.importorskip("openvino")
    path = directory / "typed.onnx"
    path.write_bytes(model)
    core = openvino.Core()
    return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_are_the_plain_models(precision: str, tmp_path: Path) -> None:
    reference = synthetic_vit.run(MODEL, TILES)
    outputs = run(typed(MODEL, precision, ranges()), {"tile": TILES}, precision, tmp_path)
    tolerance = max(1e-5, RELATIVE_TOLERANCES[precision] * np.abs(reference).max())
    np.testing.assert_allclose(outputs, reference, rtol=0, atol=tolerance)
    assert precision == "fp32" or np.abs(outputs - reference).max() > 1e-6  # else nothing was rounded


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_shipped_bundles_give_their_golden_outputs(path: Path, precision: str, tmp_path: Path) -> None:
    bundle = Bundle.open(path)
    golden = bundle.golden()
    inputs = golden_inputs(bundle.spec, golden)
    model = bundle.model_path.read_bytes()
    calibrated = activation_ranges(model, inputs) if precision == "int8" else None
    outputs = run(typed(model, precision, calibrated), inputs, precision, tmp_path)
    expected = golden.outputs[bundle.spec.outputs[0].name]
    relative = RELATIVE_TOLERANCES[precision] * np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=max(bundle.spec.tolerance, relative))
    cosine = np.vdot(outputs, expected) / np.linalg.norm(outputs) / np.linalg.norm(expected)
    assert cosine >= 0.9995


def types(graph: OnnxGraph) -> dict[str, int]:
    """The element type of each tensor that this file's models have, as ONNX infers it."""
    found = {name: tensor.data_type for name, tensor in graph.initialisers.items()}
    found["tile"] = FLOAT
    for node in graph.nodes:
        if node.op_type == "Cast":
            kind = integer(node, "to", 0)
        elif node.op_type == "QuantizeLinear":
            kind = INT8
        else:
            kind = found[node.input[1]] if node.op_type == "DequantizeLinear" else found[node.input[0]]
        found.update(dict.fromkeys(node.output, kind))
    return found


@pytest.mark.parametrize("precision", HALVES)
def test_what_is_half_and_what_is_not(precision: str) -> None:
    graph = OnnxGraph(typed(MODEL, precision, ranges()))
    kinds = types(graph)
    products = [kinds[n.output[0]] for n in graph.nodes if n.op_type == "MatMul"]
    assert products == [HALVES[precision]] * (
        1 + 2 * 6
    )  # the patch embedding, 4 with weights and 2 of attention a block
    for node in graph.nodes:
        if node.op_type in ("LayerNormalization", "Softmax", "Gemm"):  # the Gemm is the head
            assert {kinds[name] for name in node.input} == {FLOAT}, node.op_type
        if node.op_type in ("Add", "Mul", "MatMul"):
            assert len({kinds[name] for name in node.input}) == 1, f"{node.op_type} {node.output[0]} mixes types"
    residual = [
        n for n in graph.nodes if n.op_type == "Add" and not any(name in graph.initialisers for name in n.input)
    ]
    assert len(residual) == 4
    assert {kinds[n.output[0]] for n in residual} == {FLOAT}
    assert kinds["logits"] == FLOAT


def test_int8_quantises_the_products_with_weights_for_each_output() -> None:
    graph = OnnxGraph(typed(MODEL, "int8", ranges()))
    found = synthetic_vit.counts(graph.encoded())
    assert found["QuantizeLinear"] == 9  # the inputs of 1 + 2 * 4 products
    assert found["DequantizeLinear"] == 18
    weights = {
        name: graph.values(name) for name, t in graph.initialisers.items() if t.data_type == INT8 and len(t.dims) == 2
    }
    assert len(weights) == 9
    plain = OnnxGraph(MODEL).values("blocks.0.qkv.weight")
    integers = weights["typed/blocks.0.qkv.weight/int8"]
    scales = graph.values("typed/blocks.0.qkv.weight/scale")
    assert scales.shape == (96,)
    assert np.abs(integers).max(axis=0).min() >= 126
    np.testing.assert_allclose(integers * scales.astype(np.float32), plain, atol=float(scales.max()))


def test_bf16_rounds_to_the_nearest_even() -> None:
    from wavesfm_core.engines.tensorrt.mixed_precision import _halved

    rounded = _halved(np.array([1 + 2**-8, 1 + 3 * 2**-8, -1.0, 3e38], np.float32), BFLOAT16, "x")
    np.testing.assert_array_equal(rounded[:3].astype(np.float32), [1.0, 1 + 2**-6, -1.0])
    assert np.isfinite(rounded.astype(np.float32)).all()


def test_weights_beyond_float16_are_refused_by_name() -> None:
    model = synthetic_vit.vit(**synthetic_vit.SMALL, scale=1e7)
    with pytest.raises(ConfigurationError, match=r"blocks\.0\.qkv\.weight.*65504: take bf16"):
        typed(model, "fp16")
    assert synthetic_vit.counts(typed(model, "bf16"))["MatMul"] == 13


def test_halves_behind_casts_are_folded(tmp_path: Path) -> None:
    graph = OnnxGraph(MODEL)
    for name in [name for name in graph.initialisers if name.endswith("weight") and "norm" not in name]:
        half = graph.values(name).astype(np.float16)
        del graph.initialisers[name]
        graph.add(half, name + "_half")
        graph.nodes.insert(0, make_node("Cast", [name + "_half"], name, to=FLOAT))
    stored = graph.encoded()
    plain = typed(stored, "fp32")
    assert "Cast" not in synthetic_vit.counts(plain)
    np.testing.assert_array_equal(synthetic_vit.run(plain, TILES), synthetic_vit.run(stored, TILES))
    assert synthetic_vit.counts(typed(stored, "fp16")) == synthetic_vit.counts(typed(MODEL, "fp16"))


def test_a_model_that_was_exported_in_halves_is_typed_anew() -> None:
    once = typed(MODEL, "fp16")
    assert {t.data_type for t in OnnxGraph(typed(once, "fp32")).initialisers.values()} <= {FLOAT, INT64}
    again = OnnxGraph(typed(once, "bf16"))
    kinds = types(again)
    assert [kinds[n.output[0]] for n in again.nodes if n.op_type == "MatMul"] == [BFLOAT16] * 13


def test_a_model_without_a_transformer_stays_float32() -> None:
    plain = tiny_onnx.model(3)
    assert activations(plain) == ()
    assert synthetic_vit.counts(typed(plain, "fp32")) == synthetic_vit.counts(plain)
    for precision in HALVES:
        with pytest.raises(ConfigurationError, match="take fp32"):
            typed(plain, precision)


def test_products_before_and_after_the_blocks_are_left_alone() -> None:
    """As a channel estimator has them around its encoder: a fixed transform first, another last."""
    graph = OnnxGraph(MODEL)
    rng = np.random.default_rng(3)
    graph.add(rng.normal(size=(32, 32)).astype(np.float32), "first")
    graph.add(np.full((), 2, np.float32), "unit")
    graph.nodes[0].input[0] = "whitened"
    graph.nodes[:0] = [make_node("MatMul", ["tile", "first"], "modes"), make_node("Sqrt", ["unit"], "root")]
    graph.nodes.insert(2, make_node("Div", ["modes", "root"], "whitened"))
    found = Products(graph)
    assert "modes" not in found.all
    assert "logits" not in found.all
    assert len(found.weighted) == 9


@pytest.mark.parametrize("bad", [{}, None, {"x": 1.0}])
def test_int8_needs_every_range(bad: dict[str, float] | None) -> None:
    with pytest.raises(ConfigurationError, match="found nothing, expected its largest magnitude"):
        typed(MODEL, "int8", bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e6])
def test_int8_refuses_ranges_that_are_none(value: float) -> None:
    with pytest.raises(ConfigurationError, match="range of"):
        typed(MODEL, "int8", dict.fromkeys(activations(MODEL), value))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigurationError, match="found 'fp8', expected one of fp32, bf16, fp16, int8"):
        typed(MODEL, "fp8")
    with pytest.raises(BundleError, match="ONNX model"):
        typed(b"nothing", "bf16")


def test_ranges_are_those_of_the_tiles() -> None:
    model = synthetic_vit.vit(**synthetic_vit.SMALL)
    found = ranges(model)
    assert list(found) == list(activations(model))
    patches = next(iter(found.values()))  # the first product takes the tile itself, moved
    assert patches == pytest.approx(float(np.abs(TILES).max()))
    larger = activation_ranges(model, {"tile": 2 * TILES})
    assert next(iter(larger.values())) == pytest.approx(2 * patches)
    assert digest({"tile": TILES}) == digest({"tile": TILES.copy()}) != digest({"tile": 2 * TILES})
