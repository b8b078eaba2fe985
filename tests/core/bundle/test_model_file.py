# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that refer to other files or to operators that are not standard are refused, wherever they hide it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from support import tiny_onnx
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.model_file import DEPTH_LIMIT, FIELDS_LIMIT, check_model, check_model_file
from wavesfm_core.errors import BundleError

ROOT = Path(__file__).parents[3]
MODEL = tiny_onnx.model(3)


def external() -> TensorProto:
    """A tensor whose values lie in /etc/passwd."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return tensor


def within(model: ModelProto, node: NodeProto) -> None:
    """Put a node into both branches of an If within the body of a Loop."""
    branch = helper.make_graph([node], "branch", [], [])
    inner = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], "b", [], []
    )
    model.graph.node.append(helper.make_node("Loop", ["n", "c"], ["z"], body=inner))


def constant(**attribute: object) -> NodeProto:
    """A Constant with one attribute."""
    node = NodeProto(op_type="Constant", output=["k"])
    node.attribute.append(AttributeProto(name="value", **attribute))
    return node


def as_sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    """A sparse tensor with these values."""
    return onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.zeros(4, np.int64)), dims=[8])


def location_only(model: ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="w", data_location=TensorProto.EXTERNAL))


FOREIGN = helper.make_node("Run", ["tile"], ["y"], domain="com.example")
EXTERNAL: dict[str, Callable[[ModelProto], object]] = {
    "initialiser": lambda m: m.graph.initializer.append(external()),
    "location without a name": location_only,
    "sparse initialiser": lambda m: m.graph.sparse_initializer.append(as_sparse(external())),
    "attribute": lambda m: m.graph.node.append(constant(t=external())),
    "attribute list": lambda m: m.graph.node.append(constant(tensors=[external()])),
    "sparse attribute": lambda m: m.graph.node.append(constant(sparse_tensor=as_sparse(external()))),
    "sparse attribute list": lambda m: m.graph.node.append(constant(sparse_tensors=[as_sparse(external())])),
    "nested graphs": lambda m: within(m, constant(t=external())),
    "graph list": lambda m: m.graph.node.append(
        constant(graphs=[onnx.GraphProto(initializer=[external()])], type=AttributeProto.GRAPHS)
    ),
    "training": lambda m: m.training_info.add().algorithm.initializer.append(external()),
}
DOMAINS: dict[str, Callable[[ModelProto], object]] = {
    "node": lambda m: m.graph.node.append(FOREIGN),
    "nested graphs": lambda m: within(m, FOREIGN),
    "contrib": lambda m: m.graph.node.append(helper.make_node("Gelu", ["t"], ["y"], domain="com.microsoft")),
}


def changed(change: Callable[[ModelProto], object]) -> bytes:
    model = onnx.load_model_from_string(MODEL)
    change(model)
    return model.SerializeToString()


@pytest.mark.parametrize("case", EXTERNAL)
def test_a_tensor_in_another_file_is_refused(case: str) -> None:
    with pytest.raises(BundleError, match=r"a/model\.onnx: contents: found a tensor in another file, expected an ONNX"):
        check_model(changed(EXTERNAL[case]), "a/model.onnx")


@pytest.mark.parametrize("case", DOMAINS)
def test_an_operator_of_another_domain_is_refused(case: str) -> None:
    with pytest.raises(BundleError, match=r"found an operator of the domain 'com\.\w+'"):
        check_model(changed(DOMAINS[case]), "m")


def test_a_function_is_refused() -> None:
    function = FunctionProto(name="f", domain="local", input=["x"], output=["y"])
    with pytest.raises(BundleError, match="found a function in the model"):
        check_model(changed(lambda m: m.functions.append(function)), "m")


def test_standard_domains_and_control_flow_pass() -> None:
    model = onnx.load_model_from_string(MODEL)
    within(model, constant(t=numpy_helper.from_array(np.zeros(4, np.float32))))
    model.graph.node.append(helper.make_node("Scaler", ["tile"], ["s"], domain="ai.onnx.ml"))
    model.graph.node.append(helper.make_node("Relu", ["tile"], ["r"], domain="ai.onnx"))
    check_model(model.SerializeToString(), "m")


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/model.onnx")), ids=lambda path: path.parent.name)
def test_shipped_models_pass(path: Path) -> None:
    check_model_file(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no model at all", "expected an ONNX model"),
        (MODEL[:-3], "bytes where"),
        (MODEL + b"\x3a\x00", "2 graphs"),
        (b"\x08\x08", "0 graphs"),
        (b"\xff" * 40, "does not end"),
        (MODEL + b"\x03", "no protobuf message"),
        (MODEL + b"\xea\x80\x80\x80\x10\x00", "no protobuf message"),  # the key of field 13 with a bit above 32
    ],
)
def test_what_is_no_model_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        check_model(data, "m")


def message(key: int, body: bytes) -> bytes:
    """A field of bytes."""
    size, head = len(body), bytearray([key])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + body


def test_graphs_too_deep_are_refused() -> None:
    graph = b""
    for _ in range((DEPTH_LIMIT - 2) // 3):
        graph = message(0x0A, message(0x2A, message(0x32, graph)))  # graph.node, node.attribute, attribute.g
    check_model(message(0x3A, graph), "m")
    graph = message(0x0A, message(0x2A, message(0x32, graph)))
    with pytest.raises(BundleError, match=f"more than {DEPTH_LIMIT} messages within each other"):
        check_model(message(0x3A, graph), "m")


def test_too_many_fields_are_refused() -> None:
    """As a file that keeps the reader busy: a tensor of unpacked numbers, two bytes a field."""
    tensor = message(0x2A, b"\x28\x01" * (FIELDS_LIMIT + 1))
    with pytest.raises(BundleError, match=f"more than {FIELDS_LIMIT} fields"):
        check_model(message(0x3A, tensor), "m")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_pass(data: bytes) -> None:
    try:
        check_model(data, "m")
    except BundleError as error:
        assert error.where == "m"


@given(st.integers(0, len(MODEL) - 1), st.integers(0, 255))
def test_what_protobuf_reads_as_external_never_passes(position: int, value: int) -> None:
    data = bytearray(changed(EXTERNAL["nested graphs"]))
    data[position % len(data)] = value
    try:
        model = onnx.load_model_from_string(bytes(data))
    except Exception:  # no protobuf message any more
        return
    if "external_data" in str(model):
        with pytest.raises(BundleError):
            check_model(bytes(data), "m")


def test_a_bundle_with_an_external_tensor_is_not_opened(fake_bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(fake_bundle, tmp_path / "b"))
    model = onnx.load_model_from_string((path / "model.onnx").read_bytes())
    model.graph.initializer.append(external())
    data = model.SerializeToString()
    (path / "model.onnx").write_bytes(data)
    values = json.loads((path / "bundle.json").read_text())
    values["sha256"] = hashlib.sha256(data).hexdigest()  # as somebody would who wants it opened
    (path / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"model\.onnx: contents: found a tensor in another file"):
        Bundle.open(path)
