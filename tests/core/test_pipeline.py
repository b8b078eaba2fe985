# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples to predictions, through the real kernels and a fake or a real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_onnx
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError, InputError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.types import NOISE, UNKNOWN, Prediction, Tile

Tone = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def pipeline(fake_bundle: Path) -> Pipeline:
    return Pipeline.open(fake_bundle, device="onnxruntime")


class Recorder(FakeEngine):
    """Keeps the inputs of every run."""

    def run(self, inputs: Any) -> Any:
        self.__dict__.setdefault("inputs", []).append(inputs)
        return super().run(inputs)


@pytest.fixture
def recorded(fake_bundle: Path) -> tuple[Pipeline, Recorder]:
    bundle = Bundle.open(fake_bundle)
    engine = Recorder(bundle)
    gate = PowerGate(None, bundle.spec.preprocess, bundle.spec.head.labels)
    return Pipeline(bundle, engine, ClassificationHead(bundle.spec.head, bundle.id), gate), engine


NOISE_TILES = 40  # of them the gate holds back most


def noise(tone: Tone, n_tiles: int) -> np.ndarray:
    return tone(0.1, n_tiles * 2048, snr_db=-200)


def scene(tone: Tone) -> np.ndarray:
    """Two tiles left, NOISE_TILES of noise, one and a part right."""
    return np.concatenate([tone(-0.2, 4096), noise(tone, NOISE_TILES), tone(0.3, 3000)])


def test_labels_in_order_with_noise_between(pipeline: Pipeline, tone: Tone) -> None:
    predictions = pipeline.classify(scene(tone), 1e6, 100e6)
    labels = ["left", "left", *[NOISE] * NOISE_TILES, "right", "right"]
    assert [p.label for p in predictions] == labels
    assert [p.start_sample for p in predictions] == [2048 * i for i in range(len(labels))]
    assert [p.partial for p in predictions] == [False] * (len(labels) - 1) + [True]
    assert {(p.rate_hz, p.centre_hz, p.bundle_id) for p in predictions} == {(1e6, 100e6, pipeline.bundle.id)}
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1)


class Answering(FakeEngine):
    """Answers as the fake bundle's model does."""

    def run(self, inputs: Any) -> Any:
        super().run(inputs)
        return {"logits": tiny_onnx.oracle(inputs["tile"], inputs["log10_rate"], 3)}


def test_known_noise_does_not_reach_the_engine(recorded: tuple[Pipeline, Recorder], tone: Tone) -> None:
    pipeline, _ = recorded
    pipeline.engine = engine = Answering(pipeline.bundle)
    pipeline.gate.gate_db = 12.0
    predictions = pipeline.classify(scene(tone), 1e6, batch_tiles=6)
    held = [p for p in predictions if p.gated]
    assert len(held) > NOISE_TILES / 2 and {p.label for p in held} == {NOISE}
    assert sum(engine.calls) == len(predictions) - len(held)
    assert {(p.confidence, len(p.probabilities), p.inferred) for p in held} == {(None, 0, False)}
    assert not any(p.gated for p in predictions[:6] + predictions[-2:])
    pipeline.gate.gate_db = None
    assert all(p.inferred for p in pipeline.classify(noise(tone, 10), 1e6))


def test_every_prediction_tells_its_levels(pipeline: Pipeline, tone: Tone) -> None:
    predictions = pipeline.classify(scene(tone), 1e6)
    for p in predictions:
        assert p.floor_db < p.peak_db and np.isfinite(p.margin_db)
    (carrier, known) = predictions[0], predictions[-2]
    assert carrier.margin_db == pytest.approx(carrier.peak_db - carrier.floor_db)  # no noise is known yet
    floors = [p.floor_db for p in predictions if p.label == NOISE]
    assert known.margin_db == pytest.approx(known.peak_db - np.mean(floors), abs=0.5)


@pytest.mark.parametrize(
    ("rate_hz", "note"),
    [
        (0.0, "unknown"),
        (1e6, ""),
        (0.25e6, ""),
        (25.001e6, ""),
        (26e6, "outside 0.25 to 25 MS/s"),
        (4e3, "outside 0.25 to 25 MS/s"),
    ],
)
def test_a_rate_that_was_not_trained_is_noted(pipeline: Pipeline, tone: Tone, rate_hz: float, note: str) -> None:
    (prediction,) = pipeline.classify(tone(0.1, 2048), rate_hz)
    assert prediction.rate_note == note == prediction.as_dict()["rate_note"]


def test_engine_inputs(recorded: tuple[Pipeline, Recorder], tone: Tone) -> None:
    pipeline, engine = recorded
    stream = TileStream(pipeline.bundle.spec.preprocess, 1e6)
    (known,) = stream.push(tone(0.1, 2048))
    (unknown,) = TileStream(pipeline.bundle.spec.preprocess).push(tone(0.1, 2048))
    pipeline.predict([known, unknown])
    (inputs,) = engine.inputs  # type: ignore[attr-defined]
    np.testing.assert_array_equal(inputs["log10_rate"], np.array([[6.0], [0.0]], np.float32))
    assert inputs["log10_rate"].dtype == inputs["tile"].dtype == np.float32
    np.testing.assert_array_equal(inputs["tile"], np.stack([known.data, unknown.data]))


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=8), batch_tiles=st.integers(1, 9))
def test_chunks_and_batches_change_nothing(fake_bundle: Path, tone: Tone, sizes: list[int], batch_tiles: int) -> None:
    pipeline = Pipeline.open(fake_bundle, device="onnxruntime", replay=False)
    samples = scene(tone)
    whole = pipeline.classify(samples, 1e6)
    stream = TileStream(pipeline.bundle.spec.preprocess, 1e6)
    tiles: list[Tile] = []
    rest, turn = samples, 0
    while len(rest):
        size = sizes[turn % len(sizes)]
        tiles += stream.push(rest[:size])
        rest, turn = rest[size:], turn + 1
    tiles += stream.finish()
    pipeline.gate.reset()
    parts: list[Prediction] = []
    for first in range(0, len(tiles), batch_tiles):
        parts += pipeline.predict(tiles[first : first + batch_tiles])
    for a, b in zip(whole, parts, strict=True):
        assert (a.label, a.start_sample, a.n_samples) == (b.label, b.start_sample, b.n_samples)
        assert a.inferred == b.inferred
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


def test_a_recording_gives_the_same_as_its_samples(pipeline: Pipeline, tone: Tone, tmp_path: Path) -> None:
    samples = scene(tone)
    (tmp_path / "x.cf32").write_bytes(samples.tobytes())
    with open_recording(tmp_path / "x.cf32", rate_hz=1e6) as recording:
        assert list(pipeline.classify_recording(recording)) == pipeline.classify(samples, 1e6)


def test_captures_of_other_frequencies_start_new_tiles(pipeline: Pipeline, tone: Tone, tmp_path: Path) -> None:
    meta = {
        "global": {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sample_rate": 1e6},
        "captures": [
            {"core:sample_start": 0, "core:frequency": 1e9, "core:datetime": "1970-01-01T00:00:05Z"},
            {"core:sample_start": 3000, "core:frequency": 2e9},
        ],
        "annotations": [],
    }
    (tmp_path / "r.sigmf-meta").write_text(json.dumps(meta))
    (tmp_path / "r.sigmf-data").write_bytes(np.concatenate([tone(-0.2, 3000), tone(0.2, 2048)]).tobytes())
    with open_recording(tmp_path / "r.sigmf-meta") as recording:
        predictions = list(pipeline.classify_recording(recording))
    told = [(p.start_sample, p.partial, p.centre_hz, p.label) for p in predictions]
    assert told == [(0, False, 1e9, "left"), (2048, True, 1e9, "left"), (3000, False, 2e9, "right")]
    assert [None if p.time is None else float(p.time) for p in predictions] == pytest.approx(
        [5.0, 5.0 + 2048 / 1e6, 5.0 + 3000 / 1e6]
    )


def test_a_second_stream_starts_with_an_empty_memory(pipeline: Pipeline, tone: Tone) -> None:
    assert any(p.gated for p in pipeline.classify(noise(tone, 12), 1e6))
    assert pipeline.classify(noise(tone, 1), 1e6)[0].inferred


def test_threshold_and_gate_options(fake_bundle: Path, tone: Tone) -> None:
    pipeline = Pipeline.open(fake_bundle, device="onnxruntime", gate_db=None, threshold=1.0)
    noise = pipeline.classify(tone(0, 2048, snr_db=-200), 1e6)[0]
    assert (noise.label, max(noise.probabilities, key=noise.probabilities.__getitem__)) == (UNKNOWN, "noise")
    pipeline.head.threshold = 0.2
    assert pipeline.classify(tone(0, 2048, snr_db=-200), 1e6)[0].label == "noise"


def test_samples_that_are_not_finite_are_counted(pipeline: Pipeline, tone: Tone) -> None:
    samples = tone(-0.2, 4096)
    samples[[3, 5000 - 2048]] = np.nan, np.inf
    assert [(p.label, p.n_nonfinite) for p in pipeline.classify(samples, 1e6)] == [("left", 1), ("left", 1)]


@pytest.mark.parametrize("n_samples", [0, 1, 255])
def test_too_short(pipeline: Pipeline, tone: Tone, tmp_path: Path, n_samples: int) -> None:
    with pytest.raises(InputError, match=rf"length: found {n_samples} samples, expected at least 256"):
        pipeline.classify(tone(0, n_samples), 1e6)
    if n_samples:
        (tmp_path / "x.cs8").write_bytes(bytes(2 * n_samples))
        with open_recording(tmp_path / "x.cs8") as recording, pytest.raises(InputError, match=r"x.cs8: length"):
            list(pipeline.classify_recording(recording))


def test_a_stream_of_digital_silence_is_refused_as_such(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match=r"found 4096 samples, 4096 of them digital silence"):
        pipeline.classify(np.zeros(4096, np.complex64), 1e6)


def test_gaps_of_a_stream_are_in_its_predictions_and_accounts(pipeline: Pipeline, tone: Tone) -> None:
    samples = tone(-0.2, 4096)
    samples[500:700] = 0
    (first, second) = pipeline.classify(samples, 1e6)
    assert (first.label, first.n_gap_samples, second.n_gap_samples) == ("left", 256, 0)
    assert pipeline.stream_accounts.samples_silent == 256


@pytest.mark.parametrize("samples", [np.zeros(300), np.zeros((2, 300), np.complex64), [0j] * 300])
def test_samples_of_another_kind(pipeline: Pipeline, samples: Any) -> None:
    with pytest.raises(InputError, match=r"samples: type: found .*, expected complex64 \[n\]"):
        pipeline.classify(samples, 1e6)


@pytest.mark.parametrize("rate_hz", [-1, float("nan")])
def test_wrong_rate(pipeline: Pipeline, tone: Tone, rate_hz: float) -> None:
    with pytest.raises(InputError, match=r"sample rate"):
        pipeline.classify(tone(0, 300), rate_hz)


@pytest.mark.parametrize(
    ("option", "value"), [("gate_db", -1), ("threshold", 2), ("threads", -1), ("device", "abacus")]
)
def test_wrong_option(fake_bundle: Path, option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{option}: found"):
        Pipeline.open(fake_bundle, **{option: value})


def test_a_failing_engine_is_an_engine_error(recorded: tuple[Pipeline, Recorder], tone: Tone) -> None:
    pipeline, engine = recorded
    engine.failures = {0}
    with pytest.raises(EngineError, match=r"scripted failure of call 0"):
        pipeline.classify(tone(0.1, 2048), 1e6)
    assert pipeline.classify(tone(0.1, 2048), 1e6)[0].label == "right"


def test_opening_replays_the_golden_tiles(fake_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    other = tiny_onnx.model(3, scale=1.1)
    path = make_bundle(tmp_path / "other", model=other)
    with pytest.raises(BundleError, match=r"golden stage engine \(onnxruntime .*output logits"):
        Pipeline.open(path, device="onnxruntime")
    assert Pipeline.open(path, device="onnxruntime", replay=False).bundle.spec.name == "fake"


def test_close_frees_the_engine_and_reopen_opens_it_anew(
    fake_bundle: Path, tone: Tone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    opened: list[FakeEngine] = []

    def open_engine(bundle: Bundle, *options: Any) -> FakeEngine:
        asked.append(options)
        opened.append(FakeEngine(bundle))
        return opened[-1]

    monkeypatch.setattr("wavesfm_core.pipeline.open_engine", open_engine)
    pipeline = Pipeline.open(fake_bundle, "cpu", None, 0.25, 3, False, "bf16", device_id=2, on_change=print)
    pipeline.head.threshold = 0.5
    pipeline.reopen()  # it is open: nothing is to be done
    for _ in range(3):
        pipeline.close()
        pipeline.close()
        assert all(engine.closed for engine in opened)
        with pytest.raises(EngineError, match="closed"):
            pipeline.classify(tone(-0.2, 4096))
        pipeline.reopen()
        assert len(pipeline.classify(tone(-0.2, 4096))) == 2
    assert asked == [("cpu", 3, "bf16", 2, print)] * 4
    assert (pipeline.engine, pipeline.head.threshold) == (opened[-1], 0.5)


def test_an_engine_that_is_refused_at_opening_is_closed(fake_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FakeEngine] = []

    def open_engine(bundle: Bundle, *_: Any) -> FakeEngine:
        opened.append(FakeEngine(bundle))
        return opened[-1]

    monkeypatch.setattr("wavesfm_core.pipeline.open_engine", open_engine)
    with pytest.raises(BundleError, match=r"golden stage engine \(fake\)"):
        Pipeline.open(fake_bundle)
    assert [engine.closed for engine in opened] == [True]
