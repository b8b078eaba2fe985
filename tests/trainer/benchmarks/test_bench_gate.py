# SPDX-License-Identifier: GPL-3.0-or-later
"""apps/bench_gate.py in small: signals that are always on are not held back, noise is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.types import NOISE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "apps"))
    import bench_gate

    monkeypatch.setattr(bench_gate, "TILES", 2)
    return bench_gate


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.open(ROOT / "models" / "rf20-nano", "onnxruntime")


def answered(samples: list[Any], label: str) -> list[Any]:
    """The same tiles with another answer of the model."""
    named = {NOISE: 0.1, "gsm": 0.1, label: 0.8}
    return [
        dataclasses.replace(s, answer=dataclasses.replace(s.answer, label=label, probabilities=named)) for s in samples
    ]


def test_signals_are_not_held_back_once_named_and_noise_is(bench: ModuleType, pipeline: Pipeline) -> None:
    n_samples = 4 * pipeline.stream_spec.tile_samples
    noise = answered(bench.samples_of(pipeline, bench.white_noise(n_samples, 1), 2e6), NOISE)
    quiet = bench.run_noise(pipeline, noise, 2e6, 300.0)
    assert quiet.held / quiet.tiles >= 0.9 and (quiet.named, quiet.hidden) == (0.0, 0)
    for label, rate_hz in (("dab", 1.8e6), ("gsm", 0.25e6)):
        first, after_noise = bench.run_signal(pipeline, label, rate_hz, 3.0, noise, 120.0)
        assert first.named == after_noise.named == 1.0
        assert (first.held, after_noise.held) == (0, 0)


def test_a_signal_in_half_of_the_tiles_is_asked_about_each_time(bench: ModuleType, pipeline: Pipeline) -> None:
    n_samples = 4 * pipeline.stream_spec.tile_samples
    noise = answered(bench.samples_of(pipeline, bench.white_noise(n_samples, 1), 2e6), NOISE)
    loud = answered(bench.samples_of(pipeline, bench.white_noise(n_samples, 2) * 2, 2e6), "gsm")
    simulation = bench.Simulation(pipeline.stream_spec, ("noise", "gsm"), 2e6, seed=1)
    run = bench._run("gsm", 2e6, 6.0, False, list(simulation.play([*noise, *loud], 300.0)))
    assert run.hidden == 0 and 0.35 < run.held / run.tiles < 0.5


def test_the_table_has_a_line_for_each_class_and_ratio(bench: ModuleType, pipeline: Pipeline) -> None:
    run = bench.Run("dab", 2e6, 3.0, False, 100, 0, 1.0, 0, 0)
    runs = [run, dataclasses.replace(run, rate_hz=8e6), dataclasses.replace(run, snr_db=10.0)]
    assert bench.table(runs).row_count == 2
