# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs with working, slow, broken and returning peers: bounded, counted, reconnected."""

from __future__ import annotations

import errno
import http.server
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live_parts import eventually, record
from wavesfm_core.errors import InputError
from wavesfm_core.live.bus import Bus, Record
from wavesfm_core.live.outputs.annotations import SigMFAnnotations
from wavesfm_core.live.outputs.base import OutputWorker
from wavesfm_core.live.outputs.history import History, Query, find_emitters, find_events
from wavesfm_core.live.outputs.json_lines import JSONLines
from wavesfm_core.live.outputs.mqtt import MQTT
from wavesfm_core.live.outputs.prometheus import Prometheus
from wavesfm_core.live.outputs.webhook import Webhook
from wavesfm_core.live.outputs.zmq_publisher import ZMQPublisher
from wavesfm_core.recordings.sigmf_meta import load_meta

QUICK = (0.01, 0.02)


class FakeOutput:
    """Keeps what it gets; fails as its attributes say."""

    name, kinds = "fake", frozenset({"event"})

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.refuses_connection = self.is_down = self.refuses_record = False
        self.may_send = threading.Event()
        self.may_send.set()

    def connect(self) -> None:
        if self.refuses_connection:
            raise ConnectionRefusedError("no peer")

    def send(self, each: Record) -> None:
        self.may_send.wait()
        if self.is_down:
            raise BrokenPipeError("gone")
        if self.refuses_record:
            raise ValueError("not this one")
        self.records.append(each)

    def close(self) -> None:
        pass


def sequences(records: list[Record]) -> list[int]:
    return [each.sequence for each in records]


def test_a_slow_peer_costs_the_oldest_records() -> None:
    output = FakeOutput()
    output.may_send.clear()
    worker = OutputWorker(output, 3, QUICK)
    for number in range(10):
        worker.take(record(sequence=number))
    worker.take(record("status"))  # of no kind that it takes
    assert worker.accounts.waiting == 3
    output.may_send.set()
    assert worker.close(60.0)
    accounts = worker.accounts
    assert sequences(output.records)[-3:] == [7, 8, 9]
    assert accounts.closes() and accounts.records_in == 10
    assert accounts.sent + accounts.dropped == 10 and accounts.dropped >= 6


def test_a_peer_that_comes_back_gets_what_waits_once() -> None:
    output = FakeOutput()
    output.is_down = True
    worker = OutputWorker(output, 100, QUICK)
    for number in range(5):
        worker.take(record(sequence=number))
    eventually(lambda: worker.accounts.disconnects >= 2)
    output.is_down, output.refuses_connection = False, True
    eventually(lambda: "no peer" in worker.accounts.last_error)
    output.refuses_connection = False
    eventually(lambda: worker.accounts.sent == 5)
    assert sequences(output.records) == [0, 1, 2, 3, 4]
    worker.close()
    assert worker.accounts.closes()


def test_a_refused_record_is_counted_and_the_next_is_sent() -> None:
    output = FakeOutput()
    output.refuses_record = True
    worker = OutputWorker(output, 100, QUICK)
    worker.take(record(sequence=0))
    eventually(lambda: worker.accounts.failed == 1)
    output.refuses_record = False
    worker.take(record(sequence=1))
    assert worker.close(60.0)
    assert sequences(output.records) == [1]
    assert worker.accounts.closes() and worker.accounts.disconnects == 0


def test_a_dead_peer_does_not_hold_the_end_back() -> None:
    output = FakeOutput()
    output.may_send.clear()
    worker = OutputWorker(output, 100, QUICK)
    for number in range(4):
        worker.take(record(sequence=number))
    assert not worker.close(0.05)
    worker.take(record(sequence=9))
    accounts = worker.accounts
    assert accounts.closes() and accounts.dropped == 5
    output.may_send.set()


def test_a_taker_that_raises_does_not_hurt_the_others() -> None:
    bus, seen = Bus("run"), []

    def bad(each: Record) -> None:
        raise RuntimeError

    bus.add(bad)
    bus.add(seen.append)
    bus.publish("warning", {"text": "x"})
    bus.remove(bad)
    bus.publish("warning", {"text": "y"})
    assert [each.as_dict() for each in seen] == [
        {"type": "warning", "run": "run", "sequence": 0, "text": "x"},
        {"type": "warning", "run": "run", "sequence": 1, "text": "y"},
    ]


def test_json_lines_rotate(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    size = len(json.dumps(record().as_dict())) + 1
    output = JSONLines(str(path), most_bytes=2 * size + 10, keep=2)
    output.connect()
    for number in range(9):
        output.send(record(sequence=number))
    output.close()
    files = [path, *(path.with_name(f"{path.name}.{number}") for number in (1, 2))]
    assert [[json.loads(line)["sequence"] for line in file.open()] for file in files] == [[8], [6, 7], [4, 5]]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    output = JSONLines(str(path))
    output.connect()
    output.send(record(sequence=0))
    write = output._file.write

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def write(self, line: bytes) -> int:
            return write(line[:10])

    real, output._file = output._file, Full()
    with pytest.raises(OSError) as caught:
        output.send(record(sequence=1))
    assert caught.value.errno == errno.ENOSPC
    output._file = real
    output.send(record(sequence=1))
    output.close()
    assert [json.loads(line)["sequence"] for line in path.open()] == [0, 1]


def test_history_is_queried(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    output = History(str(path))
    output.connect()
    output.send(record(sequence=0, label="narrow"))
    output.send(record(sequence=1, event="changed", label="wide", n_bursts=4))
    output.send(record(sequence=2, emitter=2, low_hz=5e4, high_hz=6e4, time=None))
    output.send(record(sequence=3, event="ended", label="wide"))
    first, second = find_emitters(path, Query())
    assert (first["emitter"], second["emitter"]) == (2, 1)  # the one without a time is of now
    assert (second["label"], second["is_active"], second["first_s"]) == ("wide", 0, 1_700_000_000.25)
    assert second["last_s"] == 1_700_000_003.25
    assert [each["emitter"] for each in find_emitters(path, Query(low_hz=100.03e6))] == [2]
    assert [each["emitter"] for each in find_emitters(path, Query(label="wide", until_s=1_700_000_001.0))] == [1]
    assert [each["sequence"] for each in find_events(path, Query(high_hz=100.03e6, label="wide"))] == [3, 1]
    assert next(find_events(path, Query(until_s=1_700_000_001.0)))["probabilities"] == {"narrow": 0.8, "wide": 0.2}
    output.close()


def test_history_forgets_what_is_old(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    output = History(str(path), keep_days=1)
    output.connect()
    output._pruned_s = float("inf")
    output.send(record(sequence=0))
    output._pruned_s = float("-inf")
    output.send(record(sequence=1, emitter=2, time=None))
    output.close()
    assert [each["emitter"] for each in find_emitters(path, Query())] == [2]
    assert [each["sequence"] for each in find_events(path, Query())] == [1]


def test_a_strange_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(InputError, match="database"):
        list(find_emitters(tmp_path / "text", Query()))
    with pytest.raises(InputError, match="nothing"):
        list(find_emitters(tmp_path / "none", Query()))
    sqlite3.connect(tmp_path / "other").execute("PRAGMA user_version=77").connection.close()
    with pytest.raises(InputError, match="77"):
        list(find_events(tmp_path / "other", Query()))
    with pytest.raises(InputError, match="77"):
        History(str(tmp_path / "other")).connect()


def test_annotations_are_finalised_once_and_survive_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "session.sigmf-meta"
    output = SigMFAnnotations(str(path))
    output.connect()
    output.send(record(event="ended", start_sample=7000, centre_hz=200e6))
    output.send(record(event="changed"))
    assert not path.exists()
    with output._journal.open("a") as file:
        file.write('{"half')  # a crash
    second = SigMFAnnotations(str(path))
    assert second.finalise()
    meta, notes = load_meta(path)
    assert notes == ()
    assert [capture["core:frequency"] for capture in meta["captures"]] == [200e6]
    (annotation,) = meta["annotations"]
    assert annotation["core:sample_start"] == 7000
    assert (annotation["core:freq_lower_edge"], annotation["core:freq_upper_edge"]) == (200e6 - 1e4, 200e6 + 1e4)
    assert not second.finalise()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


class Peer:
    """A web server that answers with the codes of a list, then 200, and keeps what it got."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.bodies: list[dict] = []
        self.tokens: list[str] = []
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                code = peer.codes.pop(0) if peer.codes else 200
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if code == 200:
                    peer.bodies.append(body)
                peer.tokens.append(self.headers["Authorization"])
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "http://127.0.0.1:9/")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_webhook_is_tried_again_after_a_fault_of_the_peer(peer: Peer) -> None:
    peer.codes = [503, 429, 404, 302]
    url = f"http://127.0.0.1:{peer.server.server_port}/hook?key=secret"
    output = Webhook(url, labels=frozenset({"narrow"}), token="t0ken", timeout_s=60.0)
    assert "secret" not in output.name
    worker = OutputWorker(output, 100, QUICK)
    for number, label in enumerate(["narrow", "narrow", "narrow", "wide", "narrow"]):
        worker.take(record(sequence=number, label=label))
    assert worker.close(60.0)
    accounts = worker.accounts
    assert [body["sequence"] for body in peer.bodies] == [2, 4]  # 0: not found, 1: a redirect
    assert (accounts.failed, accounts.disconnects) == (2, 2) and accounts.closes()
    assert set(peer.tokens) == {"Bearer t0ken"}


def test_prometheus_serves_the_status_and_counts_events() -> None:
    output = Prometheus(("127.0.0.1", 0))
    output.connect()
    status = {name: 1.0 for name in ("rate_hz", "centre_hz", "lag_s", "silent_s", "uptime_s", "emitters")}
    accounts = {"samples_in": 12, "samples_waiting": 3}
    outputs = {"mqtt": {"sent": 5, "dropped": 1, "failed": 0}}
    output.send(record("status", **status, accounts=accounts, outputs=outputs))
    output.send(record())
    output.send(record("warning", text="x"))
    with urllib.request.urlopen(f"http://127.0.0.1:{output.port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    output.close()
    assert {
        "wavesfm_samples_in_total 12.0",
        "wavesfm_samples_waiting 3.0",
        'wavesfm_events_total{event="appeared",label="narrow"} 1.0',
        'wavesfm_output_records_total{outcome="dropped",output="mqtt"} 1.0',
        'wavesfm_records_total{kind="warning"} 1.0',
    } <= set(lines)


def test_prometheus_bounds_its_labels() -> None:
    output = Prometheus()
    for number in range(300):
        output.send(record(label=f"label {number}"))
    assert output.text().count(b"wavesfm_events_total{") == 201
    assert b'label="other"} 100.0' in output.text()


def test_zmq_subscribers_get_topic_and_json(tmp_path: Path) -> None:
    import zmq

    endpoint = f"ipc://{tmp_path}/events"
    output = ZMQPublisher(endpoint)
    output.connect()
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(endpoint)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"event")

        def arrived() -> bool:  # a subscription takes a moment
            output.send(record("status"))
            output.send(record(sequence=4))
            return bool(subscriber.poll(10))

        eventually(arrived)
        topic, text = subscriber.recv_multipart()
    output.close()
    assert topic == b"event" and json.loads(text)["sequence"] == 4


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Broker:
    """mosquitto on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(["mosquitto", "-c", self._config], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("mosquitto") is None:
        pytest.skip("there is no mosquitto")
    made = Broker(tmp_path)
    yield made
    made.stop()


def test_mqtt_survives_a_broker_that_is_killed(broker: Broker) -> None:
    import paho.mqtt.client as mqtt

    seen: list[tuple[str, str]] = []
    listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    listener.on_message = lambda client, data, message: seen.append((message.topic, message.payload.decode()))
    listener.on_connect = lambda client, *rest: client.subscribe("site/#", qos=1)
    listener.reconnect_delay_set(1, 1)

    def listen() -> bool:
        try:
            return listener.connect("127.0.0.1", broker.port) == 0
        except OSError:
            return False

    eventually(listen)
    listener.loop_start()
    worker = OutputWorker(MQTT("127.0.0.1", broker.port, "site"), 100, QUICK)
    worker.take(record(sequence=0))
    eventually(lambda: ("site/online", "1") in seen and any(topic == "site/event" for topic, _ in seen))
    broker.stop()
    for number in (1, 2):
        worker.take(record(sequence=number))
    eventually(lambda: worker.accounts.disconnects >= 1)
    broker.start()
    eventually(lambda: worker.accounts.sent == 3)
    assert worker.close(60.0)
    listener.loop_stop()
    assert worker.accounts.closes() and worker.accounts.connects >= 2
