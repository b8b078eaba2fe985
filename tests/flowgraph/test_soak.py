"""apps/soak.py runs and its report adds up; how fast it was is for docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from flowgraphs import accounts_close

SOAK = Path(__file__).parents[2] / "apps" / "soak.py"


def soak(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(SOAK), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_short_soak(fake_bundle, tone, tmp_path):
    tone(-0.2, 100_000).tofile(tmp_path / "recording.cf32")
    done = soak(fake_bundle, "--rate", 2e5, "--seconds", 0.5, "--recording", tmp_path / "recording.cf32")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert accounts_close(report["accounts"])
    assert report["accounts"]["tiles_in"] > 0
    assert set(report["latency_s"]) == {"p50", "p90", "p99", "max"}
    assert 0 < report["rate_hz"] < 4e5
    assert len(report["resident_bytes"]) >= 2


def test_a_wrong_bundle(tmp_path):
    done = soak(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
