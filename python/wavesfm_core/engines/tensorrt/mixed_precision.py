# SPDX-License-Identifier: GPL-3.0-or-later
"""Mixed precision as types in the ONNX graph, for the trainer's export and for TensorRT. Needs the package onnx.

TensorRT builds networks with the types of the ONNX file (TensorRT 11 and TensorRT-RTX have no precision flags; with the
flags of TensorRT 10 vision transformers lose their accuracy). In the half type are the matrix products of the
transformer: of the patch embedding, of a block's weights and of attention, with their biases and the operators that
only move their outputs. In float32 stay the residual stream, LayerNorm and softmax, which overflow float16 or lose
accuracy in 16 bits; the last layer of the head, which gives metres and logits; the embedding of the rate; and the
computations of a channel estimator around its encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from ...errors import ConfigurationError
from .onnx_graph import BFLOAT16, FLOAT, FLOAT16, HALVES, OnnxGraph, integer, make_node, size
from .precisions import PRECISIONS
from .transformer_products import ACTIVATIONS, MOVES, SHAPE_OPERATORS, Products

_HALF = {"bf16": BFLOAT16, "fp16": FLOAT16, "int8": FLOAT16}  # int8: what is not quantised, and the scales
_INT8_OPSET = 19  # from which on scales may be float16


def typed(model: bytes, precision: str, ranges: Mapping[str, float] | None = None) -> bytes:
    """The ONNX model with the types of a precision; inputs and outputs stay float32.

    Weights that are stored as 16 bits behind casts become float32 first, and a model that was exported in a half type
    is typed anew.

    Parameters
    ----------
    model : bytes
        The ONNX file.
    precision : str
        One of PRECISIONS: "fp32"; "bf16" or "fp16", the half type of the products; "int8", where products with weights
        take 8-bit integers (a scale for each output of the weights, one for the activations) and the others float16.
    ranges : Mapping of str to float, optional
        For int8: largest magnitude of each tensor that `activations` names.

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    BundleError
        Not a valid, self-contained ONNX model without control flow.
    ConfigurationError
        Weights beyond float16's range, missing ranges, or a model without matrix products of a transformer, in which
        nothing would have the precision.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError("typed model", "precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    graph = _float32_graph(model)
    if precision == "fp32":
        return graph.encoded()
    found = Products(graph)
    if not found.all:
        expected = "products of a transformer (LayerNorm, attention): take fp32"
        raise ConfigurationError("typed model", f"precision {precision}", "a model without such products", expected)
    if precision == "int8":
        _check_ranges(graph, found, ranges or {})
    _Typing(graph, found, precision, ranges or {}).apply()
    return graph.encoded()


def activations(model: bytes) -> tuple[str, ...]:
    """Names of the tensors that int8 quantises, in order: the inputs of the products with weights."""
    found = Products(_float32_graph(model))
    return tuple(dict.fromkeys(node.input[0] for node in found.weighted))


def with_range_outputs(model: bytes, names: tuple[str, ...]) -> bytes:
    """The float32 model whose only outputs are the largest magnitudes of tensors.

    Parameters
    ----------
    model : bytes
        The ONNX file.
    names : tuple of str
        The tensors.

    Returns
    -------
    bytes
        An ONNX file with the outputs "range/0" of the first tensor, "range/1" of the second, and so on.
    """
    graph = _float32_graph(model)
    for i, name in enumerate(names):
        graph.nodes.append(make_node("Abs", [name], f"magnitude/{i}"))
        graph.nodes.append(make_node("ReduceMax", [f"magnitude/{i}"], f"range/{i}", keepdims=0))
    graph.replace_outputs([f"range/{i}" for i in range(len(names))])
    graph.drop_unused()
    return graph.encoded()


class _Typing:
    """One pass over the nodes in order that tracks which tensors have the half type so far."""

    def __init__(self, graph: OnnxGraph, found: Products, precision: str, ranges: Mapping[str, float]) -> None:
        self._graph, self._found, self._ranges = graph, found, ranges
        self._precision, self._type = precision, _HALF[precision]
        self._weighted = {node.output[0] for node in found.weighted} if precision == "int8" else set()
        self._prefix = _free_prefix(graph)
        self._half: set[str] = set()
        self._derived: dict[str, str] = {}  # names of casts and quantised tensors, by their source
        self._nodes: list[NodeProto] = []

    def apply(self) -> None:
        """Change the graph."""
        for node in self._graph.nodes:
            if node.output[0] in self._found.all:
                self._product(node)
            elif self._stays_half(node):
                node.input[:] = [self._as_half(name) if self._is_float(name) else name for name in node.input]
                self._half.update(node.output)
            elif node.op_type not in SHAPE_OPERATORS:
                node.input[:] = [self._as_float(name) for name in node.input]
            self._nodes.append(node)
        self._graph.nodes = self._nodes
        self._keep_outputs_float()
        self._graph.drop_unused()

    def _product(self, node: NodeProto) -> None:
        if node.output[0] in self._weighted:
            node.input[:] = [self._quantised(node.input[0]), self._quantised_weights(node), *node.input[2:]]
            node.input[2:] = [self._as_half(name) for name in node.input[2:]]
        else:
            node.input[:] = [self._as_half(name) for name in node.input]
        self._half.update(node.output)

    def _stays_half(self, node: NodeProto) -> bool:
        """Whether a node with a half input keeps it: a move, an activation, a constant factor, or a product's bias."""
        if node.op_type in MOVES or node.op_type in ACTIVATIONS:
            return node.input[0] in self._half
        if node.op_type not in ("Add", "Mul", "Div"):
            return False
        constants = [self._graph.initialisers[name] for name in node.input if name in self._graph.initialisers]
        free = [name for name in node.input if name not in self._graph.initialisers]
        if len(constants) != 1 or len(free) != 1 or free[0] not in self._half or constants[0].data_type != FLOAT:
            return False
        if node.op_type == "Add":
            return free[0] in self._found.all and len(constants[0].dims) == 1
        return size(constants[0]) == 1

    def _is_float(self, name: str) -> bool:
        tensor = self._graph.initialisers.get(name)
        return tensor is not None and tensor.data_type == FLOAT

    def _as_half(self, name: str) -> str:
        if name in self._half or not name:
            return name
        derived = self._derived.get(name)
        if derived is None:
            derived = self._derived[name] = f"{self._prefix}{name}/half"
            if name in self._graph.initialisers:
                self._graph.add(_halved(self._graph.values(name), self._type, name), derived)
            else:
                self._nodes.append(make_node("Cast", [name], derived, to=self._type))
        return derived

    def _as_float(self, name: str) -> str:
        if name not in self._half:
            return name
        derived = self._derived.get(name)
        if derived is None:
            derived = self._derived[name] = f"{self._prefix}{name}/float"
            self._nodes.append(make_node("Cast", [name], derived, to=FLOAT))
        return derived

    def _quantised(self, name: str) -> str:
        """An activation through 8-bit integers, with one scale."""
        key = f"{name} in int8"
        if key not in self._derived:
            half, derived = self._as_half(name), f"{self._prefix}{name}"
            scale = self._graph.add(_scales(np.float32(self._ranges[name])), f"{derived}/scale")
            zero = self._graph.add(np.zeros((), np.int8), f"{derived}/zero")
            self._nodes.append(make_node("QuantizeLinear", [half, scale, zero], f"{derived}/int8"))
            self._nodes.append(
                make_node("DequantizeLinear", [f"{derived}/int8", scale, zero], f"{derived}/dequantised")
            )
            self._derived[key] = f"{derived}/dequantised"
        return self._derived[key]

    def _quantised_weights(self, node: NodeProto) -> str:
        """Weights as 8-bit integers, with a scale for each output."""
        name, derived = node.input[1], f"{self._prefix}{node.input[1]}"
        if f"{name} in int8" not in self._derived:
            weights = self._graph.values(name)
            axis = 0 if node.op_type == "Gemm" and integer(node, "transB", 0) else 1
            scales = _scales(np.abs(weights).max(axis=1 - axis))
            per_output = scales.astype(np.float32)[:, None] if axis == 0 else scales.astype(np.float32)
            integers = np.clip(np.rint(weights / per_output), -127, 127).astype(np.int8)
            names = [self._graph.add(integers, f"{derived}/int8"), self._graph.add(scales, f"{derived}/scale")]
            names.append(self._graph.add(np.zeros(scales.shape, np.int8), f"{derived}/zero"))
            self._nodes.append(make_node("DequantizeLinear", names, f"{derived}/dequantised", axis=axis))
            self._derived[f"{name} in int8"] = f"{derived}/dequantised"
        return self._derived[f"{name} in int8"]

    def _keep_outputs_float(self) -> None:
        for name in self._half.intersection(self._graph.outputs):
            for node in self._graph.nodes:
                node.input[:] = [f"{self._prefix}{name}/output" if other == name else other for other in node.input]
                node.output[:] = [f"{self._prefix}{name}/output" if other == name else other for other in node.output]
            self._graph.nodes.append(make_node("Cast", [f"{self._prefix}{name}/output"], name, to=FLOAT))


def _free_prefix(graph: OnnxGraph) -> str:
    """A prefix that no tensor's name has: names of a model that was typed before have one."""
    names, prefix = (*graph.initialisers, *graph.producers()), "typed/"
    while any(name.startswith(prefix) for name in names):
        prefix = "re" + prefix
    return prefix


def _float32_graph(model: bytes) -> OnnxGraph:
    """The model in float32: 16-bit constants widened, casts to 16 bits changed to float32, Constants folded."""
    graph = OnnxGraph(model)
    nodes = []
    for node in graph.nodes:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is not None:
            graph.initialisers[node.output[0]] = value
            continue
        if node.op_type == "Cast":
            to = next(attribute for attribute in node.attribute if attribute.name == "to")
            if to.i in HALVES:
                to.i = FLOAT
            stored = graph.initialisers.get(node.input[0])
            if stored is not None and to.i == FLOAT and stored.data_type in (FLOAT, *HALVES):
                graph.initialisers[node.output[0]] = stored
                continue
        nodes.append(node)
    graph.nodes = nodes
    for name, tensor in graph.initialisers.items():
        values = numpy_helper.to_array(tensor)
        graph.add(values.astype(np.float32) if tensor.data_type in HALVES else values, name)
    graph.drop_unused()
    return graph


def _halved(values: NDArray[np.float32], data_type: int, name: str) -> NDArray[Any]:
    """Values rounded to the half type, to the nearest (ties to even)."""
    if data_type == BFLOAT16:
        return values.astype(ml_dtypes.bfloat16)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        largest = float(np.abs(values).max())
        expected = "values in float16's range, up to 65504: take bf16"
        raise ConfigurationError(f"typed model, tensor {name}", "fp16", f"{largest:.3g}", expected)
    return half


def _scales(largest: NDArray[np.float32] | np.float32) -> NDArray[np.float16]:
    """Steps of 8-bit integers that reach a magnitude; no smaller than float16's least normal number."""
    least = float(np.finfo(np.float16).tiny)
    return np.maximum(np.asarray(largest, np.float32) / 127, least).astype(np.float16)


def _check_ranges(graph: OnnxGraph, found: Products, ranges: Mapping[str, float]) -> None:
    """Raise ConfigurationError where int8 lacks an opset or a range."""
    if graph.opset < _INT8_OPSET:
        expected = f"{_INT8_OPSET} or later, for scales in float16"
        raise ConfigurationError("typed model", "opset", graph.opset, expected)
    for name in dict.fromkeys(node.input[0] for node in found.weighted):
        largest = ranges.get(name)
        if largest is None or not 0 <= largest < float(np.finfo(np.float16).max):
            found_range = "nothing" if largest is None else f"{largest:.3g}"
            expected = "its largest magnitude over calibration tiles, within float16's range"
            raise ConfigurationError("typed model", f"range of {name}", found_range, expected)
