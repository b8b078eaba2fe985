# SPDX-License-Identifier: GPL-3.0-or-later
"""A server on loopback that sends anything but a right answer: each is refused by name, within limits, and counted."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_onnx
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines.kserve.address import parse_address
from wavesfm_core.engines.kserve.engine import KServeEngine
from wavesfm_core.errors import BundleError, EngineError, WavesfmError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed"
)
METADATA: dict[str, Any] = {
    "name": "fake",
    "inputs": [
        {"name": "tile", "datatype": "FP32", "shape": [-1, 1, 224, 224]},
        {"name": "log10_rate", "datatype": "FP32", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
}
Answer = Callable[[socket.socket], object]


class Server:
    """Answers each request with the next of `answers`, the last one again and again; `requests` counts."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    _read_request(connection)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    self.requests += 1
                    answer(connection)


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    left = (lengths or [0])[0] - len(body)
    while left > 0:
        left -= len(connection.recv(left)) or left


def http(body: bytes, status: str = "200 OK", headers: str = "", length: int | None = None) -> Answer:
    """An answer over HTTP; the connection is closed after it."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {size}\r\n{headers}\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


def reply(rows: Any, **changes: Any) -> Answer:
    """Logits, written as JSON numbers."""
    values = np.asarray(rows, dtype=object)
    output = {"name": "logits", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}
    model = {"model_name": "fake", "model_version": "1"}
    model |= {key: changes.pop(key) for key in list(changes) if key in model}
    return http(json.dumps({**model, "outputs": [{**output, **changes}]}).encode())


def drip(connection: socket.socket) -> None:
    """An answer whose bytes come slowly and never end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        threading.Event().wait(0.02)


@pytest.fixture()
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


def opened(
    server: Server, bundle: Bundle, *answers: Answer, metadata: Any = METADATA, options: str = ""
) -> KServeEngine:
    body = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    server.answers = [http(body), *answers]
    return KServeEngine(
        bundle, parse_address(f"kserve://127.0.0.1:{server.port}/fake?timeout_s=600&retries=0{options}")
    )


def inputs(bundle: Bundle, n_tiles: int = 2) -> dict[str, np.ndarray]:
    return bundle_inputs(bundle.spec, np.zeros((n_tiles, 1, 224, 224), np.float32), np.zeros(n_tiles))


GOOD = np.arange(6.0).reshape(2, 3).tolist()


def test_an_answer_in_json_numbers_is_taken(server: Server, bundle: Bundle) -> None:
    with contextlib.closing(opened(server, bundle, reply(GOOD))) as engine:
        np.testing.assert_array_equal(engine.run(inputs(bundle))["logits"], GOOD)


BAD_REPLIES = {
    "not json": (http(b"no json"), "a malformed answer"),
    "no outputs": (http(b'{"model_name": "fake"}'), "a malformed answer"),
    "another model": (reply(GOOD, model_name="other"), "model of the answer: found 'other'"),
    "another output": (reply(GOOD, name="scores"), "output logits: found nothing"),
    "another type": (reply(GOOD, datatype="FP64"), r"output logits: found float64 \(2, 3\), expected float32"),
    "text": (reply(GOOD, datatype="BYTES"), "output logits: found object"),
    "another shape": (reply([[1, 2], [3, 4]]), r"output logits: found float32 \(2, 2\)"),
    "a shape that lies": (reply(GOOD, shape=[1 << 40, 3]), "a malformed answer"),
    "a row too few": (reply(GOOD[:1]), "answers: found 1, expected 2, one for each tile"),
    "nan": (reply([[float("nan"), 1, 2], [3, 4, 5]]), "output logits: found NaN or infinity"),
    "binary past the end": (
        http(
            b'{"model_name": "fake", "outputs": [{"name": "logits", "datatype": "FP32", "shape": [2, 3],'
            b' "parameters": {"binary_data_size": 24}}]}',
            headers="Inference-Header-Content-Length: 132\r\n",
        ),
        "a malformed answer",
    ),
    "a header length that lies": (http(b"{}", headers="Inference-Header-Content-Length: 9\r\n"), "a header length"),
    "a negative header length": (http(b"{}", headers="Inference-Header-Content-Length: -1\r\n"), "a header length"),
    "too long": (http(b"", length=1 << 40), "an answer of 1099511627776 bytes, more than"),
    "shorter than it says": (http(b"{}", length=1000), "no answer"),
    "an error": (http(b'{"error": "no such thing"}', "400 Bad Request"), "HTTP status 400: .*no such thing"),
    "no http": (lambda connection: connection.sendall(b"\x00\x00\x12"), "no answer"),
    "nothing": (lambda connection: None, "no answer"),
}


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_wrong_answer_is_refused_and_counted(case: str, server: Server, bundle: Bundle) -> None:
    answer, message = BAD_REPLIES[case]
    with contextlib.closing(opened(server, bundle, answer)) as engine:
        with pytest.raises(EngineError, match=message):
            engine.run(inputs(bundle))
        assert (engine.remote.requests, engine.remote.retries, engine.remote.failures) == (2, 0, 1)


def test_an_answer_of_another_version_is_refused(server: Server, bundle: Bundle) -> None:
    with contextlib.closing(opened(server, bundle, reply(GOOD), reply(GOOD, model_version="2"))) as engine:
        engine.run(inputs(bundle))
        with pytest.raises(EngineError, match="version of the answer: found '2', expected '1'"):
            engine.run(inputs(bundle))


def test_bytes_that_drip_meet_the_deadline(server: Server, bundle: Bundle) -> None:
    with contextlib.closing(opened(server, bundle, reply(GOOD), drip, options="&version=1")) as engine:
        engine.run(inputs(bundle))
        engine._address = parse_address(f"kserve://127.0.0.1:{server.port}/fake?timeout_s=0.2")
        with pytest.raises(EngineError, match="no answer before the deadline"):
            engine.run(inputs(bundle))


def test_a_busy_server_is_asked_again_so_often_and_no_more(server: Server, bundle: Bundle) -> None:
    busy = http(b"busy", "503 Service Unavailable")
    with contextlib.closing(opened(server, bundle, busy, reply(GOOD), busy)) as engine:
        engine._address = parse_address(f"kserve://127.0.0.1:{server.port}/fake?timeout_s=600&retries=2")
        engine.run(inputs(bundle))
        assert (engine.remote.requests, engine.remote.retries, engine.remote.failures) == (3, 1, 0)
        with pytest.raises(EngineError, match="HTTP status 503: busy"):
            engine.run(inputs(bundle))
        assert (engine.remote.requests, engine.remote.retries, engine.remote.failures) == (6, 3, 1)
        assert server.requests == engine.remote.requests


BAD_METADATA: dict[str, tuple[Any, str]] = {
    "another model": ({**METADATA, "name": "other"}, "name: found 'other', expected 'fake'"),
    "a list": ([], "metadata that are no JSON object"),
    "deep": (b"[" * 100_000, "metadata that are no JSON"),
    "large": (b" " * (2 << 20), "more than 1048576"),
    "no names": ({**METADATA, "outputs": [{"shape": [1]}]}, "outputs: found malformed metadata"),
    "not tensors": ({**METADATA, "outputs": 7}, "outputs: found malformed metadata"),
    "another type": (
        {**METADATA, "outputs": [{"name": "logits", "datatype": "INT8", "shape": [-1, 3]}]},
        "output logits dtype: found INT8, expected float32",
    ),
    "another tensor": (
        {**METADATA, "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1]}]},
        "input image: found a tensor that bundle.json does not name",
    ),
}


@pytest.mark.parametrize("case", BAD_METADATA)
def test_wrong_metadata_are_refused(case: str, server: Server, bundle: Bundle) -> None:
    metadata, message = BAD_METADATA[case]
    with pytest.raises(WavesfmError, match=message) as caught:
        opened(server, bundle, metadata=metadata)
    assert isinstance(caught.value, (EngineError, BundleError)) and caught.value.where.startswith("kserve://")


def test_metadata_without_tensors_leave_the_check_to_the_golden_tiles(server: Server, bundle: Bundle) -> None:
    golden = bundle.golden()
    right = tiny_onnx.oracle(np.stack(golden.tiles), np.zeros((2, 1), np.float32), 3).tolist()
    with contextlib.closing(opened(server, bundle, reply(right), metadata={"name": "fake"})) as engine:
        assert engine.run(inputs(bundle))["logits"].shape == (2, 3)


def test_a_missing_client_says_how_to_install_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient", None)
    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(EngineError, match=r"pip install 'tritonclient\[grpc,http\]"):
        KServeEngine(bundle, parse_address("kserve://127.0.0.1:1/fake"))
