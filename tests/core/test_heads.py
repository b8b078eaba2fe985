"""Logits to predictions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from wavesfm_core.errors import ConfigurationError, EngineError
from wavesfm_core.heads import ClassificationHead, softmax
from wavesfm_core.spec import HeadSpec
from wavesfm_core.types import NO_SIGNAL, UNKNOWN, StreamTime, Tile

SPEC = HeadSpec("classification", ("a", "b", "c"), 0.5)
TILE = Tile(np.zeros((1, 2, 2), np.float32), 100, 50, 1e6, 2e9, StreamTime(7, 0.5), True, n_nonfinite=3)


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_probabilities_and_all_that_the_tile_knows() -> None:
    head = ClassificationHead(SPEC, "m@1")
    (prediction,) = head.predict(logits([0.0, np.log(2), np.log(5)]), [TILE])
    assert prediction.label == "c"
    assert prediction.probabilities == pytest.approx({"a": 1 / 8, "b": 2 / 8, "c": 5 / 8}, rel=1e-6)
    assert prediction.confidence == prediction.probabilities["c"]
    assert (prediction.start_sample, prediction.n_samples, prediction.rate_hz) == (100, 50, 1e6)
    assert (prediction.centre_hz, prediction.time, prediction.partial) == (2e9, StreamTime(7, 0.5), True)
    assert (prediction.bundle_id, prediction.n_nonfinite, prediction.latency_s) == ("m@1", 3, None)
    assert not prediction.gated


def test_threshold_is_the_bundles_own_and_settable() -> None:
    head = ClassificationHead(SPEC, "m")
    rows = logits([0.0, 0.0, 0.5])
    assert head.threshold == 0.5
    assert head.predict(rows, [TILE])[0].label == UNKNOWN
    assert head.predict(rows, [TILE])[0].confidence == pytest.approx(0.4519, abs=1e-4)
    head.threshold = 0.4
    assert head.predict(rows, [TILE])[0].label == "c"
    assert ClassificationHead(SPEC, "m", 0.0).threshold == 0.0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"threshold"):
        ClassificationHead(SPEC, "m", value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(wrong: float) -> None:
    with pytest.raises(EngineError, match=r"NaN or infinity for 1 of 2 tiles"):
        ClassificationHead(SPEC, "m").predict(logits([0, 0, 0], [0, wrong, wrong]), [TILE, TILE])


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (3,)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"logits shape"):
        ClassificationHead(SPEC, "m").predict(np.zeros(shape, np.float32), [TILE])


def test_softmax_of_huge_logits() -> None:
    np.testing.assert_allclose(softmax(logits([3e38, 3e38, -3e38])), [[0.5, 0.5, 0.0]])


def test_no_signal_and_latency() -> None:
    arrived = Tile(TILE.data, 0, 1, arrived_s=time.monotonic() - 10)
    prediction = ClassificationHead(SPEC, "m").no_signal(arrived)
    assert (prediction.label, prediction.confidence, dict(prediction.probabilities)) == (NO_SIGNAL, None, {})
    assert prediction.gated
    assert 10 <= prediction.latency_s < 100
