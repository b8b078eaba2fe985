"""Inference runtimes behind one method; each imports its runtime only when it is opened."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, EngineError
from .base import Engine

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = ["Engine", "available_engines", "open_engine"]

log = logging.getLogger(__name__)

# name -> (the runtime's package, our module, its class); for `auto` and `cpu` in this order, fastest first
ENGINES = {
    "openvino": ("openvino", ".openvino", "OpenVinoEngine"),
    "onnxruntime": ("onnxruntime", ".onnxruntime", "OnnxRuntimeEngine"),
}
FASTEST = ("auto", "cpu")
PRECISIONS = ("auto", "f32", "bf16")


def available_engines() -> list[str]:
    """The engines whose runtime is installed, fastest first."""
    return [name for name, (package, _, _) in ENGINES.items() if importlib.util.find_spec(package) is not None]


def open_engine(bundle: Bundle, device: str = "auto", threads: int = 0, precision: str = "auto") -> Engine:
    """Open the bundle's model in a runtime; the engine's `description` says which, how precise, how many threads.

    device: `auto` or `cpu` (the fastest that is installed), or the name of an engine; threads: 0 for the runtime's
    choice; precision: `auto` (the fastest that the processor does natively, f32 or bf16), `f32`, `bf16`.
    Raises ConfigurationError for a wrong parameter, EngineError for a missing or failing runtime, BundleError where the
    ONNX file is not what the bundle says.
    """
    if device not in (*FASTEST, *ENGINES):
        raise ConfigurationError("engine", "device", repr(device), "one of " + ", ".join((*FASTEST, *ENGINES)))
    if precision not in PRECISIONS:
        raise ConfigurationError("engine", "precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    if threads < 0:
        raise ConfigurationError("engine", "threads", threads, "0 (the runtime's choice) or more")
    if device not in FASTEST:
        return _open(device, bundle, threads, precision)
    failures = []
    for name in available_engines():
        try:
            return _open(name, bundle, threads, precision)
        except EngineError as error:
            log.warning("%s cannot be used, trying the next engine: %s", name, error)
            failures.append(f"{name} ({error})")
    extras = " or ".join(f"wavesfm-core[{name}]" for name in ENGINES)
    raise EngineError(
        "engine", f"device {device}", "; ".join(failures) or "no inference runtime", f"one: pip install {extras}"
    )


def _open(name: str, bundle: Bundle, threads: int, precision: str) -> Engine:
    _, module, class_name = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module, __package__), class_name)(bundle, threads, precision)
    log.info("%s runs on %s", bundle.id, engine.description)
    return engine
