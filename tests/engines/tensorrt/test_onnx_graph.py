# SPDX-License-Identifier: GPL-3.0-or-later
"""ONNX graphs are read, changed and written, and refused in one sentence where they are not valid."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from support import tiny_onnx
from wavesfm_core.engines.tensorrt.onnx_graph import OnnxGraph, integer, make_node
from wavesfm_core.errors import BundleError

MODEL = tiny_onnx.model(3)


def test_a_model_is_read() -> None:
    graph = OnnxGraph(MODEL)
    assert [node.op_type for node in graph.nodes] == ["AveragePool", "Flatten", "Concat", "MatMul", "Add"]
    assert (graph.outputs, graph.opset) == (["logits"], 17)
    matrix, bias = tiny_onnx.weights(3)
    np.testing.assert_array_equal(graph.values("weights"), matrix)
    np.testing.assert_array_equal(graph.values("bias"), bias)
    assert integer(graph.nodes[1], "axis", 7) == 1
    assert integer(graph.nodes[3], "axis", 7) == 7


def test_writing_keeps_the_model() -> None:
    once = OnnxGraph(MODEL).encoded()
    assert onnx.load_model_from_string(once) == onnx.load_model_from_string(MODEL)
    onnxruntime = pytest.importorskip("onnxruntime")
    tiles = np.random.default_rng(0).normal(size=(2, 1, 224, 224)).astype(np.float32)
    inputs = {"tile": tiles, "log10_rate": np.full((2, 1), 6, np.float32)}
    (logits,) = onnxruntime.InferenceSession(once).run(None, inputs)
    np.testing.assert_allclose(logits, tiny_onnx.oracle(tiles, inputs["log10_rate"], 3), atol=1e-5)


def test_encoding_twice_gives_the_same() -> None:
    graph = OnnxGraph(MODEL)
    assert graph.encoded() == graph.encoded()


def model(*nodes: onnx.NodeProto, initialisers: list[onnx.TensorProto] | None = None) -> bytes:
    """A model from a [1] to y [1]."""
    a, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ay")
    graph = helper.make_graph(list(nodes), "graph", [a], [y], initialisers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


BRANCH = helper.make_graph([make_node("Neg", ["a"], "n")], "b", [], [helper.make_tensor_value_info("n", 1, [1])])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 graphs"),
        (b"no model at all", "an ONNX model"),
        (MODEL[: len(MODEL) // 2], "bytes where"),
        (model(make_node("Add", ["later", "a"], "y"), make_node("Neg", ["a"], "later")), "valid ONNX model"),
        (model(make_node("Neg", ["a"], "y"), make_node("Neg", ["a"], "y")), "valid ONNX model"),
        (model(make_node("NoOperator", ["a"], "y")), "NoOperator"),
        (model(make_node("MatMul", ["a"], "y")), "MatMul"),
        (
            model(
                make_node("Add", ["a", "x"], "y"),
                initialisers=[onnx.TensorProto(name="x", data_type=1, dims=[3], raw_data=b"1234")],
            ),
            "valid ONNX model",
        ),
        (
            model(make_node("If", ["a"], "y", then_branch=BRANCH, else_branch=BRANCH)),
            "If with a subgraph, expected no control flow",
        ),
    ],
)
def test_what_is_no_valid_model_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        OnnxGraph(data, "a/model.onnx")
    assert caught.value.where == "a/model.onnx"


@given(st.integers(0, len(MODEL) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(position: int, value: int) -> None:
    data = bytearray(MODEL)
    data[position] = value
    try:
        OnnxGraph(bytes(data)).encoded()
    except BundleError as error:
        assert error.where == "model.onnx"


def test_unused_parts_are_removed() -> None:
    graph = OnnxGraph(MODEL)
    graph.nodes.append(make_node("Neg", ["logits"], "unused"))
    graph.add(np.zeros(3, np.float32), "nobody's")
    graph.drop_unused()
    assert [node.op_type for node in graph.nodes][-1] == "Add"
    assert "nobody's" not in graph.initialisers
