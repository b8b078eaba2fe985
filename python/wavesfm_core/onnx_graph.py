# SPDX-License-Identifier: GPL-3.0-or-later
"""An ONNX file read, changed and written without the `onnx` package, which brings numpy 2 into the radio environment.

What is not understood is kept as it is. The file is not trusted: sizes are checked before anything is taken in, tensors
in other files are refused. Field numbers are those of onnx.proto3 (ONNX 1.x, IR version 3 and later).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BundleError
from .protobuf_wire import VARINT, Field, body, chunk, floats, integers, number, read, text, write

FLOAT, INT8, INT32, INT64, FLOAT16, BFLOAT16 = 1, 3, 6, 7, 10, 16
DTYPES: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f4"),
    2: np.dtype("u1"),
    INT8: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
    9: np.dtype("?"),
    FLOAT16: np.dtype("<f2"),
    11: np.dtype("<f8"),
    12: np.dtype("<u4"),
    13: np.dtype("<u8"),
    BFLOAT16: np.dtype("<u2"),  # numpy has no bfloat16: its bits
}
NODES_LIMIT, RANK_LIMIT = 1 << 20, 64

# TensorProto's, AttributeProto's, NodeProto's, GraphProto's and ModelProto's fields that are used here
_DIMS, _TYPE, _FLOATS, _INT32S, _INT64S, _NAME, _RAW, _LOCATION = 1, 2, 4, 5, 7, 8, 9, 14
_ATTRIBUTE_NAME, _F, _I, _S, _T, _INTS, _KIND = 1, 2, 3, 4, 5, 8, 20
_KINDS = {_F: 1, _I: 2, _S: 3, _T: 4, _INTS: 7}
_INPUT, _OUTPUT, _NODE_NAME, _OP, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_NODE, _INITIALISER, _GRAPH_INPUT, _GRAPH_OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_GRAPH, _OPSET, _FUNCTION = 7, 8, 25


@dataclass
class Initialiser:
    """A constant tensor: its name, ONNX's number of its type, shape, and little-endian bytes."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    raw: bytes | memoryview

    @classmethod
    def of(cls, name: str, array: np.ndarray, data_type: int | None = None) -> Initialiser:
        """From an array; data_type: BFLOAT16 for bits in uint16, None where the dtype tells."""
        if data_type is None:
            data_type = next(kind for kind, dtype in DTYPES.items() if dtype == array.dtype and kind != BFLOAT16)
        array = np.asarray(array, DTYPES[data_type], order="C")  # ascontiguousarray would make scalars vectors
        return cls(name, data_type, array.shape, memoryview(array.reshape(-1).view(np.uint8)))

    @property
    def values(self) -> np.ndarray:
        """A read-only array in this shape; bfloat16 comes as float32, which holds it exactly."""
        array = np.frombuffer(self.raw, DTYPES[self.data_type]).reshape(self.shape)
        if self.data_type == BFLOAT16:
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def encoded(self) -> bytes:
        """As a TensorProto."""
        fields = [number(_DIMS, size) for size in self.shape]
        return write([*fields, number(_TYPE, self.data_type), chunk(_NAME, self.name), chunk(_RAW, self.raw)])


@dataclass
class Node:
    """One operator; attributes: their encoded AttributeProtos by name, see `attribute` and `set_attribute`."""

    op: str
    inputs: list[str]
    outputs: list[str]
    name: str = ""
    attributes: dict[str, memoryview] = field(default_factory=dict)
    rest: list[Field] = field(default_factory=list)  # what is kept without being understood

    @classmethod
    def make(cls, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Node:
        """A node with attributes that are integers, lists of integers, floats or text."""
        node = cls(op, list(inputs), list(outputs), outputs[0])
        for name, value in attributes.items():
            node.set_attribute(name, value)
        return node

    def set_attribute(self, name: str, value: int | float | str | Sequence[int]) -> None:
        """Put an attribute in place of what was there of this name."""
        if isinstance(value, int):
            kind, fields = _I, [number(_I, value)]
        elif isinstance(value, float):
            kind, fields = _F, [Field(_F, 5, memoryview(np.array(value, "<f4").tobytes()))]
        elif isinstance(value, str):
            kind, fields = _S, [chunk(_S, value)]
        else:
            kind, fields = _INTS, [number(_INTS, item) for item in value]
        encoded = write([chunk(_ATTRIBUTE_NAME, name), *fields, number(_KIND, _KINDS[kind])])
        self.attributes[name] = memoryview(encoded)

    def integer(self, name: str, default: int) -> int:
        """An attribute of one integer; default where there is none. Raises BundleError where it is something else."""
        encoded = self.attributes.get(name)
        values = [f for f in read(encoded) if (f.number, f.wire) == (_I, VARINT)] if encoded is not None else []
        if encoded is not None and not values:
            raise BundleError(f"node {self.name}", name, "something else", "an integer")
        return integers(values[-1])[0] if values else default

    def tensor(self, name: str) -> Initialiser | None:
        """An attribute of one tensor (a Constant's value); None where there is none."""
        encoded = self.attributes.get(name)
        values = [f for f in read(encoded) if f.number == _T] if encoded is not None else []
        return _initialiser(body(values[-1])) if values else None

    def encoded(self) -> bytes:
        """As a NodeProto."""
        fields = [chunk(_INPUT, name) for name in self.inputs] + [chunk(_OUTPUT, name) for name in self.outputs]
        fields += [chunk(_NODE_NAME, self.name), chunk(_OP, self.op)]
        return write([*fields, *(chunk(_ATTRIBUTE, value) for value in self.attributes.values()), *self.rest])


@dataclass
class Graph:
    """An ONNX model taken apart: nodes in an order in which they can run, constants by name, names of what goes in and
    comes out; opset: of the standard operators."""

    nodes: list[Node]
    initialisers: dict[str, Initialiser]
    inputs: list[str]
    outputs: list[str]
    opset: int
    rest: list[Field]  # of the graph
    model: list[Field]  # of the model, but for the graph
    declared: list[Field]  # the inputs and outputs as they are declared

    @classmethod
    def parse(cls, data: bytes | memoryview, where: object = "model.onnx") -> Graph:
        """Take a model apart; raises BundleError, naming `where`, for what is no whole ONNX model.

        Intermediate tensors' declared types are left out: changing the model makes them wrong, and they are inferred.
        """
        try:
            return _parse(data)
        except (ValueError, KeyError, IndexError) as error:
            found = f"something unreadable ({error})"[:200]
            raise BundleError(where, "contents", found, "an ONNX model with all its tensors in the file") from None

    def encoded(self) -> bytes:
        """The model's bytes."""
        fields = [chunk(_NODE, node.encoded()) for node in self.nodes]
        fields += [chunk(_INITIALISER, tensor.encoded()) for tensor in self.initialisers.values()]
        return write([*self.model, chunk(_GRAPH, write([*fields, *self.declared, *self.rest]))])

    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that take each tensor."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def add(self, array: np.ndarray, name: str, data_type: int | None = None) -> str:
        """Put a constant in, see `Initialiser.of`, and return its name."""
        self.initialisers[name] = Initialiser.of(name, array, data_type)
        return name

    def add_output(self, name: str) -> None:
        """Declare a tensor, float32 of any shape, as one more output."""
        tensor_type = write([number(1, FLOAT)])
        value = write([chunk(1, name), chunk(2, write([chunk(1, tensor_type)]))])
        self.declared.append(chunk(_GRAPH_OUTPUT, value))
        self.outputs.append(name)

    def drop_unused(self) -> None:
        """Leave out nodes and constants that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.initialisers = {name: tensor for name, tensor in self.initialisers.items() if name in needed}


def _parse(data: bytes | memoryview) -> Graph:
    graphs, model, opset = [], [], 0
    for f in read(data):
        if f.number == _GRAPH:
            graphs.append(body(f))
            continue
        if f.number == _FUNCTION:
            raise ValueError("functions")
        if f.number == _OPSET:
            opset = _opset(body(f)) or opset
        model.append(f)
    if len(graphs) != 1 or not opset:
        raise ValueError(f"{len(graphs)} graphs, opset {opset}")
    graph = Graph([], {}, [], [], opset, [], model, [])
    for f in read(graphs[0]):
        if f.number == _NODE:
            graph.nodes.append(_node(body(f)))
        elif f.number == _INITIALISER:
            tensor = _initialiser(body(f))
            graph.initialisers[tensor.name] = tensor
        elif f.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            names = graph.inputs if f.number == _GRAPH_INPUT else graph.outputs
            names.append(_named(read(body(f)), 1))
            graph.declared.append(f)
        elif f.number != _VALUE_INFO:
            graph.rest.append(f)
    _check(graph)
    return graph


def _check(graph: Graph) -> None:
    """Each tensor is made once, before it is used: then the graph has no loops, and walking it comes to an end."""
    if not graph.outputs or len(graph.nodes) > NODES_LIMIT:
        raise ValueError(f"{len(graph.nodes)} nodes, {len(graph.outputs)} outputs")
    known = {"", *graph.inputs, *graph.initialisers}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"{node.op} {node.name} takes {name!r} before it is made")
        for name in node.outputs:
            if name and name in known:
                raise ValueError(f"{name!r} is made twice")
            known.add(name)
    for name in graph.outputs:
        if name not in known:
            raise ValueError(f"no node makes the output {name!r}")


def _named(fields: Iterable[Field], number: int) -> str:
    names = [text(f) for f in fields if f.number == number]
    if not names:
        raise ValueError("something without a name")
    return names[-1]


def _attribute_name(data: memoryview) -> str:
    """Of an attribute, looked through so that reading it later does not fail."""
    fields = list(read(data))
    for f in fields:
        if f.number == _T:
            _initialiser(body(f))
    return _named(fields, _ATTRIBUTE_NAME)


def _opset(data: memoryview) -> int:
    fields = {f.number: f for f in read(data)}
    domain = text(fields[1]) if 1 in fields else ""
    return integers(fields[2])[0] if domain in ("", "ai.onnx") and 2 in fields else 0


def _node(data: memoryview) -> Node:
    node = Node("", [], [])
    for f in read(data):
        if f.number == _INPUT:
            node.inputs.append(text(f))
        elif f.number == _OUTPUT:
            node.outputs.append(text(f))
        elif f.number == _NODE_NAME:
            node.name = text(f)
        elif f.number == _OP:
            node.op = text(f)
        elif f.number == _ATTRIBUTE:
            node.attributes[_attribute_name(body(f))] = body(f)
        else:
            node.rest.append(f)
    if any(f.number == _DOMAIN and text(f) not in ("", "ai.onnx") for f in node.rest):
        raise ValueError(f"{node.op} of another domain")
    if not node.op or not node.outputs:
        raise ValueError("a node without operator or outputs")
    return node


def _initialiser(data: memoryview) -> Initialiser:
    """Raises ValueError unless the bytes are all there, and no more."""
    name, data_type, shape, raw = "", 0, [], None
    packed: list[np.ndarray] = []
    for f in read(data):
        if f.number == _DIMS:
            shape += integers(f)
        elif f.number == _TYPE:
            data_type = integers(f)[0]
        elif f.number == _NAME:
            name = text(f)
        elif f.number == _RAW:
            raw = body(f)
        elif f.number == _LOCATION and integers(f)[0]:
            raise ValueError(f"tensor {name!r} in another file")
        elif f.number == _FLOATS:
            packed.append(np.array(floats(f), np.float32))
        elif f.number in (_INT32S, _INT64S):
            packed.append(np.array(integers(f), np.int64))
    if data_type not in DTYPES or len(shape) > RANK_LIMIT or min(shape, default=0) < 0:
        raise ValueError(f"tensor {name!r} of type {data_type} and shape {shape}")
    dtype = DTYPES[data_type]
    if raw is None:
        raw = _unpacked(packed, data_type)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"tensor {name!r} of shape {shape} in {len(raw)} bytes")
    return Initialiser(name, data_type, tuple(shape), raw)


def _unpacked(packed: Iterable[np.ndarray], data_type: int) -> memoryview:
    """Bytes of a tensor whose numbers lie in float_data, int32_data (bits, for 16-bit floats) or int64_data."""
    values = np.concatenate(list(packed)) if packed else np.zeros(0, np.int64)
    if data_type in (FLOAT16, BFLOAT16):
        values = values.astype(np.uint16)
    return memoryview(values.astype(values.dtype if data_type == FLOAT16 else DTYPES[data_type]).tobytes())
