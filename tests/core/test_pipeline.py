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
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError, InputError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.types import NO_SIGNAL, UNKNOWN, Prediction, Tile

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
    return Pipeline(bundle, engine, ClassificationHead(bundle.spec.head, bundle.id), PowerGate(None)), engine


def scene(tone: Tone) -> np.ndarray:
    """Two tiles left, two of noise, one and a part right."""
    return np.concatenate([tone(-0.2, 4096), tone(0.1, 4096, snr_db=-200), tone(0.3, 3000)])


def test_labels_in_order_with_gated_tiles_between(pipeline: Pipeline, tone: Tone) -> None:
    predictions = pipeline.classify(scene(tone), 1e6, 100e6)
    labels = ["left", "left", NO_SIGNAL, NO_SIGNAL, "right", "right"]
    assert [p.label for p in predictions] == labels
    assert [p.start_sample for p in predictions] == [0, 2048, 4096, 6144, 8192, 10240]
    assert [p.partial for p in predictions] == [False] * 5 + [True]
    assert {(p.rate_hz, p.centre_hz, p.bundle_id) for p in predictions} == {(1e6, 100e6, pipeline.bundle.id)}
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1)


def test_gated_tiles_do_not_reach_the_engine(recorded: tuple[Pipeline, Recorder], tone: Tone) -> None:
    pipeline, engine = recorded
    pipeline.gate.gate_db = 12.0
    predictions = pipeline.classify(scene(tone), 1e6, batch_tiles=6)
    assert engine.calls == [4]
    assert [p.gated for p in predictions] == [False, False, True, True, False, False]
    assert predictions[2].confidence is None
    pipeline.classify(tone(0, 2048, snr_db=-200), 1e6)
    assert engine.calls == [4]


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
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


def test_a_recording_gives_the_same_as_its_samples(pipeline: Pipeline, tone: Tone, tmp_path: Path) -> None:
    samples = scene(tone)
    (tmp_path / "x.cf32").write_bytes(samples.tobytes())
    with open_recording(tmp_path / "x.cf32", rate_hz=1e6) as recording:
        assert list(pipeline.classify_recording(recording)) == pipeline.classify(samples, 1e6)


def test_segments_of_a_recording_start_new_tiles(pipeline: Pipeline, tone: Tone, tmp_path: Path) -> None:
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
    assert [None if p.time is None else float(p.time) for p in predictions] == [5.0, 5.0 + 2048 / 1e6, None]


def test_a_second_stream_starts_with_a_new_noise_floor(pipeline: Pipeline, tone: Tone) -> None:
    noise = tone(0, 2048, snr_db=-200)
    pipeline.classify(noise * np.float32(1e-3), 1e6)
    assert pipeline.classify(noise, 1e6)[0].gated


def test_threshold_and_gate_options(fake_bundle: Path, tone: Tone) -> None:
    pipeline = Pipeline.open(fake_bundle, device="onnxruntime", gate_db=None, threshold=1.0)
    noise = pipeline.classify(tone(0, 2048, snr_db=-200), 1e6)[0]
    assert (noise.label, max(noise.probabilities, key=noise.probabilities.__getitem__)) == (UNKNOWN, "quiet")
    pipeline.head.threshold = 0.2
    assert pipeline.classify(tone(0, 2048, snr_db=-200), 1e6)[0].label == "quiet"


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
    from support import tiny_onnx

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
