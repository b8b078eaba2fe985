# SPDX-License-Identifier: GPL-3.0-or-later
"""apps/soak.py and apps/uplink_soak.py run and their reports add up; how fast it was is for docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.flowgraphs import accounts_close
from support.tiny_grids import SMALL, make_grid_bundle, paths
from wavesfm_core.channel.uplink import save_channels

SOAK = Path(__file__).parents[2] / "apps" / "soak.py"


def soak(*arguments, app=SOAK):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(app), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_a_short_soak(fake_bundle, tone, tmp_path):
    tone(-0.2, 100_000).tofile(tmp_path / "recording.cf32")
    done = soak(fake_bundle, "--rate", 2e5, "--seconds", 0.5, "--recording", tmp_path / "recording.cf32")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert accounts_close(report["accounts"])
    assert report["accounts"]["tiles_in"] > 0
    assert set(report["latency_s"]) == {"p50", "p90", "p99", "max"}
    assert len(report["resident_bytes"]) >= 2


def test_a_wrong_bundle(tmp_path):
    done = soak(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_short_uplink_soak(tmp_path):
    bundle = make_grid_bundle(tmp_path / "bundle", SMALL)
    save_channels(tmp_path / "walk.npz", paths(SMALL, 4), SMALL)
    options = ("--channels", tmp_path / "walk.npz", "--rate", 50, "--seconds", 0.5)
    done = soak(bundle, *options, app=SOAK.with_name("uplink_soak.py"))
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout[done.stdout.index("{\n") :])
    accounts = report["accounts"]
    assert accounts["estimated"] > 0 and report["method"] == "model"
    assert accounts["slots_in"] == sum(accounts[k] for k in ("estimated", "dropped", "failed", "waiting"))
    assert 0 < report["latency_s"]["p50"] <= report["latency_s"]["p99"]
    evm = report["evm"]["20"]
    assert evm["true channel"] < evm["ls"] < report["evm"]["10"]["ls"] < 1


def test_an_uplink_soak_of_another_numerology(tmp_path):
    bundle = make_grid_bundle(tmp_path / "bundle", SMALL)
    other = Path(__file__).parents[2] / "examples" / "uplink_umi_3mps.npz"
    done = soak(bundle, "--channels", other, app=SOAK.with_name("uplink_soak.py"))
    assert done.returncode == 2
    assert "antennas" in done.stderr and "Traceback" not in done.stderr
