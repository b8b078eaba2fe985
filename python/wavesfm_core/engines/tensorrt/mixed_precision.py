# SPDX-License-Identifier: GPL-3.0-or-later
"""A model with the arithmetic of a precision typed into it: no engine has to guess what may be rounded.

TensorRT types networks strongly (TensorRT 11 and TensorRT-RTX have no precision flags any more; with the flags of
TensorRT 10 vision transformers lose their accuracy), so what is built is what the ONNX file says. The rules are those
of the trainer's export. In the half type are the products of the transformer: of the patch embedding, of a block's
weights and of attention, with their biases and what only moves their outputs. In float32 stay the residual stream,
LayerNorm and softmax, which overflow float16 or lose what the model has learnt in 16 bits; the last layer of the head,
which says metres and logits; the embedding of the rate; and what a channel estimator computes around its encoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import BundleError, ConfigurationError
from ...onnx_graph import BFLOAT16, FLOAT, FLOAT16, Graph, Initialiser, Node

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_HALF = {"bf16": BFLOAT16, "fp16": FLOAT16, "int8": FLOAT16}  # int8: what is not quantised, and the scales
_INT8_OPSET = 19  # from which on scales may be float16

_MOVES = frozenset(
    ["Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Split", "Gather", "Flatten", "Expand", "Identity"]
)
_ACTIVATIONS = frozenset(["Gelu", "Relu", "Tanh", "Sigmoid"])
_ASKS = frozenset(("Shape", "Size"))  # of a tensor's shape, of whatever type
_LEAST_INPUTS = dict.fromkeys(("MatMul", "Gemm", "Add", "Mul", "Div"), 2) | dict.fromkeys(
    (*_MOVES, *_ACTIVATIONS, "Cast"), 1
)


def typed(model: bytes, precision: str, ranges: Mapping[str, float] | None = None) -> bytes:
    """The ONNX model that computes in a precision; inputs and outputs stay float32.

    precision: "fp32"; "bf16" or "fp16", the half type of the products; "int8", where products with weights take 8-bit
    integers (weights scaled for each output, activations as a whole) and the other products float16.
    ranges: for int8, the largest magnitude of each tensor that `activations` names. Weights that are stored as 16 bits
    behind casts become plain float32 first, and a model that was exported in a half type is typed anew.
    Raises BundleError for what is no ONNX model, ConfigurationError for weights beyond float16's range, ranges that are
    missing, and for a model without products of a transformer, in which nothing would be of the precision asked for.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError("typed model", "precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    graph = _plain(model)
    if precision == "fp32":
        return graph.encoded()
    found = Products(graph)
    if not found.all:
        expected = "products of a transformer (LayerNorm, attention): take fp32"
        raise ConfigurationError("typed model", f"precision {precision}", "a model with none of its own", expected)
    if precision == "int8":
        _check_ranges(graph, found, ranges or {})
    _Typing(graph, found, precision, ranges or {}).apply()
    return graph.encoded()


def activations(model: bytes) -> tuple[str, ...]:
    """Names of the tensors that int8 quantises, in order: the inputs of the products with weights."""
    found = Products(_plain(model))
    return tuple(dict.fromkeys(node.inputs[0] for node in found.weighted))


def exposing(model: bytes, names: tuple[str, ...]) -> bytes:
    """The float32 model whose only outputs are the largest magnitudes of these tensors: "range/0" for the first, ..."""
    graph = _plain(model)
    graph.outputs, graph.declared = [], [f for f in graph.declared if f.number == 11]
    for i, name in enumerate(names):
        graph.nodes.append(Node.make("Abs", [name], [f"magnitude/{i}"]))
        graph.nodes.append(Node.make("ReduceMax", [f"magnitude/{i}"], [f"range/{i}"], keepdims=0))
        graph.add_output(f"range/{i}")
    graph.drop_unused()
    return graph.encoded()


class Products:
    """The matrix products of a transformer's blocks and its patch embedding; all: every one in the half type, weighted:
    those with weights, which int8 quantises.

    Found by the shape of the graph, not by names: attention is a product that feeds a softmax, and one that takes it;
    a product with weights belongs when it takes (moved, activated) what LayerNorm, attention or another such product
    gave, and the patch embedding when its output is only added to and joined before the first LayerNorm. The last
    layers, from which no LayerNorm is reached any more, are none of them.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._producers, self._consumers = graph, graph.producers(), graph.consumers()
        self._normed = self._reaching_norm()
        products = [node for node in graph.nodes if node.op in ("MatMul", "Gemm")]
        attention = [node for node in products if self._of_attention(node)]
        chosen = {node.outputs[0] for node in attention}
        self.weighted: list[Node] = []
        for node in products:
            if node.outputs[0] not in chosen and self._has_weights(node) and self._belongs(node, chosen):
                chosen.add(node.outputs[0])
                self.weighted.append(node)
        self.all = chosen

    def _constant(self, name: str) -> bool:
        return name in self._graph.initialisers

    def _reaching_norm(self) -> set[str]:
        """Tensors from which a LayerNorm is reached."""
        reached: set[str] = set()
        for node in reversed(self._graph.nodes):
            if node.op == "LayerNormalization" or reached.intersection(node.outputs):
                reached.update(node.inputs)
        return reached

    def _has_weights(self, node: Node) -> bool:
        weights = self._graph.initialisers.get(node.inputs[1])
        plain = node.op == "MatMul" or (node.integer("transA", 0) == 0 and node.integer("transB", 0) in (0, 1))
        return plain and weights is not None and len(weights.shape) == 2 and not self._constant(node.inputs[0])

    def _of_attention(self, node: Node) -> bool:
        if node.op != "MatMul" or any(map(self._constant, node.inputs)):
            return False
        takes = any(self._source(name) == "Softmax" for name in node.inputs)
        users = list(self._consumers.get(node.outputs[0], ()))
        for user in users:  # grows by those behind a cast
            users += self._consumers.get(user.outputs[0], ()) if user.op == "Cast" else ()
        return takes or any(user.op == "Softmax" for user in users)

    def _belongs(self, node: Node, chosen: set[str]) -> bool:
        if node.outputs[0] not in self._normed:
            return False
        source = self._source(node.inputs[0])
        return source == "LayerNormalization" or source in chosen or self._embeds(node)

    def _source(self, name: str) -> str:
        """Where a tensor comes from, behind what moves and activates it: a product's output, else an operator."""
        while (node := self._producers.get(name)) is not None:
            if node.op in ("MatMul", "Gemm"):
                return node.outputs[0]
            free = [tensor for tensor in node.inputs if tensor and not self._constant(tensor)]
            passes = node.op in _MOVES or node.op in _ACTIVATIONS or node.op == "Cast"
            if passes or (node.op in ("Add", "Mul", "Div") and len(free) == 1):
                name = node.inputs[0] if passes else free[0]
                continue
            return node.op
        return ""

    def _embeds(self, node: Node) -> bool:
        """Whether all that becomes of a product's output, up to LayerNorm, is to be moved, added to and joined."""
        if node.op != "MatMul":  # of the rate's embedding: one row for a tile, not one for a patch
            return False
        seen, waiting = set(), [node.outputs[0]]
        while waiting:
            name = waiting.pop()
            for user in self._consumers.get(name, ()):
                if user.op in ("LayerNormalization", *_ASKS) or user.outputs[0] in seen:
                    continue
                if user.op not in _MOVES and user.op not in ("Add", "Mul", "Concat", "Cast"):
                    return False
                seen.add(user.outputs[0])
                if self._normed_directly(user.outputs[0]):
                    continue  # what follows is a block's own
                waiting.append(user.outputs[0])
        return True

    def _normed_directly(self, name: str) -> bool:
        return any(user.op == "LayerNormalization" for user in self._consumers.get(name, ()))


class _Typing:
    """One pass over the nodes in order, which knows for each tensor whether it is of the half type by now."""

    def __init__(self, graph: Graph, found: Products, precision: str, ranges: Mapping[str, float]) -> None:
        self._graph, self._found, self._ranges = graph, found, ranges
        self._precision, self._type = precision, _HALF[precision]
        self._weighted = {node.outputs[0] for node in found.weighted} if precision == "int8" else set()
        self._prefix = _free_prefix(graph)
        self._half: set[str] = set()
        self._made: dict[str, str] = {}  # casts and quantised tensors by what they are of
        self._nodes: list[Node] = []

    def apply(self) -> None:
        for node in self._graph.nodes:
            if node.outputs[0] in self._found.all:
                self._product(node)
            elif self._stays_half(node):
                node.inputs = [self._as_half(name) if self._is_float(name) else name for name in node.inputs]
                self._half.update(node.outputs)
            elif node.op not in _ASKS:
                node.inputs = [self._as_float(name) for name in node.inputs]
            self._nodes.append(node)
        self._graph.nodes = self._nodes
        self._keep_outputs_float()
        self._graph.drop_unused()

    def _product(self, node: Node) -> None:
        if node.outputs[0] in self._weighted:
            node.inputs = [self._quantised(node.inputs[0]), self._quantised_weights(node), *node.inputs[2:]]
            node.inputs[2:] = [self._as_half(name) for name in node.inputs[2:]]
        else:
            node.inputs = [self._as_half(name) for name in node.inputs]
        self._half.update(node.outputs)

    def _stays_half(self, node: Node) -> bool:
        """Whether a node gives the half type for it: what moves or activates it, a factor, or a product's bias."""
        if node.op in _MOVES or node.op in _ACTIVATIONS:
            return node.inputs[0] in self._half
        if node.op not in ("Add", "Mul", "Div"):
            return False
        constants = [self._graph.initialisers[name] for name in node.inputs if name in self._graph.initialisers]
        free = [name for name in node.inputs if name not in self._graph.initialisers]
        if len(constants) != 1 or len(free) != 1 or free[0] not in self._half or constants[0].data_type != FLOAT:
            return False
        size = int(np.prod(constants[0].shape))
        return size == 1 if node.op != "Add" else free[0] in self._found.all and len(constants[0].shape) == 1

    def _is_float(self, name: str) -> bool:
        tensor = self._graph.initialisers.get(name)
        return tensor is not None and tensor.data_type == FLOAT

    def _as_half(self, name: str) -> str:
        if name in self._half or not name:
            return name
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = f"{self._prefix}{name}/half"
            if name in self._graph.initialisers:
                self._graph.initialisers[made] = _halved(self._graph.initialisers[name], self._type, made)
            else:
                self._nodes.append(Node.make("Cast", [name], [made], to=self._type))
        return made

    def _as_float(self, name: str) -> str:
        if name not in self._half:
            return name
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = f"{self._prefix}{name}/float"
            self._nodes.append(Node.make("Cast", [name], [made], to=FLOAT))
        return made

    def _quantised(self, name: str) -> str:
        """An activation through 8-bit integers, with one scale."""
        key = f"{name} in int8"
        if key not in self._made:
            half, made = self._as_half(name), f"{self._prefix}{name}"
            scale = self._graph.add(_scales(np.float32(self._ranges[name])), f"{made}/scale")
            zero = self._graph.add(np.zeros((), np.int8), f"{made}/zero")
            self._nodes.append(Node.make("QuantizeLinear", [half, scale, zero], [f"{made}/int8"]))
            self._nodes.append(Node.make("DequantizeLinear", [f"{made}/int8", scale, zero], [f"{made}/dequantised"]))
            self._made[key] = f"{made}/dequantised"
        return self._made[key]

    def _quantised_weights(self, node: Node) -> str:
        """Weights as 8-bit integers, with a scale for each output."""
        name, made = node.inputs[1], f"{self._prefix}{node.inputs[1]}"
        if f"{name} in int8" not in self._made:
            weights = self._graph.initialisers[name].values
            axis = 0 if node.op == "Gemm" and node.integer("transB", 0) else 1
            scales = _scales(np.abs(weights).max(axis=1 - axis))
            per_output = scales.astype(np.float32)[:, None] if axis == 0 else scales.astype(np.float32)
            integers = np.clip(np.rint(weights / per_output), -127, 127).astype(np.int8)
            names = [self._graph.add(integers, f"{made}/int8"), self._graph.add(scales, f"{made}/scale")]
            names.append(self._graph.add(np.zeros(scales.shape, np.int8), f"{made}/zero"))
            self._nodes.append(Node.make("DequantizeLinear", names, [f"{made}/dequantised"], axis=axis))
            self._made[f"{name} in int8"] = f"{made}/dequantised"
        return self._made[f"{name} in int8"]

    def _keep_outputs_float(self) -> None:
        for name in self._half.intersection(self._graph.outputs):
            for node in self._graph.nodes:
                node.inputs = [f"{self._prefix}{name}/output" if other == name else other for other in node.inputs]
                node.outputs = [f"{self._prefix}{name}/output" if other == name else other for other in node.outputs]
            self._graph.nodes.append(Node.make("Cast", [f"{self._prefix}{name}/output"], [name], to=FLOAT))


def _free_prefix(graph: Graph) -> str:
    """What no tensor's name begins with: a model that was typed before has such names."""
    names, prefix = (*graph.initialisers, *graph.producers()), "typed/"
    while any(name.startswith(prefix) for name in names):
        prefix = "re" + prefix
    return prefix


def _plain(model: bytes) -> Graph:
    """The model in float32: constants of 16 bits widened, casts to 16 bits made casts to float32, Constants folded."""
    graph = Graph.parse(model)
    nodes = []
    for node in graph.nodes:
        if len(node.inputs) < _LEAST_INPUTS.get(node.op, 0):
            expected = f"{_LEAST_INPUTS[node.op]} or more"
            raise BundleError("model.onnx", f"inputs of {node.op} {node.name}", len(node.inputs), expected)
        tensor = node.tensor("value") if node.op == "Constant" else None
        if tensor is not None:
            graph.initialisers[node.outputs[0]] = tensor
            continue
        if node.op == "Cast":
            if node.integer("to", 0) in (FLOAT16, BFLOAT16):
                node.set_attribute("to", FLOAT)
            stored = graph.initialisers.get(node.inputs[0])
            if stored is not None and node.integer("to", 0) == FLOAT and stored.data_type in (FLOAT, FLOAT16, BFLOAT16):
                graph.initialisers[node.outputs[0]] = stored
                continue
        nodes.append(node)
    graph.nodes = nodes
    for name, tensor in graph.initialisers.items():
        if tensor.data_type in (FLOAT16, BFLOAT16):
            tensor = Initialiser.of(name, tensor.values.astype(np.float32))
        graph.initialisers[name] = Initialiser(name, tensor.data_type, tensor.shape, tensor.raw)
    graph.drop_unused()
    return graph


def _halved(tensor: Initialiser, data_type: int, name: str) -> Initialiser:
    """A constant rounded to the half type, to the nearest (ties to even)."""
    values = tensor.values
    if data_type == FLOAT16:
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            largest = float(np.abs(values).max())
            expected = "values in float16's range, up to 65504: take bf16"
            raise ConfigurationError(f"typed model, tensor {tensor.name}", "fp16", f"{largest:.3g}", expected)
        return Initialiser.of(name, half)
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return Initialiser.of(name, rounded.astype(np.uint16), BFLOAT16)


def _scales(largest: np.ndarray | np.float32) -> np.ndarray:
    """Float16 steps of 8-bit integers that reach a magnitude; never 0, nor so small that float16 has no digits left."""
    least = float(np.finfo(np.float16).tiny)
    return np.maximum(np.asarray(largest, np.float32) / 127, least).astype(np.float16)


def _check_ranges(graph: Graph, found: Products, ranges: Mapping[str, float]) -> None:
    if graph.opset < _INT8_OPSET:
        expected = f"{_INT8_OPSET} or later, for scales in float16"
        raise ConfigurationError("typed model", "opset", graph.opset, expected)
    for name in dict.fromkeys(node.inputs[0] for node in found.weighted):
        largest = ranges.get(name)
        if largest is None or not 0 <= largest < float(np.finfo(np.float16).max):
            found_range = "nothing" if largest is None else f"{largest:.3g}"
            expected = "its largest magnitude over calibration tiles, within float16's range"
            raise ConfigurationError("typed model", f"range of {name}", found_range, expected)
