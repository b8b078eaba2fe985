# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of a classifier as the displays get them, in Python types (docs/events.md)."""

from __future__ import annotations

from typing import Any

RATE_HZ = 1e6


def emitter(number: int, **fields: Any) -> dict[str, Any]:
    """The fields of one emitter of `detections`."""
    return {
        "schema": 1, "emitter": number, "kind": "signal", "label": "lora", "confidence": 0.9,
        "probabilities": {"lora": 0.9, "gsm": 0.06, "noise": 0.04}, "n_looks": 2, "start_sample": 1000,
        "n_samples": 5000, "low_hz": 100e3, "high_hz": 225e3, "centre_hz": 868e6, "time": None, "rate_hz": RATE_HZ,
        "snr_db": 21.5, "power_db": -40.0, "n_bursts": 2, "duty": 0.7, **fields,
    }  # fmt: skip


def event(happening: str, number: int, sample: int = 1000, changes: Any = None, run: int = 1, **fields: Any) -> Any:
    """One message of `events`."""
    facts = {"event": happening, "sample": sample, "changes": changes, "run": run, "sequence": 0}
    return {**emitter(number, **fields), **facts}
