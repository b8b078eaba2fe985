# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped model on signals of every class as receivers deliver them: with gaps, and in any unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.pipeline import Pipeline
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals.dataset import Example, make_example

MODEL = Path(__file__).parents[3] / "models" / "rf20-nano"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.open(MODEL, "onnxruntime", gate_db=None)


@pytest.fixture(scope="module")
def examples(pipeline: Pipeline) -> list[Example]:
    """One of each class, long enough for a full tile after a tenth of it was lost."""
    n_samples = pipeline.stream_spec.tile_samples * 5 // 4
    return [make_example(np.random.default_rng([7, 2]), signal, n_samples, 20.0) for signal in CLASSES.values()]


def labels(pipeline: Pipeline, examples: list[Example], streams: list[np.ndarray]) -> list[str]:
    return [pipeline.classify(x, e.rate_hz)[0].label for x, e in zip(streams, examples, strict=True)]


@pytest.mark.parametrize(("value", "step"), [(0.0, 1), (np.nan, 4)])
def test_a_tenth_of_digital_silence_changes_no_right_label(
    pipeline: Pipeline, examples: list[Example], value: complex, step: int
) -> None:
    examples = examples[::step]
    n_samples = pipeline.stream_spec.tile_samples
    whole = labels(pipeline, examples, [e.iq[:n_samples] for e in examples])
    lost = (np.arange(examples[0].iq.size) + 100) % 16384 < 1638
    gaps = labels(pipeline, examples, [np.where(lost[: e.iq.size], np.complex64(value), e.iq) for e in examples])
    named = [(e.label, b) for e, a, b in zip(examples, whole, gaps, strict=True) if a == e.label]
    assert len(named) >= 0.6 * len(examples), named
    changed = [(label, b) for label, b in named if b != label]
    assert len(changed) <= 1, changed  # the loss of a burst may change what is there


@pytest.mark.parametrize("scale", [1e-8, 1e9])
def test_no_label_depends_on_the_unit(pipeline: Pipeline, examples: list[Example], scale: float) -> None:
    n_samples = pipeline.stream_spec.tile_samples
    some = examples[::4]
    rms = [np.sqrt(np.mean(np.abs(e.iq) ** 2)) for e in some]
    scaled = [e.iq[:n_samples] * np.float32(scale / each) for e, each in zip(some, rms, strict=True)]
    assert labels(pipeline, some, scaled) == labels(pipeline, some, [e.iq[:n_samples] for e in some])
