# SPDX-License-Identifier: GPL-3.0-or-later
"""Protobuf's wire format, enough to take a message apart and put it together again: no schema, no package, no trust."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_VARINT_LIMIT = 10  # bytes of 64 bits in groups of 7


class Field(NamedTuple):
    """One field of a message as it lies in the file.

    value: an int for VARINT (unsigned, 64 bits), a view of the bytes otherwise.
    """

    number: int
    wire: int
    value: int | memoryview


def read(data: bytes | memoryview) -> Iterator[Field]:
    """The fields of a message in order, without copies; raises ValueError where it ends too early or is no message."""
    view = memoryview(data)
    position, end = 0, len(view)
    while position < end:
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field of number 0")
        if wire == VARINT:
            value, position = _varint(view, position)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            size, position = _varint(view, position)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - position:
            raise ValueError(f"a field of {size} bytes where {end - position} are left")
        yield Field(number, wire, view[position : position + size])
        position += size


def write(fields: Iterable[Field]) -> bytes:
    """The message of these fields."""
    parts: list[bytes | memoryview] = []
    for number, wire, value in fields:
        parts.append(_encoded(number << 3 | wire))
        if isinstance(value, int):
            parts.append(_encoded(value))
        else:
            if wire == BYTES:
                parts.append(_encoded(len(value)))
            parts.append(value)
    return b"".join(parts)


def number(field: int, value: int) -> Field:
    """A field of an integer; negative ones as 64 bits of two's complement, as protobuf has int32 and int64."""
    return Field(field, VARINT, value & (1 << 64) - 1)


def chunk(field: int, value: bytes | memoryview | str) -> Field:
    """A field of text (UTF-8), bytes or a message."""
    return Field(field, BYTES, memoryview(value.encode() if isinstance(value, str) else value).cast("B"))


def text(field: Field) -> str:
    """The field's text; raises ValueError (or its UnicodeDecodeError) where it is none."""
    return bytes(body(field)).decode()


def body(field: Field) -> memoryview:
    """The field's bytes; raises ValueError where it is a number."""
    if isinstance(field.value, int) or field.wire != BYTES:
        raise ValueError(f"a number in field {field.number}, which holds text or a message")
    return field.value


def integers(field: Field) -> list[int]:
    """The field's signed integers: one, or many that were packed together. Raises ValueError."""
    if isinstance(field.value, int):
        return [_signed(field.value)]
    view, position, values = body(field), 0, []
    while position < len(view):
        value, position = _varint(view, position)
        values.append(_signed(value))
    return values


def floats(field: Field) -> list[float]:
    """The field's float32 numbers: one, or many that were packed together. Raises ValueError."""
    if isinstance(field.value, int) or field.wire not in (BYTES, FIXED32) or len(field.value) % 4:
        raise ValueError(f"no float32 numbers in field {field.number}")
    return list(struct.unpack(f"<{len(field.value) // 4}f", field.value))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in view[position : position + _VARINT_LIMIT]:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise ValueError("a number without end")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
