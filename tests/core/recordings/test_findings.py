# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of predictions: what joins them, what parts them, and that none lies over another."""

from __future__ import annotations

from typing import Any

import pytest
from wavesfm_core.recordings.findings import find_runs
from wavesfm_core.types import NOISE, Prediction, StreamTime


def prediction(start: int, label: str, confidence: float | None = 0.5, **changes: Any) -> Prediction:
    fields: dict[str, Any] = {
        "label": label,
        "confidence": confidence,
        "probabilities": {},
        "start_sample": start,
        "n_samples": 10,
        "rate_hz": 1e6,
        "centre_hz": 100e6,
        "time": StreamTime(start, 0.0),
        "partial": False,
        "latency_s": None,
        "bundle_id": "m@1",
        "inferred": confidence is not None,
    }
    return Prediction(**{**fields, **changes})


def test_equal_labels_are_one_run_with_their_mean() -> None:
    first, second = find_runs([prediction(0, "a", 0.2), prediction(10, "a", 0.4), prediction(20, "b", 0.9)])
    assert (first.label, first.start_sample, first.n_samples, first.tiles) == ("a", 0, 20, 2)
    assert first.confidence == pytest.approx(0.3)
    assert (first.time, first.bundle_id) == (StreamTime(0, 0.0), "m@1")
    assert (second.label, second.start_sample, second.end_sample) == ("b", 20, 30)


def test_noise_is_one_run_whether_the_model_was_asked_or_not() -> None:
    (run,) = find_runs([prediction(0, NOISE, 0.8), prediction(10, NOISE, None), prediction(20, NOISE, None)])
    assert (run.tiles, run.held_back, run.confidence) == (3, 2, 0.8)
    (run,) = find_runs([prediction(0, NOISE, None)])
    assert run.confidence is None


@pytest.mark.parametrize(
    "change", [{"rate_hz": 2e6}, {"centre_hz": 1e6}, {"rate_note": "unknown"}, {"start_sample": 11}]
)
def test_what_parts_runs(change: dict[str, Any]) -> None:
    assert len(find_runs([prediction(0, "a"), prediction(10, "a", **change)])) == 2


def test_overlapping_tiles_give_no_overlapping_findings() -> None:
    runs = find_runs([prediction(0, "a", n_samples=14), prediction(10, "b", n_samples=14), prediction(20, "a")])
    assert [(run.start_sample, run.end_sample) for run in runs] == [(0, 10), (10, 20), (20, 30)]


def test_edges() -> None:
    (run,) = find_runs([prediction(0, "a")])
    assert run.edges_hz() == (99.5e6, 100.5e6)
    assert run.edges_hz(0.8) == (99.6e6, 100.4e6)
    for unknown in ({"centre_hz": None}, {"rate_hz": 0.0}):
        assert find_runs([prediction(0, "a", **unknown)])[0].edges_hz() is None
