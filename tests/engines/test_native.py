# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines behind the C interface give what the runtimes' Python bindings give, and report what fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from support import tiny_onnx
from wavesfm_core import _kernels
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines import onnxruntime as onnxruntime_engine
from wavesfm_core.engines import open_engine
from wavesfm_core.engines import openvino as openvino_engine
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.native import MISSING, MODEL, NativeEngine, native_engine
from wavesfm_core.engines.shared import acquire
from wavesfm_core.errors import EngineError

MODELS = Path(__file__).parents[2] / "models"
INVALID, FAILED, CLOSED = 1, 4, 5
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def inputs_of(bundle: Bundle, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {t.name: rng.normal(1, 1, (n, *t.shape[1:])).astype(np.float32) for t in bundle.spec.inputs}


def status_of(failure: pytest.ExceptionInfo[BaseException]) -> int:
    return int(failure.value.args[0])


@pytest.mark.parametrize("name", ["rf20-nano", "chanest-nano"])
def test_onnxruntime_gives_what_its_python_binding_gives(name: str) -> None:
    bundle = Bundle.open(MODELS / name)
    native = open_engine(bundle, "onnxruntime", threads=1)
    binding = onnxruntime_engine.OnnxRuntimeSession(bundle, threads=1)
    assert isinstance(native, NativeEngine) and native.description == binding.description
    for n in (1, 3):
        inputs = inputs_of(bundle, n)
        for output, values in binding.run(inputs).items():
            np.testing.assert_array_equal(native.run(inputs)[output], values)
    native.close()


@needs_openvino
@pytest.mark.parametrize("name", ["rf20-nano", "chanest-nano"])
def test_openvino_gives_what_its_python_binding_gives(name: str) -> None:
    import openvino

    bundle = Bundle.open(MODELS / name)
    native = open_engine(bundle, "openvino", threads=1, precision="f32")
    assert isinstance(native, NativeEngine)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(bundle.model_path, "CPU", settings).create_infer_request()
    assert native.description == f"openvino {openvino.__version__.split('-')[0]}, CPU, f32, threads: 1"
    for n in (1, 3):
        inputs = inputs_of(bundle, n)
        expected = request.infer(inputs)
        for output, values in native.run(inputs).items():
            np.testing.assert_array_equal(values, expected[output])
    native.close()


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


def batch(bundle: Bundle, n: int = 2) -> list[np.ndarray]:
    inputs = bundle_inputs(bundle.spec, np.random.default_rng(n).normal(size=(n, 1, 224, 224)), np.full(n, 1e6))
    return [inputs[tensor.name] for tensor in bundle.spec.inputs]


def test_a_python_engine_behind_the_interface(bundle: Bundle) -> None:
    fake = FakeEngine(bundle, failures=[1])
    engine = native_engine(bundle, fake)
    assert (engine.runtime, engine.inputs) == ("fake", [(t.name, list(t.shape)) for t in bundle.spec.inputs])
    arrays = batch(bundle)
    (logits,) = engine.run(arrays)
    expected = FakeEngine(bundle).run(dict(zip((name for name, _ in engine.inputs), arrays, strict=True)))["logits"]
    np.testing.assert_array_equal(logits, expected)
    with pytest.raises(_kernels.EngineFailure, match="a scripted failure of call 1") as failure:
        engine.run(arrays)
    assert status_of(failure) == FAILED
    np.testing.assert_array_equal(engine.run(arrays)[0], expected)
    engine.close()
    assert not fake.closed  # its owner closes it


def test_a_shared_engine_is_the_runtime_itself(bundle: Bundle) -> None:
    opened = open_engine(bundle, "onnxruntime", threads=1)
    lease = acquire("a key", lambda listener: opened)
    assert native_engine(bundle, lease) is opened.native
    lease.close()


def test_shapes_and_counts_of_a_run(bundle: Bundle) -> None:
    engine = native_engine(bundle, open_engine(bundle, "onnxruntime", threads=1))
    tile, rate = batch(bundle)
    for wrong in ([tile], [tile, rate[:1]], [tile[:, :, :100].copy(), rate], [], [rate, tile]):
        with pytest.raises(_kernels.EngineFailure, match=r"expected|another shape") as failure:
            engine.run(wrong)
        assert status_of(failure) == INVALID
    engine.close()
    with pytest.raises(_kernels.EngineFailure, match="a closed engine") as failure:
        engine.run([tile, rate])
    assert status_of(failure) == CLOSED


def test_a_library_that_is_missing_or_another(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openvino_engine, "library", lambda: str(tmp_path / "none.so"))
    with pytest.raises(EngineError, match=r"engine openvino: runtime: found .*none\.so: cannot open"):
        openvino_engine.OpenVinoEngine(bundle)
    monkeypatch.setattr(openvino_engine, "library", onnxruntime_engine.library)
    with pytest.raises(EngineError, match="no function ov_get_openvino_version"):
        openvino_engine.OpenVinoEngine(bundle)
    with pytest.raises(_kernels.EngineFailure) as failure:
        _kernels.Engine.open("openvino", onnxruntime_engine.library(), str(bundle.model_path))
    assert status_of(failure) == MISSING


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "nothing.onnx"
    path.write_bytes(tiny_onnx.model(3)[:200])
    with pytest.raises(_kernels.EngineFailure) as failure:
        _kernels.Engine.open("onnxruntime", onnxruntime_engine.library(), str(path))
    assert status_of(failure) == MODEL


def test_a_refused_version_lets_another_runtime_serve(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = _kernels.Engine.open

    def refusing(runtime: str, *options: object) -> _kernels.Engine:
        if runtime == "openvino":
            raise _kernels.EngineFailure(MISSING, "version: found 2026.4.1, expected a version before 2026")
        return real(runtime, *options)

    monkeypatch.setattr("wavesfm_core.engines.native.open_library", refusing)
    monkeypatch.setattr("wavesfm_core.engines.available_engines", lambda: ["openvino", "onnxruntime"])
    assert open_engine(bundle, "cpu").description.startswith("onnxruntime")
    with pytest.raises(EngineError, match=r"engine openvino: runtime: found version: found 2026\.4\.1"):
        open_engine(bundle, "openvino")
