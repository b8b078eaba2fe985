# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples from a ZeroMQ PUB socket, as GNU Radio's zmq_pub_sink sends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import ConfigurationError, InputError
from ...packages import install_command
from ...recordings.sample_formats import FORMAT_NAMES, find_format
from ...types import StreamTime
from ..block import SampleBlock
from .pmt_tags import Tag, read_header

POLL_MS = 100  # how often a wait looks whether it was stopped
MESSAGE_LIMIT = 64 << 20  # bytes; the connection of a peer that sends more is closed by ZeroMQ


class ZMQSource:
    """A subscriber. Messages of several parts, as with a `key` in the sink, carry samples in the last one.

    With `pass_tags` in the sink the tags rx_rate, rx_freq and rx_time are followed, and the offsets show lost samples.
    Without them a lost message is not noticed.

    Parameters
    ----------
    endpoint : str
        To connect to, such as tcp://127.0.0.1:5555.
    rate_hz : float
        Sample rate in Hz, until a tag says otherwise.
    centre_hz : float or None
        Centre frequency in Hz, until a tag says otherwise.
    sample_format : str
        Such as cf32 (complex), cs16 (interleaved short) or cs8 (interleaved char).

    Raises
    ------
    ConfigurationError
        The package pyzmq is missing, or the endpoint is none.
    InputError
        An unknown format.
    """

    is_live = True

    def __init__(
        self, endpoint: str, rate_hz: float, centre_hz: float | None = None, sample_format: str | None = None
    ) -> None:
        try:
            import zmq
        except ImportError as error:
            raise ConfigurationError("source zmq", "library zmq", error, install_command("zmq")) from error
        found = find_format(sample_format or "cf32")
        if found is None or not found.is_complex:
            raise InputError("source zmq", "format", repr(sample_format), FORMAT_NAMES + ", complex")
        self._format = found
        self.description = f"zmq {endpoint}"
        self._rate_hz, self._centre_hz = rate_hz, centre_hz
        self._next_offset: int | None = None
        self._stopped = threading.Event()
        self._socket: Any = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_LIMIT)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            expected = "an endpoint such as tcp://127.0.0.1:5555"
            raise ConfigurationError("source zmq", "address", f"{endpoint!r} ({error})", expected) from error

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`; it ends only after `stop`."""
        while not self._stopped.is_set():
            if self._socket.poll(POLL_MS):
                yield from self._cut(self._socket.recv_multipart()[-1])

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source.close`."""
        self._socket.close()

    def _cut(self, message: bytes) -> Iterator[SampleBlock]:
        """The blocks of a message, cut where a tag says something."""
        header = read_header(message)
        each = self._format.sample_bytes
        samples = memoryview(message)[0 if header is None else header.n_bytes :]
        raw = np.frombuffer(samples[: len(samples) // each * each], np.uint8)
        count = len(raw) // each
        if header is None:
            if count:
                yield self._block(raw)
            return
        lost = 0 if self._next_offset is None else max(0, header.offset - self._next_offset)
        self._next_offset = header.offset + count
        places: dict[int, list[Tag]] = {0: []}
        for tag in header.tags:
            places.setdefault(min(max(tag.offset - header.offset, 0), max(count - 1, 0)), []).append(tag)
        starts = sorted(places)
        for start, stop in zip(starts, [*starts[1:], count]):
            time = self._follow(places[start])
            if stop > start:
                yield self._block(raw[start * each : stop * each], time, lost)
                lost = 0

    def _block(self, raw: Any, time: StreamTime | None = None, lost: int = 0) -> SampleBlock:
        return SampleBlock(raw, self._format.name, self._rate_hz, self._centre_hz, time, lost)

    def _follow(self, tags: list[Tag]) -> StreamTime | None:
        """Take over rate and frequency; returns the time of the sample."""
        time = None
        for tag in tags:
            value = tag.value
            if tag.key == "rx_rate" and isinstance(value, (int, float)) and value >= 1e3:
                self._rate_hz = float(value)
            elif tag.key == "rx_freq" and isinstance(value, (int, float)):
                self._centre_hz = float(value)
            elif tag.key == "rx_time" and isinstance(value, tuple) and len(value) == 2:
                full_s, frac_s = value
                if isinstance(full_s, int) and isinstance(frac_s, float) and 0 <= frac_s < 1:
                    time = StreamTime(full_s, frac_s)
        return time
