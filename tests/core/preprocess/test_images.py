# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of images, for every task: arrays in, predictions, positions and channels out; what is refused, and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_bundles, tiny_onnx
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.spec import HeadSpec, TensorSpec
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import BundleError, ConfigurationError, InputError
from wavesfm_core.heads import make_head, softmax
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate
from wavesfm_core.preprocess.tile import prepare
from wavesfm_core.types import ChannelEstimate, PositionEstimate, Prediction

SPEC = tiny_bundles.SPEC
TASKS = tuple(tiny_bundles.HEADS)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("images")
    return {task: tiny_bundles.make_image_bundle(directory / task, task) for task in TASKS}


def expected_outputs(task: str, arrays: list[np.ndarray]) -> np.ndarray:
    tiles = np.stack([prepare(array, SPEC) for array in arrays])
    return tiny_onnx.image_oracle(tiles, tiny_bundles.HEADS[task].output_shape)


@pytest.mark.parametrize("batch_tiles", [1, 3, 8])
def test_estimates_are_what_the_model_says(bundles: dict[str, Path], batch_tiles: int) -> None:
    arrays = [*tiny_bundles.arrays(4), *tiny_bundles.arrays(1, rows=7, columns=300)]
    answers = {task: Pipeline.open(bundles[task], "onnxruntime").estimate(arrays, batch_tiles) for task in bundles}
    predictions, positions, channels = (answers[task] for task in TASKS)
    probabilities = softmax(expected_outputs("classification", arrays))
    assert [type(a[0]) for a in answers.values()] == [Prediction, PositionEstimate, ChannelEstimate]
    for prediction, row in zip(predictions, probabilities, strict=True):
        assert list(prediction.probabilities) == ["run", "walk", "fall"]
        np.testing.assert_allclose(list(prediction.probabilities.values()), row, atol=1e-5)
        assert (prediction.start_sample, prediction.n_samples, prediction.latency_s) == (0, 0, None)
    low, high = np.array([0.0, -10, 1]), np.array([80.0, 60, 2])
    metres = low + (expected_outputs("position", arrays) + 1) / 2 * (high - low)
    np.testing.assert_allclose([p.position_m for p in positions], metres, atol=1e-3)
    parts = expected_outputs("channel", arrays)
    complex_channels = 2 * (parts[:, 0] + 1j * parts[:, 1]).reshape(-1, 2, 3, 4)
    np.testing.assert_allclose([c.channel for c in channels], complex_channels, atol=1e-4)


def test_no_arrays_give_no_estimates(bundles: dict[str, Path]) -> None:
    assert Pipeline.open(bundles["position"], "onnxruntime").estimate([]) == []


def fake_pipeline(path: Path) -> tuple[Pipeline, FakeEngine]:
    bundle = Bundle.open(path)
    engine = FakeEngine(bundle)
    return Pipeline(bundle, engine, make_head(bundle.spec.head, bundle.id), PowerGate(None)), engine


def test_arrays_come_in_batches(bundles: dict[str, Path]) -> None:
    pipeline, engine = fake_pipeline(bundles["position"])
    pipeline.estimate(tiny_bundles.arrays(5), batch_tiles=2)
    assert engine.calls == [2, 2, 1]
    with pytest.raises(ConfigurationError, match=r"batch_tiles: found 0"):
        pipeline.estimate(tiny_bundles.arrays(1), batch_tiles=0)


def with_value(value: float) -> np.ndarray:
    array = tiny_bundles.arrays(1)[0]
    array[1, 2, 3] = value
    return array


WRONG_ARRAYS = {
    "list": ([[[0.0]]], "array: found list, expected a numpy array of float32"),
    "complex": (np.zeros((3, 4, 5), np.complex64), "array: found complex64, expected a numpy array of float32"),
    "bytes": (np.zeros((3, 4, 5), np.uint8), "array: found uint8"),
    "rank": (np.zeros((4, 5), np.float32), r"array: found shape \(4, 5\), expected channels, rows and columns"),
    "channels": (np.zeros((4, 4, 5), np.float32), "channels: found 4, expected 3"),
    "no rows": (np.zeros((3, 0, 5), np.float32), "rows: found 0, expected 1 to 65536"),
    "rows": (np.broadcast_to(np.float32(0), (3, 1 << 40, 5)), "rows: found 1099511627776, expected 1 to 65536"),
    "columns": (np.broadcast_to(np.float32(0), (3, 5, 65537)), "columns: found 65537"),
    "size": (
        np.broadcast_to(np.float32(0), (3, 65536, 65536)),
        "values: found 12884901888, expected at most 268435456",
    ),
    "nan": (with_value(np.nan), "values: found NaN or infinity in 1 of 3150, expected finite"),
    "infinity": (with_value(-np.inf), "values: found NaN or infinity in 1 of 3150"),
    "beyond float32": (with_value(0.0).astype(np.float64) + 1e300, "values: found NaN or infinity in 3150 of 3150"),
    "overflow": (
        np.full((3, 4, 5), 3.4e38, np.float32),
        r"values: found up to 3.4e\+38, expected values of the order of -4 to 4",
    ),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_a_wrong_array_is_refused_and_named(bundles: dict[str, Path], case: str) -> None:
    array, message = WRONG_ARRAYS[case]
    pipeline, engine = fake_pipeline(bundles["position"])
    with pytest.raises(InputError, match="array 1: " + message):
        pipeline.estimate([tiny_bundles.arrays(1)[0], array])  # type: ignore[list-item]
    assert engine.calls == []
    with pytest.raises(InputError, match="prepare: " + message):
        prepare(array, SPEC)  # type: ignore[arg-type]


def test_negative_powers_have_no_decibels() -> None:
    import dataclasses

    spec = dataclasses.replace(SPEC, decibel_floor=1e-12)
    with pytest.raises(InputError, match=r"values: found -.*, expected none below 0, powers"):
        prepare(tiny_bundles.arrays(1)[0], spec)


def test_float64_is_rounded_and_the_callers_array_stays(bundles: dict[str, Path]) -> None:
    (array,) = tiny_bundles.arrays(1)
    kept = array.copy()
    tile = prepare(array.astype(np.float64), SPEC)
    np.testing.assert_array_equal(tile, prepare(array, SPEC))
    np.testing.assert_array_equal(tile, prepare(np.asfortranarray(array), SPEC))
    np.testing.assert_array_equal(array, kept)


def test_a_prepared_tile_is_not_the_array_even_where_nothing_is_resized() -> None:
    (array,) = tiny_bundles.arrays(1, rows=32, columns=40)
    assert not np.shares_memory(prepare(array, SPEC), array)


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_of_images_takes_no_iq(bundles: dict[str, Path], task: str) -> None:
    pipeline, engine = fake_pipeline(bundles[task])
    samples = np.zeros(4096, np.complex64)
    message = "preprocess: found a model for images, expected one for spectrograms, since IQ is to be read"
    for refused in (
        lambda: pipeline.classify(samples, 1e6),
        lambda: pipeline.predict([]),
        lambda: pipeline.stream_spec,
    ):
        with pytest.raises(ConfigurationError, match=message):
            refused()
    assert engine.calls == []


def test_a_bundle_of_spectrograms_takes_no_arrays(fake_bundle: Path) -> None:
    pipeline, _ = fake_pipeline(fake_bundle)
    assert pipeline.stream_spec.tile_samples == 2048
    with pytest.raises(ConfigurationError, match=r"found a model for spectrograms, expected one for images"):
        pipeline.estimate(tiny_bundles.arrays(1))


@pytest.mark.parametrize("task", TASKS)
def test_golden_arrays_are_written_read_and_replayed(bundles: dict[str, Path], task: str) -> None:
    with np.load(bundles[task] / "golden.npz") as archive:
        assert set(archive) == {
            "rate_hz",
            "array_0",
            "array_1",
            "tile_0",
            "tile_1",
            "out_" + tiny_bundles.OUTPUTS[task],
        }
    bundle = Bundle.open(bundles[task])
    golden = bundle.golden()
    assert len(golden.inputs) == 2
    engine = FakeEngine(bundle)
    engine.run = lambda inputs: dict(golden.outputs)  # type: ignore[method-assign]
    report = replay_golden(bundle, engine)
    assert (report.tiles, report.prepare_difference, report.engine_difference) == (2, 0, 0)


def edit_golden(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with np.load(bundle / "golden.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(bundle / "golden.npz", **arrays)


WRONG_GOLDEN = {
    "one missing": (lambda a: a.pop("array_1"), "array_1: found nothing"),
    "iq instead": (
        lambda a: a.update({f"iq_{i}": np.zeros(9, np.complex64) for i in (0, 1)}) or a.pop("array_0"),
        "array_0: found nothing",
    ),
    "channels": (
        lambda a: a.update(array_1=a["array_1"][:2]),
        r"array_1: found float32 \(2, 21, 50\), expected float32 \[3,",
    ),
    "dtype": (lambda a: a.update(array_0=a["array_0"].astype("f8")), "array_0: found float64"),
    "tile": (lambda a: a.update(tile_0=a["tile_0"][:1]), r"tile_0: found float32 \(1, 32, 40\)"),
}


@pytest.mark.parametrize("case", WRONG_GOLDEN)
def test_a_wrong_golden_array_is_named(tmp_path: Path, case: str) -> None:
    change, message = WRONG_GOLDEN[case]
    path = tiny_bundles.make_image_bundle(tmp_path / "b", "position")
    edit_golden(path, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(path).golden()


def test_golden_values_that_cannot_be_prepared_are_named(tmp_path: Path) -> None:
    path = tiny_bundles.make_image_bundle(tmp_path / "b", "position")
    edit_golden(path, lambda a: a["array_1"].__setitem__((0, 0, 0), np.nan))
    bundle = Bundle.open(path)
    with pytest.raises(InputError, match=r"golden.npz: input 1: values: found NaN or infinity in 1 of"):
        replay_golden(bundle, FakeEngine(bundle))


def test_iq_in_place_of_arrays_is_not_written(bundles: dict[str, Path]) -> None:
    bundle = Bundle.open(bundles["position"])
    golden = bundle.golden()
    wrong = Golden((np.zeros(9, np.complex64),) * 2, golden.rate_hz, golden.tiles, golden.outputs)
    with pytest.raises(BundleError, match=r"array_0: found complex64 \(9,\), expected float32 \[3, rows, columns\]"):
        wrong.check(bundle.spec, Path("golden.npz"))


def test_numbers_of_inputs_and_tiles_must_agree(bundles: dict[str, Path]) -> None:
    bundle = Bundle.open(bundles["position"])
    golden = bundle.golden()
    wrong = Golden(golden.inputs[:1], golden.rate_hz, golden.tiles, golden.outputs)
    with pytest.raises(BundleError, match="number of tiles: found 2 rates, 1 inputs, 2 tiles"):
        wrong.check(bundle.spec, Path("golden.npz"))


RATE = TensorSpec("log10_rate", (-1, 1), "log10_rate")
TILE = TensorSpec("tile", (-1, 3, 32, 40), "tile")
WRONG_BUNDLES = {
    "rate": ({"inputs": (TILE, RATE)}, "inputs.log10_rate.source: found log10_rate, expected one of tile"),
    "channels": (
        {"inputs": (TensorSpec("tile", (-1, 1, 32, 40), "tile"),)},
        r"inputs.tile.shape: found \(-1, 1, 32, 40\), expected \(-1, 3, 32, 40\)",
    ),
    "outputs": (
        {"outputs": (TensorSpec("position", (-1, 2)),)},
        r"outputs\[0\].shape: found \(-1, 2\), expected \(-1, 3\), one coordinate for each axis",
    ),
    "channel outputs": (
        {"outputs": (TensorSpec("position", (-1, 3)),), "head": HeadSpec("channel", grid=(1, 2, 3))},
        r"outputs\[0\].shape: found \(-1, 3\), expected \(-1, 2, 1, 6\), real and imaginary",
    ),
}


@pytest.mark.parametrize("case", WRONG_BUNDLES)
def test_a_bundle_that_contradicts_itself_is_not_written(tmp_path: Path, case: str) -> None:
    changes, message = WRONG_BUNDLES[case]
    with pytest.raises(BundleError, match=message):
        tiny_bundles.make_image_bundle(tmp_path / "b", "position", **changes)
    assert not (tmp_path / "b").exists()


def test_spectrograms_are_for_classification(fake_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(fake_bundle, tmp_path / "copy"))
    values = json.loads((copy / "bundle.json").read_text())
    values["head"] = {"task": "position", "axes": ["x", "y", "z"], "low_m": [0, 0, 0], "high_m": [1, 1, 1]}
    (copy / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"head.task: found position, expected classification"):
        Bundle.open(copy)


def test_bundle_json_says_the_kind(bundles: dict[str, Path]) -> None:
    values = json.loads((bundles["channel"] / "bundle.json").read_text())
    assert values["preprocess"]["kind"] == "image"
    assert values["head"] == {"task": "channel", "grid": [2, 3, 4], "scale": 2.0}
    assert Bundle.open(bundles["channel"]).spec.preprocess == SPEC
