# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference runtimes behind one interface. A runtime is imported only when its engine is opened."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, EngineError
from ..packages import install_command
from ..types import Tensor
from .availability import cuda_devices, missing_for_onnxruntime_cuda, missing_for_tensorrt
from .base import Engine, RemoteAccounts
from .int8 import Int8Record, compile_int8, open_int8
from .kserve.address import FORM, is_kserve, parse_address
from .standby import EngineChange, FastKind, StandbyEngine

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

__all__ = ["Engine", "EngineChange", "available_engines", "open_engine"]

log = logging.getLogger(__name__)

ENGINES = {
    "openvino": ("openvino", ".openvino", "OpenVinoEngine"),
    "onnxruntime": ("onnxruntime", ".onnxruntime", "OnnxRuntimeEngine"),
}
"""Engines on the CPU, fastest first: name to the runtime's package, the module here and its class."""
DEVICES = ("auto", "cpu", "tensorrt", *ENGINES)
PRECISIONS = ("auto", "f32", "fp32", "bf16", "fp16", "int8")
GPU_PRECISIONS = ("fp16", "int8")
"""Precisions that "auto" has with TensorRT only; on the CPU, int8 is asked for by the device's name."""
SERVER = FastKind(
    "the server", "is being asked", "the server's model gives the golden outputs", reopen_s=5.0, daemon=True
)
"""A server that failed is asked again after 5 s, later after up to 320 s."""
Opener = Callable[[], Engine]


def available_engines() -> list[str]:
    """Names of the engines whose packages and devices are present, fastest first."""
    installed = [name for name, (package, _, _) in ENGINES.items() if importlib.util.find_spec(package) is not None]
    return installed if missing_for_tensorrt() else ["tensorrt", *installed]


def open_engine(
    bundle: Bundle,
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
    device_id: int = 0,
    on_change: Callable[[EngineChange], object] | None = None,
) -> Engine:
    """Open the bundle's model in a runtime.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    device : str
        "tensorrt"; "openvino" or "onnxruntime", both on the CPU; "cpu": the fastest of these two that is installed;
        "auto": TensorRT where its packages and a GPU are present, else onnxruntime on the GPU, else as "cpu";
        "kserve://HOST:PORT/MODEL": a server of the KServe v2 protocol, see `engines.kserve.address`. The CPU computes
        the batches that the server fails, unless the address says "fallback=off".
    threads : int
        Threads of an engine on the CPU; 0 for the runtime's choice.
    precision : str
        "auto" (the fastest that the hardware computes natively and that needs no calibration), "f32" or "fp32",
        "bf16"; with TensorRT also "fp16" and "int8". On the CPU, "int8" is a model that `wavesfm compile` made.
    device_id : int
        Index of the GPU.
    on_change : callable, optional
        For a caller that cannot wait while TensorRT compiles or a server answers: the engine is then a StandbyEngine,
        which runs on the CPU until the other engine is open, and calls this with each EngineChange. None: wait.

    Returns
    -------
    Engine
        Its `description` names runtime, device, precision and threads.

    Raises
    ------
    ConfigurationError
        A wrong parameter.
    EngineError
        A runtime that is missing or fails.
    BundleError
        The ONNX file is not the one of the bundle.
    """
    _check_options(device, threads, precision, device_id)
    bundle.require_model()  # a restarted flowgraph opens its engine again, but not its bundle
    precision = "f32" if precision == "fp32" else precision
    if is_kserve(device):
        return _open_kserve(bundle, device, threads, precision, on_change)
    openers = _gpu_openers(bundle, device, threads, precision, device_id)
    if not openers:
        return _open_cpu(bundle, device, threads, precision)
    if on_change is None:
        if device == "auto" and precision not in GPU_PRECISIONS:
            openers["cpu"] = partial(_open_cpu, bundle, device, threads, precision)
        return _first(bundle, device, openers)
    cpu_engine = _open_cpu(bundle, "cpu", threads, "f32" if precision == "f32" else "auto")
    return StandbyEngine(bundle, cpu_engine, partial(_first, bundle, device, openers), on_change)


def compile_for_cpu(
    bundle: Bundle, device: str = "cpu", inputs: Mapping[str, Tensor] | None = None, threads: int = 0
) -> Int8Record:
    """Make the bundle's model in int8 for an engine on the CPU, see `int8.compile_int8`."""
    return compile_int8(bundle, lambda model: _open_cpu(model, device, threads, "f32"), inputs)


def _check_options(device: str, threads: int, precision: str, device_id: int) -> None:
    if device not in DEVICES and not is_kserve(device):
        raise ConfigurationError("engine", "device", repr(device), "one of " + ", ".join((*DEVICES, FORM)))
    if precision not in PRECISIONS:
        raise ConfigurationError("engine", "precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    if threads < 0:
        raise ConfigurationError("engine", "threads", threads, "0 (the runtime's choice) or more")
    if device in ("cpu", *ENGINES) and precision == "fp16":
        raise ConfigurationError("engine", "precision", "fp16 on the CPU", "f32, bf16 or int8, or device tensorrt")
    if device_id < 0:
        raise ConfigurationError("engine", "device_id", device_id, "0 or more")
    if device == "tensorrt" and (missing := missing_for_tensorrt()):
        raise EngineError("engine tensorrt", "runtime", missing, "all that docs/tensorrt.md says how to install")
    if device in ("auto", "tensorrt") and device_id and 0 < (count := cuda_devices()) <= device_id:
        raise ConfigurationError("engine", "device_id", device_id, f"one of the {count} GPUs here, from 0")


def _gpu_openers(bundle: Bundle, device: str, threads: int, precision: str, device_id: int) -> dict[str, Opener]:
    """Functions that open the engines of a GPU that `device` allows and that are present, fastest first."""
    openers: dict[str, Opener] = {}
    if device in ("auto", "tensorrt"):
        if not (missing := missing_for_tensorrt()):
            openers["tensorrt"] = partial(_open_tensorrt, bundle, precision, device_id)
        elif precision in GPU_PRECISIONS:
            raise EngineError("engine", f"precision {precision}", missing, "TensorRT, which alone has it")
    if device == "auto" and precision in ("auto", "f32") and not missing_for_onnxruntime_cuda():
        openers["onnxruntime on the GPU"] = partial(_open_onnxruntime_cuda, bundle, threads, device_id)
    return openers


def _open_cpu(bundle: Bundle, device: str, threads: int, precision: str) -> Engine:
    if precision == "int8":
        return open_int8(bundle, lambda quantised: _open_cpu(quantised, device, threads, "f32"))
    if device in ENGINES:
        return _open(device, bundle, threads, precision)
    installed = [name for name in available_engines() if name in ENGINES]
    return _first(bundle, device, {name: partial(_open, name, bundle, threads, precision) for name in installed})


def _open_kserve(
    bundle: Bundle, device: str, threads: int, precision: str, on_change: Callable[[EngineChange], object] | None
) -> Engine:
    from .kserve.engine import KServeEngine

    address, remote = parse_address(device), RemoteAccounts()
    opener = partial(KServeEngine, bundle, address, precision, remote)
    if address.fallback == "off":
        return opener()
    cpu_engine = _open_cpu(bundle, "cpu", threads, "f32" if precision == "f32" else "auto")
    listener = on_change or (lambda change: None)  # the change is logged
    return StandbyEngine(bundle, cpu_engine, opener, listener, SERVER, wait=on_change is None, remote=remote)


def _first(bundle: Bundle, device: str, openers: Mapping[str, Opener]) -> Engine:
    """The first engine that can be opened."""
    failures = []
    for name, opener in openers.items():
        try:
            engine = opener()
            log.info("%s runs on %s", bundle.id, engine.description)
            return engine
        except (EngineError, ConfigurationError) as error:  # the latter for a cache or weights that do not suit
            if len(openers) == 1:
                raise
            log.warning("%s cannot be used, trying the next engine: %s", name, error)
            failures.append(f"{name} ({error})")
    found = "; ".join(failures) or "no inference runtime"
    raise EngineError("engine", f"device {device}", found, "one: " + " or ".join(map(install_command, ENGINES)))


def _open(name: str, bundle: Bundle, threads: int, precision: str) -> Engine:
    _, module, class_name = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module, __package__), class_name)(bundle, threads, precision)
    return engine


def _open_tensorrt(bundle: Bundle, precision: str, device_id: int) -> Engine:
    from .tensorrt.engine import TensorRTEngine

    return TensorRTEngine(bundle, "fp32" if precision == "f32" else precision, device_id)


def _open_onnxruntime_cuda(bundle: Bundle, threads: int, device_id: int) -> Engine:
    from .onnxruntime import OnnxRuntimeSession, cuda_providers

    return OnnxRuntimeSession(bundle, threads, "f32", cuda_providers(device_id))
