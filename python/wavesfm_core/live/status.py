# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a live session as one dictionary: for the terminal, the page, the outputs and the health endpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .outputs.base import OutputWorker
from .session import LiveSession

SILENT_S = 10.0  # without a block of a live source, until the session counts as unhealthy


def status_of(session: LiveSession, outputs: Sequence[OutputWorker], started_s: float) -> dict[str, Any]:
    """Plain types for JSON; `started_s`: time.monotonic() at the start."""
    accounts = session.accounts
    return {
        "source": session.source.description,
        "bundle": session.pipeline.bundle.id,
        "engine": session.pipeline.engine.description,
        "rate_hz": session.rate_hz,
        "centre_hz": session.centre_hz,
        "position": session.position,
        "uptime_s": round(time.monotonic() - started_s, 3),
        "lag_s": round(session.lag_s, 4),
        "silent_s": round(time.monotonic() - session.last_block_s, 3),
        "emitters": sum(known.is_active for known in session.emitters.all()),
        "accounts": dataclasses.asdict(accounts),
        "outputs": {worker.output.name: dataclasses.asdict(worker.accounts) for worker in outputs},
    }


def fault_of(status: Mapping[str, Any]) -> str:
    """Why a session with this status is not healthy, in one sentence; "" when it is."""
    if status["silent_s"] > SILENT_S:
        return f"no samples for {status['silent_s']:.0f} s"
    accounts = status["accounts"]
    if accounts["samples_in"] and not accounts["samples_searched"] and status["uptime_s"] > SILENT_S:
        return "no sample was searched"
    return ""
