# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix products of a transformer in an ONNX graph."""

from __future__ import annotations

from onnx import NodeProto

from .onnx_graph import OnnxGraph, integer

MOVES = frozenset(
    ["Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Split", "Gather", "Flatten", "Expand", "Identity"]
)
"""Operators whose output holds elements of their first input."""
ACTIVATIONS = frozenset(["Gelu", "Relu", "Tanh", "Sigmoid"])
SHAPE_OPERATORS = frozenset(["Shape", "Size"])
"""Operators that read a tensor's shape, whatever its type."""


class Products:
    """The matrix products of a transformer's blocks and its patch embedding.

    They are found by the structure of the graph, not by names. A product of attention feeds a softmax or takes its
    output. A product with weights belongs to a block when its input is the output of LayerNorm, attention or another
    such product, moved or activated; the patch embedding, when its output is only added to and concatenated before the
    first LayerNorm. The last layers, from which no LayerNorm is reached, do not belong.
    """

    all: set[str]
    """Outputs of all products in the half type."""
    weighted: list[NodeProto]
    """Products with weights, which int8 quantises."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph, self._producers, self._consumers = graph, graph.producers(), graph.consumers()
        self._normed = self._reaching_norm()
        products = [node for node in graph.nodes if node.op_type in ("MatMul", "Gemm")]
        attention = [node for node in products if self._of_attention(node)]
        chosen = {node.output[0] for node in attention}
        self.weighted = []
        for node in products:
            if node.output[0] not in chosen and self._has_weights(node) and self._belongs(node, chosen):
                chosen.add(node.output[0])
                self.weighted.append(node)
        self.all = chosen

    def _constant(self, name: str) -> bool:
        return name in self._graph.initialisers

    def _reaching_norm(self) -> set[str]:
        """Tensors from which a LayerNorm is reached."""
        reached: set[str] = set()
        for node in reversed(self._graph.nodes):
            if node.op_type == "LayerNormalization" or reached.intersection(node.output):
                reached.update(node.input)
        return reached

    def _has_weights(self, node: NodeProto) -> bool:
        weights = self._graph.initialisers.get(node.input[1])
        plain = node.op_type == "MatMul" or (integer(node, "transA", 0) == 0 and integer(node, "transB", 0) in (0, 1))
        return plain and weights is not None and len(weights.dims) == 2 and not self._constant(node.input[0])

    def _of_attention(self, node: NodeProto) -> bool:
        if node.op_type != "MatMul" or any(map(self._constant, node.input)):
            return False
        takes = any(self._source(name) == "Softmax" for name in node.input)
        users = list(self._consumers.get(node.output[0], ()))
        for user in users:  # grows by the users behind a cast
            users += self._consumers.get(user.output[0], ()) if user.op_type == "Cast" else ()
        return takes or any(user.op_type == "Softmax" for user in users)

    def _belongs(self, node: NodeProto, chosen: set[str]) -> bool:
        if node.output[0] not in self._normed:
            return False
        source = self._source(node.input[0])
        return source == "LayerNormalization" or source in chosen or self._embeds(node)

    def _source(self, name: str) -> str:
        """Origin of a tensor behind moves, activations and constant terms: a product's output, else an operator."""
        while (node := self._producers.get(name)) is not None:
            if node.op_type in ("MatMul", "Gemm"):
                return node.output[0]
            free = [tensor for tensor in node.input if tensor and not self._constant(tensor)]
            passes = node.op_type in MOVES or node.op_type in ACTIVATIONS or node.op_type == "Cast"
            if passes or (node.op_type in ("Add", "Mul", "Div") and len(free) == 1):
                name = node.input[0] if passes else free[0]
                continue
            return node.op_type
        return ""

    def _embeds(self, node: NodeProto) -> bool:
        """Whether a product's output is only moved, added to and concatenated before the first LayerNorm."""
        if node.op_type != "MatMul":  # the embedding of the rate: one row for a tile, not one for a patch
            return False
        seen, waiting = set(), [node.output[0]]
        while waiting:
            name = waiting.pop()
            for user in self._consumers.get(name, ()):
                if user.op_type in ("LayerNormalization", *SHAPE_OPERATORS) or user.output[0] in seen:
                    continue
                if user.op_type not in MOVES and user.op_type not in ("Add", "Mul", "Concat", "Cast"):
                    return False
                seen.add(user.output[0])
                if self._normed_directly(user.output[0]):
                    continue  # then a block begins
                waiting.append(user.output[0])
        return True

    def _normed_directly(self, name: str) -> bool:
        return any(user.op_type == "LayerNormalization" for user in self._consumers.get(name, ()))
