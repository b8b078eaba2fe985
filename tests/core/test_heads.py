# SPDX-License-Identifier: GPL-3.0-or-later
"""Logits to predictions, outputs to metres and to channels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError
from wavesfm_core.heads import ChannelHead, ClassificationHead, PositionHead, make_head, softmax
from wavesfm_core.types import NOISE, UNKNOWN, PositionEstimate, StreamTime, Tile

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


def test_a_temperature_evens_probabilities_out() -> None:
    head = ClassificationHead(HeadSpec("classification", ("a", "b"), temperature=2.0), "m")
    (prediction,) = head.predict(logits([0.0, 2 * np.log(3)]), [TILE])
    assert prediction.probabilities == pytest.approx({"a": 1 / 4, "b": 3 / 4}, rel=1e-6)


def test_a_probable_unknown_is_the_answer_before_the_most_probable_label() -> None:
    spec = HeadSpec("classification", ("a", "b", UNKNOWN), unknown_from=0.3)
    rows = logits([np.log(0.6), np.log(0.05), np.log(0.35)], [np.log(0.6), np.log(0.15), np.log(0.25)])
    first, second = ClassificationHead(spec, "m").predict(rows, [TILE, TILE])
    assert (first.label, second.label) == (UNKNOWN, "a")
    assert first.confidence == pytest.approx(0.6)


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("unknown_from", 0.0), ("unknown_from", 1.5)])
def test_calibration_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(BundleError, match=name):
        HeadSpec("classification", ("a", "b"), **{name: value})


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


def test_held_back_and_latency() -> None:
    arrived = Tile(TILE.data, 0, 1, arrived_s=time.monotonic() - 10)
    prediction = ClassificationHead(SPEC, "m").held_back(arrived, 2.5)
    assert (prediction.label, prediction.confidence, dict(prediction.probabilities)) == (NOISE, None, {})
    assert (prediction.gated, prediction.inferred, prediction.margin_db) == (True, False, 2.5)
    assert 10 <= prediction.latency_s < 100


POSITION = HeadSpec("position", axes=("x", "z"), low_m=(0.0, -10.0), high_m=(80.0, 30.0))
CHANNEL = HeadSpec("channel", grid=(2, 3, 4), scale=2.0)


def test_positions_in_metres_also_outside_the_range() -> None:
    head = PositionHead(POSITION, "m@1")
    outputs = np.array([[-1, -1], [1, 1], [0, 0.5], [1.5, -2]], np.float32)
    metres = [(0, -10), (80, 30), (40, 20), (100, -30)]
    assert head.predict(outputs, [TILE] * 4) == [
        PositionEstimate(tuple(map(float, m)), ("x", "z"), "m@1") for m in metres
    ]
    np.testing.assert_array_equal(head.positions_m(outputs), np.array(metres, np.float64))
    assert head.predict(outputs, [TILE] * 4)[2].as_dict() == {"position_m": {"x": 40.0, "z": 20.0}, "bundle_id": "m@1"}


def test_channels_symbol_after_symbol() -> None:
    antenna, symbol, subcarrier = np.indices((2, 3, 4))
    outputs = np.zeros((2, 2, 2, 12), np.float32)
    outputs[1, 0] = (100 * antenna + 10 * symbol + subcarrier).reshape(2, 12)
    outputs[1, 1] = -outputs[1, 0] - 1
    silent, estimate = ChannelHead(CHANNEL, "m@1").predict(outputs, [TILE, TILE])
    assert (estimate.channel.dtype, estimate.channel.shape, estimate.bundle_id) == (np.complex64, (2, 3, 4), "m@1")
    assert estimate.channel[1, 2, 3] == 2 * (123 - 124j)
    assert estimate.as_dict()["imag"][0][1][2] == -26
    assert set(np.unique(silent.channel)) == {0}


def test_make_head_makes_the_tasks() -> None:
    made = [make_head(spec, "m") for spec in (SPEC, POSITION, CHANNEL)]
    assert [type(head) for head in made] == [ClassificationHead, PositionHead, ChannelHead]
    assert make_head(SPEC, "m", 0.25).threshold == 0.25


@pytest.mark.parametrize("spec", [POSITION, CHANNEL], ids=["position", "channel"])
def test_a_threshold_belongs_to_classification(spec: HeadSpec) -> None:
    with pytest.raises(ConfigurationError, match=rf"{spec.task} head: threshold: found 0.5, expected none"):
        make_head(spec, "m", 0.5)


@pytest.mark.parametrize("spec", [POSITION, CHANNEL], ids=["position", "channel"])
def test_outputs_of_another_shape_or_not_finite_are_refused(spec: HeadSpec) -> None:
    head = make_head(spec, "m")
    outputs = np.zeros((2, *spec.output_shape), np.float32)
    with pytest.raises(EngineError, match=rf"{spec.task} head: outputs shape: found \(2, .*expected \(1, "):
        head.predict(outputs, [TILE])
    with pytest.raises(EngineError, match=rf"{spec.task} head: outputs shape"):
        head.predict(outputs[..., 1:], [TILE, TILE])
    outputs.flat[-1] = np.nan
    with pytest.raises(EngineError, match=rf"{spec.task} head: outputs: found NaN or infinity for 1 of 2 tiles"):
        head.predict(outputs, [TILE, TILE])
