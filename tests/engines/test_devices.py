# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine a device means, on machines with and without a GPU; the GPU's own engines are stand-ins here."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.waiting import LONG_S
from wavesfm_core import engines
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines import availability as presence
from wavesfm_core.engines import available_engines, open_engine
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.onnxruntime import CPU, CUDA, OnnxRuntimeSession, cuda_providers
from wavesfm_core.engines.standby import StandbyEngine
from wavesfm_core.errors import ConfigurationError, EngineError

NO_GPU = "no NVIDIA driver with a GPU"


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


class Machine:
    """What the engines find: by default no library, no driver; `opened` holds how TensorRT's stand-in was opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self._patch = monkeypatch
        self.has(NO_GPU, NO_GPU)

    def has(self, missing_tensorrt: str, missing_cuda: str, gpus: int = 0) -> None:
        self._patch.setattr(engines, "missing_for_tensorrt", lambda: missing_tensorrt)
        self._patch.setattr(engines, "missing_for_onnxruntime_cuda", lambda: missing_cuda)
        self._patch.setattr(engines, "cuda_devices", lambda: gpus)
        self._patch.setitem(
            sys.modules, "wavesfm_core.engines.tensorrt.engine", SimpleNamespace(TensorRTEngine=self._open_tensorrt)
        )
        self._patch.setattr(OnnxRuntimeSession, "__init__", self._onnxruntime(OnnxRuntimeSession.__init__))

    def _open_tensorrt(self, bundle: Bundle, precision: str, device_id: int) -> FakeEngine:
        self.opened.append((precision, device_id))
        if self.failure is not None:
            raise self.failure
        engine = FakeEngine(bundle)
        engine.description = "tensorrt"
        engine.relative_tolerance = 1e6  # its outputs are no model's
        return engine

    def _onnxruntime(self, real: Any) -> Any:
        def init(
            engine: Any, bundle: Bundle, threads: int = 0, precision: str = "auto", providers: Any = (CPU,)
        ) -> None:
            real(engine, bundle, threads, precision)
            if providers[0] != CPU:
                engine.description = f"onnxruntime on {providers}"

        return init


@pytest.fixture()
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_without_a_gpu_auto_is_the_cpu(bundle: Bundle, machine: Machine) -> None:
    for precision in ("auto", "f32", "fp32"):
        engine = open_engine(bundle, "auto", precision=precision, on_change=print)
        assert engine.description.startswith(available_engines()[0]) and "CPU" in engine.description
        engine.close()
    assert machine.opened == [] and "tensorrt" not in available_engines()


def test_tensorrt_that_is_asked_for_says_what_is_missing(bundle: Bundle, machine: Machine) -> None:
    machine.has("neither tensorrt nor tensorrt_rtx, no pycuda", NO_GPU)
    with pytest.raises(EngineError, match=r"engine tensorrt: runtime: found neither .*, no pycuda, expected .*docs/"):
        open_engine(bundle, "tensorrt")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_the_cpu_has_not(bundle: Bundle, machine: Machine, precision: str) -> None:
    with pytest.raises(EngineError, match=f"precision {precision}: found {NO_GPU}, expected TensorRT"):
        open_engine(bundle, "auto", precision=precision)
    for device in ("cpu", "openvino", "onnxruntime"):
        with pytest.raises(ConfigurationError, match="precision: found fp16 on the CPU"):
            open_engine(bundle, device, precision="fp16")


@pytest.mark.parametrize(
    ("asked", "given"), [("auto", "auto"), ("f32", "fp32"), ("fp32", "fp32"), ("bf16", "bf16"), ("int8", "int8")]
)
def test_tensorrt_is_taken_where_it_is(bundle: Bundle, machine: Machine, asked: str, given: str) -> None:
    machine.has("", "", gpus=4)
    for device in ("auto", "tensorrt"):
        assert open_engine(bundle, device, precision=asked, device_id=3).description == "tensorrt"
    assert machine.opened == [(given, 3)] * 2
    assert available_engines()[0] == "tensorrt"


def test_a_gpu_that_is_not_there(bundle: Bundle, machine: Machine) -> None:
    machine.has("", "", gpus=2)
    with pytest.raises(ConfigurationError, match="device_id: found 2, expected one of the 2 GPUs"):
        open_engine(bundle, "tensorrt", device_id=2)
    with pytest.raises(ConfigurationError, match="device_id: found -1"):
        open_engine(bundle, device_id=-1)
    machine.has(NO_GPU, NO_GPU)
    assert "CPU" in open_engine(bundle, "auto", device_id=1).description


def test_onnxruntime_on_the_gpu_where_tensorrt_is_not(bundle: Bundle, machine: Machine) -> None:
    machine.has("no pycuda", "", gpus=2)
    engine = open_engine(bundle, "auto", device_id=1)
    assert engine.description == f"onnxruntime on {cuda_providers(1)}"
    assert "CPU" in open_engine(bundle, "auto", precision="bf16" if "openvino" in available_engines() else "f32",
                                device_id=1).description  # fmt: skip
    assert "CPU" in open_engine(bundle, "onnxruntime").description  # by its name it is the reference on the CPU


def test_auto_goes_on_where_tensorrt_cannot_be_opened_and_tensorrt_does_not(bundle: Bundle, machine: Machine) -> None:
    machine.has("", "no onnxruntime", gpus=1)
    for kind in (EngineError, ConfigurationError):
        machine.failure = kind("compiler", "plan", "smoke", "a plan")
        assert "CPU" in open_engine(bundle, "auto").description
        for options in ({"device": "tensorrt"}, {"device": "auto", "precision": "fp16"}):
            with pytest.raises(kind, match="smoke"):
                open_engine(bundle, **options)


@pytest.mark.parametrize("device", ["auto", "tensorrt"])
def test_a_live_caller_does_not_wait(bundle: Bundle, machine: Machine, device: str) -> None:
    machine.has("", "", gpus=1)
    changes: list[Any] = []
    engine = open_engine(bundle, device, precision="int8", on_change=changes.append)
    assert isinstance(engine, StandbyEngine)
    inputs = bundle_inputs(bundle.spec, np.zeros((1, 1, 224, 224), np.float32), np.zeros(1))
    engine._thread.join(LONG_S)
    engine.run(inputs)
    assert engine.description == "tensorrt"
    (change,) = changes
    assert "CPU" in change.was and change.now == "tensorrt"
    engine.close()


def test_a_live_caller_hears_that_none_could_be_opened(bundle: Bundle, machine: Machine) -> None:
    machine.has("", "no onnxruntime", gpus=1)
    machine.failure = EngineError("compiler", "plan", "smoke", "a plan")
    heard = threading.Event()
    engine = open_engine(bundle, "tensorrt", on_change=lambda change: heard.set())
    assert heard.wait(LONG_S)
    assert "smoke" in engine.description and engine.description.startswith(available_engines()[1])
    engine.close()


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    found = importlib.util.find_spec
    pretended = {"tensorrt", "tensorrt_rtx", "pycuda"}
    monkeypatch.setattr(
        presence.importlib.util,
        "find_spec",
        lambda name, *rest: (ModuleType(name) if name in packages else None) if name in pretended else found(name),
    )


@pytest.mark.parametrize(
    ("packages", "gpus", "missing"),
    [
        ((), 0, f"neither tensorrt nor tensorrt_rtx, no pycuda, {NO_GPU}"),
        (("tensorrt_rtx",), 1, "no pycuda"),
        (("tensorrt", "pycuda"), 0, NO_GPU),
        (("tensorrt", "pycuda"), 1, ""),
    ],
)
def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], gpus: int, missing: str) -> None:
    installed(monkeypatch, *packages)
    monkeypatch.setattr(presence, "cuda_devices", lambda: gpus)
    assert presence.missing_for_tensorrt() == missing


class Driver:
    """libcuda.so.1 as ctypes gives it."""

    def __init__(self, init: int, count: int, status: int = 0) -> None:
        self.cuInit = lambda flags: init
        self._count, self._status = count, status

    def cuDeviceGetCount(self, reference: Any) -> int:
        reference._obj.value = self._count
        return self._status


@pytest.mark.parametrize(
    ("driver", "count"), [(Driver(0, 2), 2), (Driver(100, 2), 0), (Driver(0, 2, status=3), 0), (None, 0)]
)
def test_cuda_devices(monkeypatch: pytest.MonkeyPatch, driver: Driver | None, count: int) -> None:
    def load(name: str) -> Driver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert presence.cuda_devices() == count


class Session:
    """An onnxruntime session; taken: the providers that it says it runs on."""

    taken: tuple[str, ...] = (CUDA, CPU)

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        self.providers = providers

    def get_providers(self) -> list[str]:
        return list(self.taken)

    def get_inputs(self) -> list[Any]:
        shapes = {"tile": ["b", 1, 224, 224], "log10_rate": ["b", 1]}
        return [SimpleNamespace(name=name, shape=shape, type="tensor(float)") for name, shape in shapes.items()]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits", shape=["b", 3], type="tensor(float)")]

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.full((len(inputs["tile"]), 3), 7, np.float32)]


@pytest.fixture()
def cuda_session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    return Session


def test_onnxruntime_with_cuda(
    bundle: Bundle, cuda_session: type[Session], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"), raising=False)
    OnnxRuntimeSession(bundle)
    assert "libcudnn" not in capsys.readouterr().err  # only for the GPU
    engine = OnnxRuntimeSession(bundle, providers=cuda_providers(1))
    assert engine._session.providers == [(CUDA, {"device_id": "1", "use_tf32": "0"}), CPU]
    said = capsys.readouterr()
    assert (said.out, said.err.count("libcudnn")) == ("", 1)  # stdout is the command's own
    assert "CUDA device 1, f32" in engine.description and engine.relative_tolerance == 0
    inputs = bundle_inputs(bundle.spec, np.zeros((2, 1, 224, 224), np.float32), np.zeros(2))
    assert engine.run(inputs)["logits"].shape == (2, 3)
    engine.close()
    with pytest.raises(EngineError, match="a closed engine"):
        engine.run(inputs)


def test_onnxruntime_that_goes_to_the_cpu_in_silence(
    bundle: Bundle, cuda_session: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_session, "taken", (CPU,))
    with pytest.raises(EngineError, match=f"{CUDA}: found only {CPU}"):
        OnnxRuntimeSession(bundle, providers=cuda_providers(0))


def test_whether_onnxruntime_has_cuda(cuda_session: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert presence.missing_for_onnxruntime_cuda() in ("", NO_GPU)
    monkeypatch.setattr(presence, "cuda_devices", lambda: 1)
    assert presence.missing_for_onnxruntime_cuda() == ""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert "not onnxruntime-gpu" in presence.missing_for_onnxruntime_cuda()
    monkeypatch.setattr(presence, "cuda_devices", lambda: 0)
    assert presence.missing_for_onnxruntime_cuda() == NO_GPU
