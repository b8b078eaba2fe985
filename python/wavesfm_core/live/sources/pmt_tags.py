# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags of GNU Radio's ZMQ blocks (`pass_tags`), without GNU Radio."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ...errors import InputError

MAGIC, VERSION = 0x5FF0, 1  # of the header that zmq_pub_sink writes
MOST_TAGS = 10_000
MOST_DEPTH = 16


class Tag(NamedTuple):
    """One stream tag."""

    offset: int
    """Number of the sample in the sender's stream."""
    key: str
    value: Any
    """None for kinds of values that are not read."""


class TaggedHeader(NamedTuple):
    """The header of a message, and where the samples begin."""

    offset: int
    """Number of the first sample in the sender's stream."""
    tags: list[Tag]
    n_bytes: int


def read_header(message: bytes) -> TaggedHeader | None:
    """The header of a message of zmq_pub_sink with `pass_tags`; None where there is none.

    Raises InputError for a header that is cut or damaged.
    """
    if len(message) < 19 or struct.unpack_from("<HB", message) != (MAGIC, VERSION):
        return None
    offset, count = struct.unpack_from("<QQ", message, 3)
    if count > MOST_TAGS:
        raise InputError("zmq", "tags", count, f"at most {MOST_TAGS} in a message")
    reader = _Reader(message, 19)
    tags = []
    try:
        for _ in range(count):
            place = reader.unpack("<Q")
            key, value, _source = reader.value(), reader.value(), reader.value()
            tags.append(Tag(place, str(key), value))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise InputError("zmq", "tags", error, "tags as GNU Radio serialises them") from None
    return TaggedHeader(offset, tags, reader.at)


class _Reader:
    """Reads serialised PMTs: symbols, numbers, booleans, pairs, tuples and dictionaries."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def unpack(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return value

    def value(self, depth: int = 0) -> Any:
        if depth > MOST_DEPTH:
            raise IndexError("values that are nested too deeply")
        kind = self.unpack(">B")
        simple = {0x03: ">i", 0x04: ">d", 0x0B: ">Q"}
        if kind in simple:
            return self.unpack(simple[kind])
        if kind in (0x00, 0x01, 0x06):
            return {0x00: True, 0x01: False, 0x06: None}[kind]
        if kind == 0x02:
            size = self.unpack(">H")
            text = self._data[self.at : self.at + size]
            if len(text) != size:
                raise IndexError("a symbol that is cut")
            self.at += size
            return text.decode()
        if kind == 0x05:
            return complex(self.unpack(">d"), self.unpack(">d"))
        if kind in (0x07, 0x09):  # a pair, or a dictionary as a list of pairs
            return (self.value(depth + 1), self.value(depth + 1))
        if kind == 0x0C:
            return tuple(self.value(depth + 1) for _ in range(min(self.unpack(">I"), MOST_TAGS)))
        raise IndexError(f"a value of the kind {kind}")
