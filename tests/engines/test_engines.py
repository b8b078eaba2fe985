# SPDX-License-Identifier: GPL-3.0-or-later
"""Every installed runtime gives the tiny model's outputs, and refuses models that are not what the bundle says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_bundles, tiny_onnx
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines import ENGINES, Engine, available_engines, open_engine
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.timing import milliseconds_per_tile
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def native_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino f32", "openvino bf16"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    name, _, precision = request.param.partition(" ")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if precision == "bf16" and not native_bf16():
        pytest.skip("this processor has no bf16")
    return open_engine(bundle, name, threads=1, precision=precision or "auto")


def batch(bundle: Bundle, n_tiles: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n_tiles)
    return bundle_inputs(bundle.spec, rng.normal(size=(n_tiles, 1, 224, 224)), rng.uniform(1e5, 1e7, n_tiles))


@pytest.mark.parametrize("n_tiles", [1, 2, 8, 3, 1])
def test_outputs_are_the_models(engine: Engine, bundle: Bundle, n_tiles: int) -> None:
    inputs = batch(bundle, n_tiles)
    outputs = engine.run(inputs)
    expected = tiny_onnx.oracle(inputs["tile"], inputs["log10_rate"], 3)
    assert list(outputs) == ["logits"]
    assert outputs["logits"].dtype == np.float32
    tolerance = max(1e-5, engine.relative_tolerance * np.abs(expected).max())
    np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=tolerance)


def test_outputs_are_the_callers(engine: Engine, bundle: Bundle) -> None:
    first = engine.run(batch(bundle, 2))["logits"]
    kept = first.copy()
    engine.run(batch(bundle, 2) | {"log10_rate": np.zeros((2, 1), np.float32)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ENGINES)
def test_a_closed_engine(name: str, bundle: Bundle) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed")
    engine = open_engine(bundle, name, threads=1, precision="f32")
    engine.run(batch(bundle, 1))
    described = engine.description
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=f"engine {name}: run: found a closed engine"):
        engine.run(batch(bundle, 1))
    assert engine.description == described


def test_golden_tiles_replay(engine: Engine, bundle: Bundle) -> None:
    assert replay_golden(bundle, engine).engine == engine.description


def test_description(engine: Engine) -> None:
    runtime = "openvino" if "openvino" in engine.description else "onnxruntime"
    precision = "bf16" if engine.relative_tolerance else "f32"
    assert engine.description.startswith(runtime)
    assert engine.description.endswith(f"CPU, {precision}, threads: 1")


WRONG_INPUTS = {
    "nothing": (lambda i: {}, "input tile: found nothing"),
    "missing": (lambda i: {"tile": i["tile"]}, "input log10_rate: found nothing"),
    "dtype": (lambda i: i | {"tile": i["tile"].astype("f8")}, "input tile: found float64"),
    "shape": (lambda i: i | {"tile": i["tile"][:, :, :100]}, r"input tile: found float32 \(2, 1, 100, 224\)"),
    "rank": (lambda i: i | {"log10_rate": i["log10_rate"][:, 0]}, "input log10_rate: found float32"),
    "batch": (lambda i: i | {"log10_rate": i["log10_rate"][:1]}, r"input batch: found \[1, 2\]"),
    "empty": (lambda i: {name: array[:0] for name, array in i.items()}, r"input batch: found \[0\]"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_inputs_are_named(engine: Engine, bundle: Bundle, case: str) -> None:
    change, message = WRONG_INPUTS[case]
    with pytest.raises(EngineError, match=message):
        engine.run(change(batch(bundle, 2)))


WRONG_MODELS = {
    "input name": (dict(tile="image"), "input image: found a tensor that bundle.json does not name"),
    "output name": (dict(logits="scores"), "output scores: found a tensor that bundle.json does not name"),
    "labels": (dict(n_labels=4), r"output logits shape: found \(-1, 4\), expected \(-1, 3\)"),
    "height": (dict(height=112), r"input tile shape: found \(-1, 1, 112, 224\), expected \(-1, 1, 224, 224\)"),
    "batch": (dict(batch=1), r"input tile shape: found \(1, 1, 224, 224\)"),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", WRONG_MODELS)
def test_a_model_that_is_not_what_the_bundle_says(
    name: str, case: str, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed")
    options, message = WRONG_MODELS[case]
    model = tiny_onnx.model(**{"n_labels": 3, **options})
    with pytest.raises(BundleError, match=message) as caught:
        open_engine(Bundle.open(make_bundle(tmp_path / "b", model=model)), name)
    assert caught.value.where.endswith("model.onnx")


@pytest.mark.parametrize("model", [b"no model at all", tiny_onnx.model(3)[:300]], ids=["noise", "truncated"])
def test_a_file_that_is_no_model_becomes_no_bundle(
    model: bytes, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: contents: found .*, expected an ONNX model"):
        make_bundle(tmp_path / "b", model=model)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ENGINES)
def test_a_model_that_a_runtime_refuses(name: str, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed")
    model = tiny_onnx.model(3).replace(b"AveragePool", b"AveragePuul")  # no such operator
    with pytest.raises(EngineError, match=rf"model.onnx: model: found refused by {name}"):
        open_engine(Bundle.open(make_bundle(tmp_path / "b", model=model)), name)


def test_a_model_that_was_replaced_since_the_bundle_was_opened(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "replaced"))
    bundle.model_path.write_bytes(bundle.model_path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx: sha256"):
        open_engine(bundle, "cpu")
    bundle.model_path.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx"):
        open_engine(bundle, "cpu")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_auto_takes_the_fastest_that_is_there(bundle: Bundle, device: str) -> None:
    assert open_engine(bundle, device).description.startswith(available_engines()[0])


@needs_openvino
def test_openvino_precisions(bundle: Bundle) -> None:
    assert ("bf16" in open_engine(bundle, "openvino").description) == native_bf16()
    exact = open_engine(bundle, "openvino", precision="f32")
    assert exact.relative_tolerance == 0


@needs_openvino
def test_auto_goes_on_where_an_engine_cannot_be_opened(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("wavesfm_core.engines.available_engines", lambda: ["openvino", "onnxruntime"])
    assert open_engine(bundle).description.startswith("onnxruntime")


@pytest.mark.parametrize("name", ENGINES)
def test_a_missing_runtime_says_how_to_install_it(bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=rf"pip install '{name}>="):
        open_engine(bundle, name)


def test_no_runtime_at_all(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavesfm_core.engines.available_engines", lambda: [])
    with pytest.raises(EngineError, match=r"no inference runtime, expected one: pip install"):
        open_engine(bundle)


WRONG = [("device", "gpu"), ("device", "fake"), ("threads", -1), ("precision", "f16")]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_wrong_option(bundle: Bundle, option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"engine: {option}: found"):
        open_engine(bundle, **{option: value})


def test_onnxruntime_has_no_bf16(bundle: Bundle) -> None:
    with pytest.raises(ConfigurationError, match=r"expected f32"):
        open_engine(bundle, "onnxruntime", precision="bf16")


def test_fake_is_deterministic_and_fails_where_told(bundle: Bundle) -> None:
    fake = FakeEngine(bundle, failures=[1])
    inputs = batch(bundle, 2)
    first = fake.run(inputs)["logits"]
    assert first.shape == (2, 3)
    np.testing.assert_allclose(first - first[:, :1], [[0, 1, 2]] * 2, atol=1e-6)
    with pytest.raises(EngineError, match=r"scripted failure of call 1"):
        fake.run(inputs)
    np.testing.assert_array_equal(fake.run(inputs)["logits"], first)
    assert fake.calls == [2, 2, 2]


def test_timing_runs_batches_of_golden_tiles(bundle: Bundle) -> None:
    fake = FakeEngine(bundle, delay_s=0.001)
    assert milliseconds_per_tile(fake, bundle, 5, seconds=0.01) >= 1 / 5
    assert set(fake.calls) == {5}
    assert len(fake.calls) >= 4


@pytest.mark.parametrize("task", tiny_bundles.HEADS)
@pytest.mark.parametrize("name", ENGINES)
def test_images_of_every_task(name: str, task: str, tmp_path: Path) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed")
    bundle = Bundle.open(tiny_bundles.make_image_bundle(tmp_path / "b", task))
    engine = open_engine(bundle, name, threads=1, precision="f32")
    assert replay_golden(bundle, engine).tiles == 2
    tiles = np.random.default_rng(2).normal(size=(3, *tiny_bundles.SPEC.tile_shape)).astype(np.float32)
    outputs = engine.run(bundle_inputs(bundle.spec, tiles, np.zeros(3)))
    assert list(outputs) == [tiny_bundles.OUTPUTS[task]]
    expected = tiny_onnx.image_oracle(tiles, tiny_bundles.HEADS[task].output_shape)
    np.testing.assert_allclose(outputs[tiny_bundles.OUTPUTS[task]], expected, rtol=0, atol=1e-5)
