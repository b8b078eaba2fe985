# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak in short: faults of every kind, and accounts that close."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_short_soak_is_clean() -> None:
    path = ROOT / "apps/live_soak.py"
    spec = importlib.util.spec_from_file_location("live_soak", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_soak"] = module
    spec.loader.exec_module(module)
    module.FAULTS_PER_S, module.HANG_S = 4.0, 1.0
    result = module.soak(ROOT / "models/rf20-nano", 10.0, seed=1, rate_hz=250e3, session_s=5.0)
    assert result["faults"] == []
    totals = result["totals"]
    assert totals["sessions"] >= 1 and totals["samples_in"] > 0
    assert totals["samples_in"] == totals["samples_searched"] + totals["samples_missed"]
