# SPDX-License-Identifier: GPL-3.0-or-later
"""KServe v2 over HTTP. The messages are those of tritonclient, sent over a socket that keeps a deadline.

The HTTP client of tritonclient is not used for the transfer. It bounds each read and not the whole answer, it reads
answers of any size, and its gevent loop belongs to the thread that opened it.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...types import Tensor
from .address import KServeAddress
from .transport import METADATA_LIMIT, Deadline, Reply, TransportError

HEADER_LENGTH = "Inference-Header-Content-Length"
RETRYABLE_STATUS = (429, 502, 503, 504)
CHUNK_BYTES = 1 << 16


class HttpTransport:
    """See `Transport`.

    Parameters
    ----------
    address : KServeAddress
        The model.
    reply_limit : int
        Most bytes of an answer.

    Raises
    ------
    ImportError
        tritonclient with its extra `http` is missing.
    """

    def __init__(self, address: KServeAddress, reply_limit: int) -> None:
        import tritonclient.http

        self._triton: Any = tritonclient.http
        self._address, self._reply_limit = address, reply_limit
        self._connection: http.client.HTTPConnection | None = None
        version = f"/versions/{address.version}" if address.version else ""
        self._path = f"/v2/models/{address.model}{version}"

    def metadata(self, deadline: Deadline) -> dict[str, Any]:
        """See `Transport.metadata`."""
        body, _ = self._request("GET", self._path, b"", {}, METADATA_LIMIT, deadline)
        try:
            metadata = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise TransportError(f"metadata that are no JSON ({error})", retryable=False) from None
        if not isinstance(metadata, dict):
            raise TransportError("metadata that are no JSON object", retryable=False)
        return metadata

    def infer(self, inputs: Mapping[str, Tensor], deadline: Deadline) -> Reply:
        """See `Transport.infer`."""
        asked = []
        for name, array in inputs.items():
            asked.append(self._triton.InferInput(name, list(array.shape), "FP32"))
            asked[-1].set_data_from_numpy(np.ascontiguousarray(array))
        body, header_length = self._triton.InferenceServerClient.generate_request_body(asked)
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(header_length)}
        answer, length = self._request("POST", f"{self._path}/infer", body, headers, self._reply_limit, deadline)
        try:
            result = self._triton.InferenceServerClient.parse_response_body(answer, header_length=length)
            response = result.get_response()
            arrays = {str(each["name"]): result.as_numpy(each["name"]) for each in response["outputs"]}
            return Reply(str(response["model_name"]), str(response.get("model_version") or ""), arrays)
        except Exception as error:  # whatever a malformed answer makes the parser raise
            raise TransportError(f"a malformed answer ({type(error).__name__}: {error})", retryable=False) from None

    def close(self) -> None:
        """See `Transport.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], limit: int, deadline: Deadline
    ) -> tuple[bytes, int | None]:
        """The answer's body, and the length of its JSON part where arrays follow."""
        try:
            connection = self._connected(deadline)
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            answer = _read(response, limit)
            length = response.getheader(HEADER_LENGTH)
            if length is not None and not (length.isascii() and length.isdigit() and int(length) <= len(answer)):
                raise TransportError(f"a header length of {length[:20]!r} in {len(answer)} bytes", retryable=False)
        except TimeoutError:
            self.close()
            raise TransportError("no answer before the deadline", retryable=False) from None
        except TransportError:
            self.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TransportError(f"no answer ({type(error).__name__}: {error})", retryable=True) from None
        if response.status != 200:
            text = answer[:200].decode("utf-8", "replace")
            raise TransportError(f"HTTP status {response.status}: {text}", response.status in RETRYABLE_STATUS)
        return answer, None if length is None else int(length)

    def _connected(self, deadline: Deadline) -> http.client.HTTPConnection:
        if self._connection is None or self._connection.sock is None:  # None: the server closed it after its answer
            connection = http.client.HTTPConnection(self._address.host, self._address.port)
            connection.sock = _connect(self._address.host, self._address.port, deadline)
            self._connection = connection
        assert isinstance(self._connection.sock, _DeadlineSocket)
        self._connection.sock.deadline = deadline
        return self._connection


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    declared = response.length
    if declared is not None and declared > limit:
        raise TransportError(f"an answer of {declared} bytes, more than {limit}", retryable=False)
    parts, size = [], 0
    while part := response.read(CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise TransportError(f"an answer of more than {limit} bytes", retryable=False)
    if response.length:
        raise TransportError(f"no answer, {response.length} of its bytes are missing", retryable=True)
    return b"".join(parts)


class _DeadlineSocket(socket.socket):
    """A socket each of whose transfers ends at one deadline, however slowly the bytes come."""

    deadline = Deadline(0.0)

    def recv_into(self, *args: Any) -> int:
        """See socket.socket."""
        self.settimeout(self.deadline.left_s())
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        """See socket.socket."""
        self.settimeout(self.deadline.left_s())
        super().sendall(*args)


def _connect(host: str, port: int, deadline: Deadline) -> _DeadlineSocket:
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = _DeadlineSocket(family, kind, protocol)
        found.deadline = deadline
        try:
            found.settimeout(deadline.left_s())
            found.connect(place)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return found
        except (OSError, TransportError) as error:
            found.close()
            if isinstance(error, TransportError):
                raise
            failure = error
    raise failure
