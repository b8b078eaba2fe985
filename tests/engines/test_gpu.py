# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a GPU can show; skipped where there is none. scripts/gpu-check runs these on a machine that has one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.availability import (
    missing_for_onnxruntime_cuda,
    missing_for_tensorrt,
    unloadable_for_tensorrt,
)
from wavesfm_core.engines.onnxruntime import CUDA, OnnxRuntimeEngine, OnnxRuntimeSession, cuda_providers
from wavesfm_core.engines.standby import StandbyEngine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import EngineError
from wavesfm_core.preprocess.golden_inputs import golden_inputs

MISSING = missing_for_tensorrt() or unloadable_for_tensorrt()
MISSING_CUDA = missing_for_onnxruntime_cuda()
MODELS = sorted(path.parent for path in (Path(__file__).parents[2] / "models").glob(f"*/{SPEC}"))
COSINES = {"fp32": 0.99999, "bf16": 0.9995, "fp16": 0.9995, "int8": 0.98}

pytestmark = pytest.mark.gpu
needs_tensorrt = pytest.mark.skipif(bool(MISSING), reason=f"TensorRT: {MISSING}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def batch(bundle: Bundle, count: int) -> dict[str, np.ndarray]:
    golden = bundle.golden()
    rows = [i % len(golden.tiles) for i in range(count)]
    tiles = np.stack([np.roll(golden.tiles[row], i, axis=-1) for i, row in enumerate(rows)])
    return golden_inputs(bundle.spec, golden, rows, tiles)


@needs_tensorrt
@pytest.mark.parametrize("precision", COSINES)
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_every_shipped_bundle_in_every_precision(path: Path, precision: str) -> None:
    bundle = Bundle.open(path)
    inputs = batch(bundle, 37)
    expected = OnnxRuntimeEngine(bundle).run(inputs)
    engine = open_engine(bundle, "tensorrt", precision=precision)
    outputs = engine.run(inputs)
    for name, values in expected.items():
        a, b = outputs[name].ravel().astype(float), values.ravel().astype(float)
        assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) >= COSINES[precision]
    alone = [engine.run({name: values[i : i + 1] for name, values in inputs.items()}) for i in (0, 17, 36)]
    for i, one in zip((0, 17, 36), alone):
        for name, values in outputs.items():
            most = max(engine.relative_tolerance, 1e-3) * np.abs(values).max()
            np.testing.assert_allclose(one[name][0], values[i], rtol=0, atol=most)
    engine.close()


@needs_tensorrt
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_the_golden_outputs(path: Path) -> None:
    """In bf16; `scripts/gpu-check` compares the other precisions."""
    bundle = Bundle.open(path)
    engine = open_engine(bundle, "tensorrt", precision="bf16")
    assert replay_golden(bundle, engine).tiles > 0
    engine.close()


@needs_tensorrt
def test_memory_after_many_starts_and_stops_is_that_after_one(fake_bundle: Path) -> None:
    import pycuda.driver as cuda

    bundle, inputs = Bundle.open(fake_bundle), batch(Bundle.open(fake_bundle), 3)
    cuda.init()
    context = cuda.Device(0).retain_primary_context()

    def free_bytes() -> int:
        context.push()
        try:
            return int(cuda.mem_get_info()[0])
        finally:
            context.pop()

    left = []
    for _ in range(12):
        engine = open_engine(bundle, "tensorrt", precision="fp32")
        engine.run(inputs)
        engine.close()
        with pytest.raises(EngineError, match="a closed engine"):
            engine.run(inputs)
        left.append(free_bytes())
    assert abs(left[-1] - left[2]) <= 8 << 20


RETAINED = """
import ctypes, threading
from wavesfm_core.engines.cuda_driver import PyCudaDriver

def active():
    library, flags, state = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint(), ctypes.c_int()
    assert library.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(state)) == 0
    return state.value

def opened():
    drivers.append(PyCudaDriver())
    with drivers[-1].current():
        drivers[-1].memory()

for _ in range(3):
    drivers = []
    thread = threading.Thread(target=opened)
    thread.start()
    thread.join()
    assert active()
    drivers[0].close()
    assert not active()
"""


@needs_tensorrt
def test_the_primary_context_is_given_back_by_another_thread() -> None:
    """In a process of its own: TensorRT and others in this one keep the context for themselves."""
    done = subprocess.run([sys.executable, "-c", RETAINED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_tensorrt
def test_threads_that_are_not_the_ones_that_opened_it(fake_bundle: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    inputs, seen = batch(bundle, 5), {}

    def on_another_thread(name: str, work: Callable[[], Any]) -> None:
        thread = threading.Thread(target=lambda: seen.update({name: work()}))
        thread.start()
        thread.join()

    on_another_thread("engine", lambda: open_engine(bundle, "tensorrt", precision="fp32"))
    on_another_thread("first", lambda: seen["engine"].run(inputs))
    second = seen["engine"].run(inputs)
    on_another_thread("close", lambda: seen["engine"].close())
    np.testing.assert_array_equal(seen["first"]["logits"], second["logits"])
    assert set(seen) == {"engine", "first", "close"}


@needs_tensorrt
def test_the_cpu_serves_until_the_gpu_does(fake_bundle: Path) -> None:
    bundle, changes = Bundle.open(fake_bundle), []
    engine = open_engine(bundle, "tensorrt", on_change=changes.append)
    assert isinstance(engine, StandbyEngine)
    engine._thread.join(600)
    engine.run(batch(bundle, 2))
    assert (engine.state, engine.failures, len(changes)) == ("fast", 0, 1), engine.reason
    engine.close()


@pytest.mark.skipif(bool(MISSING_CUDA), reason=f"onnxruntime with CUDA: {MISSING_CUDA}")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_onnxruntime_on_the_gpu(path: Path) -> None:
    bundle = Bundle.open(path)
    try:
        engine = OnnxRuntimeSession(bundle, providers=cuda_providers(0))
    except EngineError as error:
        if error.field != CUDA:
            raise
        pytest.skip(str(error))  # it is installed, and CUDA or cuDNN is not
    assert replay_golden(bundle, engine).engine == engine.description
    assert "CUDA device 0" in engine.description
    engine.close()
