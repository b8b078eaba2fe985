# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands `wavesfm live` and `wavesfm history`, as a service would run them."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.live_parts import FakePipeline, ListSource, blocks_of, eventually, scene
from typer.testing import CliRunner
from wavesfm_core.cli.app import app
from wavesfm_core.cli.live_view import emitters_table, status_text
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.live.config import LiveConfig, ModelConfig, SourceConfig
from wavesfm_core.live.service import LiveService
from wavesfm_core.live.session import LiveSession
from wavesfm_core.live.status import status_of
from wavesfm_core.live.supervisor import notify
from wavesfm_core.recordings.sigmf_meta import load_meta

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models/rf20-nano"


def test_the_check_names_faults_and_exits_with_2(tmp_path: Path) -> None:
    config = tmp_path / "live.yml"
    config.write_text("source: {kind: rtl}\nmodel: {bundle: none}\n")
    result = CliRunner().invoke(app, ["live", "--config", str(config), "--check"])
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in result.output.splitlines()] == ["source.rate_hz", "source.centre_hz"]
    right = ["live", "--source", "simulated", "--model", str(BUNDLE), "--check"]
    result = CliRunner().invoke(app, right)
    assert (result.exit_code, result.output) == (0, "the configuration is right\n")


def test_the_terminal_shows_emitters_and_losses() -> None:
    session = LiveSession(ListSource(blocks_of(scene(0.6))), FakePipeline)
    session.run()
    console = Console(file=io.StringIO(), width=120)
    console.print(emitters_table(session.emitters.all(), 40))
    console.print(status_text({**status_of(session, [], 0.0), "silent_s": 0.0}))
    text = console.file.getvalue()
    assert "narrow" in text and "wide" in text and "ended" in text
    assert "missed 0 samples" in text and "fake-1" in text


def test_a_supervisor_is_notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    assert not notify("READY=1")


def test_a_service_that_cannot_be_opened_closes_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines: list[FakePipeline] = []

    def opened(model: ModelConfig) -> FakePipeline:
        pipelines.append(FakePipeline())
        return pipelines[-1]

    monkeypatch.setattr("wavesfm_core.live.service.open_pipeline", opened)
    outputs = (
        {"kind": "json", "path": str(tmp_path / "x.jsonl")},
        {"kind": "mqtt", "host": "x", "password_file": "no"},
    )
    source = ListSource(blocks_of(scene(0.1)))
    with pytest.raises(ConfigurationError, match="No such file"):
        LiveService(LiveConfig(SourceConfig("file"), ModelConfig(BUNDLE), outputs=outputs), source)
    assert source.closed and pipelines[0].closed


def test_a_service_reloads_and_ends_whole(tmp_path: Path) -> None:
    """A file in real time: ready, events, SIGHUP, SIGTERM; then annotations and history are there."""
    scene(1.0).tofile(tmp_path / "x.cf32")
    config = tmp_path / "live.yml"
    config.write_text(
        f"""
source: {{kind: file, address: {tmp_path}/x.cf32, rate_hz: 1e6, centre_hz: 100e6, realtime: true, loop: true}}
model: {{bundle: {BUNDLE}, device: cpu, threads: 1}}
outputs:
  - {{kind: json, path: {tmp_path}/events.jsonl, kinds: [event, status, warning]}}
  - {{kind: history, path: {tmp_path}/history.sqlite}}
  - {{kind: annotations, path: {tmp_path}/session.sigmf-meta}}
"""
    )
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    supervisor.bind(str(tmp_path / "notify"))
    supervisor.settimeout(120)
    command = [sys.executable, "-P", "-c", "from wavesfm_core.cli import main; main()"]
    command += ["live", "--config", str(config), "--no-terminal"]
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert supervisor.recv(100) == b"READY=1"

        def records() -> list[dict]:
            lines = (tmp_path / "events.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines]

        eventually(lambda: any(each["type"] == "event" for each in records()))
        process.send_signal(signal.SIGHUP)
        eventually(lambda: any(each["type"] == "status" and each["accounts"]["reloads"] for each in records()))
        process.send_signal(signal.SIGTERM)
        faults = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.wait()
        supervisor.close()
    assert process.returncode == 0, faults
    last = records()[-1]
    assert last["type"] == "status" and last["accounts"]["samples_waiting"] == 0
    assert last["accounts"]["samples_in"] == last["accounts"]["samples_searched"] + last["accounts"]["samples_missed"]
    assert [each["sequence"] for each in records()] == list(range(len(records())))
    meta, _ = load_meta(tmp_path / "session.sigmf-meta")
    assert len(meta["annotations"]) >= 1
    result = CliRunner().invoke(app, ["history", str(tmp_path / "history.sqlite"), "--low", "99M", "--json", "-"])
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert len(rows) >= 1 and not any(row["is_active"] for row in rows)
    result = CliRunner().invoke(app, ["history", str(tmp_path / "history.sqlite"), "--events"])
    assert result.exit_code == 0 and "ended" in result.output
