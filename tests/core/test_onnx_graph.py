# SPDX-License-Identifier: GPL-3.0-or-later
"""ONNX files read and written without onnx, and refused, in one sentence, where they are not whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import synthetic_vit, tiny_onnx
from wavesfm_core import protobuf_wire as wire
from wavesfm_core.errors import BundleError
from wavesfm_core.onnx_graph import BFLOAT16, FLOAT16, Graph, Initialiser, Node

MODEL = tiny_onnx.model(3)


def test_a_model_is_read() -> None:
    graph = Graph.parse(MODEL)
    assert [node.op for node in graph.nodes] == ["AveragePool", "Flatten", "Concat", "MatMul", "Add"]
    assert (graph.inputs, graph.outputs, graph.opset) == (["tile", "log10_rate"], ["logits"], 17)
    matrix, bias = tiny_onnx.weights(3)
    np.testing.assert_array_equal(graph.initialisers["weights"].values, matrix)
    np.testing.assert_array_equal(graph.initialisers["bias"].values, bias)
    assert graph.nodes[1].integer("axis", 7) == 1
    assert graph.nodes[3].integer("axis", 7) == 7


def test_writing_and_reading_again_changes_nothing() -> None:
    once = Graph.parse(MODEL).encoded()
    assert Graph.parse(once).encoded() == once
    tiles = np.random.default_rng(0).normal(size=(2, 1, 224, 224)).astype(np.float32)
    onnxruntime = pytest.importorskip("onnxruntime")
    inputs = {"tile": tiles, "log10_rate": np.full((2, 1), 6, np.float32)}
    (logits,) = onnxruntime.InferenceSession(once).run(None, inputs)
    np.testing.assert_allclose(logits, tiny_onnx.oracle(tiles, inputs["log10_rate"], 3), atol=1e-5)


def test_what_is_not_understood_is_kept() -> None:
    unknown = wire.write([wire.chunk(14, b"metadata"), wire.number(5, 3)])
    assert unknown in Graph.parse(MODEL + unknown).encoded()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 graphs"),
        (b"no model at all", "unreadable"),
        (MODEL[:-3], "bytes where"),
        (MODEL[: len(MODEL) // 2], "bytes where"),
        (MODEL + wire.write([wire.chunk(7, b"")]), "2 graphs"),
        (MODEL + wire.write([wire.chunk(25, b"")]), "functions"),
        (b"\xff" * 40, "without end"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        Graph.parse(data, "a/model.onnx")
    assert caught.value.where == "a/model.onnx"


def tensor(*fields: wire.Field) -> bytes:
    """MODEL with one more constant of these fields."""
    graph = b"".join(bytes(wire.body(f)) for f in wire.read(MODEL) if f.number == 7)
    rest = [f for f in wire.read(MODEL) if f.number != 7]
    return wire.write([*rest, wire.chunk(7, graph + wire.write([wire.chunk(5, wire.write(fields))]))])


FLOAT_X = (wire.number(2, 1), wire.chunk(8, "x"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([*FLOAT_X, wire.number(1, 3), wire.chunk(9, b"1234")], r"\[3\] in 4 bytes"),
        ([*FLOAT_X, wire.number(1, -1), wire.chunk(9, b"")], "shape"),
        ([*FLOAT_X, wire.number(1, 1 << 40), wire.number(1, 1 << 40), wire.chunk(9, b"")], "in 0 bytes"),
        ([wire.number(2, 99), wire.chunk(8, "x")], "type 99"),
        ([*FLOAT_X, wire.number(1, 1), wire.number(14, 1)], "another file"),
        ([*FLOAT_X, *[wire.number(1, 1)] * 100, wire.chunk(9, b"1234")], "shape"),
    ],
)
def test_tensors_that_are_not_all_there_are_refused(fields: list[wire.Field], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Graph.parse(tensor(*fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([*FLOAT_X, wire.number(1, 2), wire.chunk(4, synthetic_vit.floats(1.5, -2))], [1.5, -2]),
        ([wire.number(2, 7), wire.chunk(8, "x"), wire.number(1, 2), wire.number(7, -1), wire.number(7, 5)], [-1, 5]),
        ([wire.number(2, 10), wire.chunk(8, "x"), wire.number(1, 1), wire.number(5, 0x3E00)], [1.5]),
        ([wire.number(2, 16), wire.chunk(8, "x"), wire.number(1, 1), wire.number(5, 0x3FC0)], [1.5]),
    ],
)
def test_tensors_of_typed_fields(fields: list[wire.Field], expected: list[float]) -> None:
    np.testing.assert_array_equal(Graph.parse(tensor(*fields)).initialisers["x"].values, expected)


def test_a_tensor_keeps_its_values() -> None:
    for array in (np.float32(3), np.arange(6, dtype="i8").reshape(2, 3), np.zeros((0, 4), "f4"), np.ones(3, "f2")):
        again = Initialiser.of("x", array)
        np.testing.assert_array_equal(again.values, array)
        assert (again.values.dtype, again.values.shape) == (array.dtype, array.shape)
    bits = Initialiser.of("x", np.array([0x3FC0], np.uint16), BFLOAT16)
    assert (bits.data_type, bits.values[0]) == (BFLOAT16, 1.5)
    assert Initialiser.of("x", np.ones(3, "f2")).data_type == FLOAT16


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Add", ["later", "a"], "y"), ("Neg", ["a"], "later")], "before it is made"),
        ([("Neg", ["a"], "y"), ("Neg", ["a"], "y")], "made twice"),
        ([("Neg", ["a"], "x")], "no node makes"),
    ],
)
def test_graphs_with_loops_or_holes_are_refused(nodes: list[tuple[str, list[str], str]], words: str) -> None:
    graph = b"".join(tiny_onnx._field(1, Node.make(op, inputs, [output]).encoded()) for op, inputs, output in nodes)
    graph += tiny_onnx._field(11, tiny_onnx._value("a", [1])) + tiny_onnx._field(12, tiny_onnx._value("y", [1]))
    with pytest.raises(BundleError, match=words):
        Graph.parse(tiny_onnx._field(7, graph) + tiny_onnx._field(8, tiny_onnx._number(2, 17)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        Graph.parse(data)
    except BundleError:
        return
    raise AssertionError("random bytes are no model")


@given(st.integers(0, len(MODEL) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(position: int, value: int) -> None:
    changed = bytearray(MODEL)
    changed[position] = value
    try:
        Graph.parse(bytes(changed)).encoded()
    except BundleError as error:
        assert "model" in str(error)


@given(st.lists(st.tuples(st.integers(1, 1000), st.one_of(st.integers(0, (1 << 64) - 1), st.binary(max_size=20)))))
def test_messages_come_back(items: list[tuple[int, int | bytes]]) -> None:
    fields = [wire.number(n, v) if isinstance(v, int) else wire.chunk(n, v) for n, v in items]
    again = [(f.number, f.value if isinstance(f.value, int) else bytes(f.value)) for f in wire.read(wire.write(fields))]
    assert again == items


def test_unused_parts_are_left_out() -> None:
    graph = Graph.parse(MODEL)
    graph.nodes.append(Node.make("Neg", ["logits"], ["unused"]))
    graph.add(np.zeros(3, np.float32), "nobody's")
    graph.drop_unused()
    assert [node.op for node in graph.nodes][-1] == "Add"
    assert "nobody's" not in graph.initialisers
