# SPDX-License-Identifier: GPL-3.0-or-later
"""An ONNX model that is changed node by node. Needs the package onnx, so only `mixed_precision` imports this module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...bundle.model_file import check_model
from ...errors import BundleError

FLOAT, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
HALVES = (FLOAT16, BFLOAT16)


class OnnxGraph:
    """Nodes in the order in which they run, constants by name, and the names of the outputs."""

    nodes: list[NodeProto]
    """Operators; each tensor is computed before it is used."""
    initialisers: dict[str, TensorProto]
    """Constants by name."""
    outputs: list[str]
    """Names of the model's outputs."""

    def __init__(self, data: bytes, where: object = "model.onnx") -> None:
        """Parse and check a model.

        Parameters
        ----------
        data : bytes
            The ONNX file. It is not trusted.
        where : object
            Name of the file in errors.

        Raises
        ------
        BundleError
            Not a valid ONNX model, or one that `bundle.model_file.check_model` refuses.
        """
        check_model(data, where)
        try:
            self._model = onnx.ModelProto.FromString(data)
            onnx.checker.check_model(self._model)
        except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
            raise BundleError(where, "contents", str(error).strip()[:200], "a valid ONNX model") from None
        graph = self._model.graph
        for node in graph.node:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise BundleError(where, f"node {node.name}", f"{node.op_type} with a subgraph", "no control flow")
        self.nodes = [_copy(node) for node in graph.node]
        self.initialisers = {tensor.name: _copy(tensor) for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        for part in (graph.node, graph.initializer, graph.value_info):
            del part[:]  # types of intermediate tensors change, and are inferred

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max(entry.version for entry in self._model.opset_import if entry.domain in ("", "ai.onnx"))

    def encoded(self) -> bytes:
        """The ONNX file."""
        model = _copy(self._model)
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.initialisers.values())
        return model.SerializeToString()

    def producers(self) -> dict[str, NodeProto]:
        """The node that computes each tensor."""
        return {output: node for node in self.nodes for output in node.output if output}

    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that use each tensor."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def values(self, name: str) -> NDArray[Any]:
        """A constant as an array; bfloat16 as ml_dtypes has it."""
        return numpy_helper.to_array(self.initialisers[name])

    def add(self, array: NDArray[Any], name: str) -> str:
        """Add a constant and return its name."""
        self.initialisers[name] = numpy_helper.from_array(array, name)
        return name

    def replace_outputs(self, names: list[str]) -> None:
        """Make these tensors, float32 of any shape, the only outputs."""
        del self._model.graph.output[:]
        self._model.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in names)
        self.outputs = list(names)

    def drop_unused(self) -> None:
        """Remove the nodes and constants that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.initialisers = {name: tensor for name, tensor in self.initialisers.items() if name in needed}


def make_node(op: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    """A node of one output, which gives it its name."""
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def integer(node: NodeProto, name: str, default: int) -> int:
    """An attribute of one integer."""
    return next((a.i for a in node.attribute if a.name == name), default)


def size(tensor: TensorProto) -> int:
    """Number of elements of a constant."""
    return int(np.prod(tensor.dims, dtype=np.int64))


def _copy(message: Any) -> Any:
    """A copy of a message."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
