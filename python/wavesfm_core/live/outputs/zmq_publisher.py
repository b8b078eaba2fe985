# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON on a ZeroMQ PUB socket."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigurationError
from ...packages import install_command
from ..bus import Record
from .json_lines import json_text

LINGER_MS = 500  # at the end, for what ZeroMQ has not sent


class ZMQPublisher:
    """One message of two parts for each record: the kind as the topic, and the JSON.

    ZeroMQ drops messages for a subscriber that is too slow without a sign: the subscriber finds a missing `sequence`.

    Parameters
    ----------
    endpoint : str
        To bind, such as tcp://127.0.0.1:5556.
    kinds : frozenset of str
        Kinds of records.

    Raises
    ------
    ConfigurationError
        The package pyzmq is missing.
    """

    def __init__(self, endpoint: str, kinds: frozenset[str] = frozenset({"event", "status"})) -> None:
        try:
            import zmq
        except ImportError as error:
            raise ConfigurationError("output zmq", "library zmq", error, install_command("zmq")) from error
        self._zmq = zmq
        self.name = f"zmq {endpoint}"
        self.kinds = kinds
        self._endpoint = endpoint
        self._socket: Any = None

    def connect(self) -> None:
        """See `Output.connect`. Raises zmq.ZMQError where the endpoint is taken."""
        self._socket = self._zmq.Context.instance().socket(self._zmq.PUB)
        self._socket.linger = LINGER_MS
        self._socket.bind(self._endpoint)

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        try:
            self._socket.send_multipart([record.kind.encode(), json_text(record).encode()], self._zmq.NOBLOCK)
        except self._zmq.ZMQError as error:
            raise OSError(error.errno, str(error)) from error

    def close(self) -> None:
        """See `Output.close`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
