# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusal of ONNX models that refer to other files or to code that is not in the file, without the package onnx.

The bundle's hash covers model.onnx alone, so a tensor in another file would be weights that nobody has checked. An
operator outside the standard domains runs whatever library the runtime has registered for it. The scan follows every
field of onnx.proto (ONNX 1.23, IR version 13) that leads to a tensor or a node, and reads no weights.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import BundleError

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators are allowed."""
DEPTH_LIMIT = 100
"""Most messages within each other, as protobuf's own limit."""
FIELDS_LIMIT = 1 << 21
"""Most fields of all messages; a network of a thousand operators has about 20,000."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message: number of a field of bytes -> the message that it holds
_NESTED = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION, _NODE_DOMAIN, _MODEL_GRAPH = 13, 14, 7, 7


def check_model_file(path: Path) -> None:
    """`check_model` of a file, of which only the structure is read; raises BundleError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_model(data, path)
    except (OSError, ValueError) as error:
        raise BundleError(path, "contents", str(error)[:200], "an ONNX model") from None


def check_model(data: bytes | mmap.mmap, where: object) -> None:
    """Refuse a model that is not self-contained.

    Parameters
    ----------
    data : bytes or mmap
        The ONNX file.
    where : object
        Name of the file in errors.

    Raises
    ------
    BundleError
        No ONNX model; a tensor in another file, in the graph, a subgraph, a sparse tensor or an attribute; an operator
        outside DOMAINS; a function, which torch's exporter inlines.
    """
    if found := _refusal(data):
        raise BundleError(where, "contents", found, "an ONNX model of standard operators with all its tensors in it")


def _refusal(data: bytes | mmap.mmap) -> str:
    """Reason to refuse a model, or "". Returned, since an exception would keep views of a file that is to be closed."""
    try:
        _Scan().message(memoryview(data), "model", DEPTH_LIMIT)
    except ValueError as error:
        return str(error)
    return ""


class _Scan:
    """One walk through a model."""

    def __init__(self) -> None:
        self._fields_left = FIELDS_LIMIT

    def message(self, view: memoryview, message: str, depth: int) -> None:
        """Raise ValueError if a message, or one within it, is to be refused."""
        if depth == 0:
            raise ValueError(f"more than {DEPTH_LIMIT} messages within each other")
        nested, graphs = _NESTED.get(message, {}), 0
        for number, value in self.fields(view):
            inner = nested.get(number)
            if message == "tensor" and (number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value)):
                raise ValueError("a tensor in another file")
            if message == "node" and number == _NODE_DOMAIN:
                domain = "" if isinstance(value, int) else bytes(value[:80]).decode(errors="replace")
                if domain not in DOMAINS:
                    raise ValueError(f"an operator of the domain {domain!r}")
            if inner == "function":
                raise ValueError("a function in the model")
            if inner is not None and not isinstance(value, int):
                graphs += number == _MODEL_GRAPH
                self.message(value, inner, depth - 1)
        if message == "model" and graphs != 1:
            raise ValueError(f"{graphs} graphs")

    def fields(self, view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of each field: an int of a varint, else the bytes. Raises ValueError."""
        position, end = 0, len(view)
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"more than {FIELDS_LIMIT} fields")
            key, position = _varint(view, position)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:  # readers may drop the higher bits of a key
                raise ValueError("bytes that are no protobuf message")
            if wire == _VARINT:
                value, position = _varint(view, position)
                yield number, value
                continue
            if wire == _BYTES:
                size, position = _varint(view, position)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise ValueError("bytes that are no protobuf message")
            if size > end - position:
                raise ValueError(f"a field of {size} bytes where {end - position} are left")
            yield number, view[position : position + size]
            position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """An unsigned number of 64 bits in groups of 7, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise ValueError("a number that does not end")
