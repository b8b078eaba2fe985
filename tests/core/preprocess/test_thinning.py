# SPDX-License-Identifier: GPL-3.0-or-later
"""Thinning: what is asked again and when, the same for any batches, and no answer is lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.errors import ConfigurationError, EngineError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate
from wavesfm_core.preprocess.thinning import Thinning
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.summary import Summary
from wavesfm_core.types import Tile

SPEC = SpectrogramSpec(fft_size=64, hop_samples=64, rows_per_tile=256, height=224, width=224)
TILE_S = SPEC.tile_samples / 1e6
HEAD = ClassificationHead(HeadSpec("classification", labels=("noise", "left", "right")), "m")


def tiles(n_tiles: int, width: float = 0.5, power_db: float = 0.0, first: int = 0) -> list[Tile]:
    """A noise-like signal over part of the band, at 1 MS/s."""
    n = n_tiles * SPEC.tile_samples
    rng = np.random.default_rng(first)
    spectrum = np.fft.fft(rng.standard_normal((n, 2)).view(np.complex128).ravel())
    spectrum[np.abs(np.fft.fftfreq(n)) > width / 2] *= 0.01
    samples = (np.fft.ifft(spectrum) * 10 ** (power_db / 20) * 1e-2).astype(np.complex64)
    made = TileStream(SPEC, 1e6, 1e8).push(samples)
    return [dataclasses.replace(tile, start_sample=tile.start_sample + first * SPEC.tile_samples) for tile in made]


def make_pipeline(fake_bundle: Path, ask_again_s: float, **options: object) -> Pipeline:
    engine = FakeEngine(Bundle.open(fake_bundle), **options)  # type: ignore[arg-type]
    return Pipeline(Bundle.open(fake_bundle), engine, HEAD, PowerGate(None), thinning=Thinning(ask_again_s, SPEC))


def inferred(pipeline: Pipeline, given: list[Tile], batch: int = 8) -> list[bool]:
    answers = [answer for i in range(0, len(given), batch) for answer in pipeline.predict(given[i : i + batch])]
    assert {answer.label for answer in answers} == {"right"}  # the fake engine's only answer
    assert [answer.start_sample for answer in answers] == [tile.start_sample for tile in given]
    return [answer.inferred for answer in answers]


@pytest.mark.parametrize("batch", [1, 3, 8, 20])
def test_a_tile_that_does_not_change_is_asked_again_every_so_often(fake_bundle: Path, batch: int) -> None:
    pipeline = make_pipeline(fake_bundle, 4.5 * TILE_S)
    assert inferred(pipeline, tiles(12), batch) == [True, *[False] * 4] * 2 + [True, False]
    assert pipeline.thinning.repeated == 9


def test_without_a_time_every_tile_is_asked(fake_bundle: Path) -> None:
    assert inferred(make_pipeline(fake_bundle, 0.0), tiles(4)) == [True] * 4


def test_a_change_is_asked_about_at_once(fake_bundle: Path) -> None:
    pipeline = make_pipeline(fake_bundle, 1e6)
    given = [*tiles(3), *tiles(2, width=0.3, first=3), *tiles(2, width=0.3, power_db=3.0, first=5)]
    assert inferred(pipeline, given) == [True, False, False, True, False, True, False]


def test_tunings_are_apart(fake_bundle: Path) -> None:
    pipeline = make_pipeline(fake_bundle, 1e6)
    given = tiles(4)
    given[1] = dataclasses.replace(given[1], centre_hz=2e8)
    assert inferred(pipeline, given) == [True, True, False, False]


def test_after_a_failure_the_model_is_asked_again(fake_bundle: Path) -> None:
    pipeline = make_pipeline(fake_bundle, 1e6, failures={0})
    with pytest.raises(EngineError, match="scripted"):
        pipeline.predict(tiles(2))
    assert inferred(pipeline, tiles(2, first=2)) == [True, False]


def test_a_new_stream_begins_anew(fake_bundle: Path) -> None:
    pipeline = make_pipeline(fake_bundle, 1e6)
    assert inferred(pipeline, tiles(2)) == [True, False]
    pipeline.thinning.reset()
    assert (inferred(pipeline, tiles(2)), pipeline.thinning.repeated) == ([True, False], 1)


def test_repeated_labels_do_not_lower_the_mean_probability(fake_bundle: Path) -> None:
    answers = make_pipeline(fake_bundle, 1e6).predict(tiles(4))
    assert sum(Summary().add(answers).probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("ask_again_s", [-1.0, float("nan"), float("inf")])
def test_a_wrong_time_is_refused(ask_again_s: float) -> None:
    with pytest.raises(ConfigurationError, match="ask_again_s"):
        Thinning(ask_again_s)
