# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorRT and TensorRT-RTX behind one interface, which hides the differences of the two and of TensorRT 10 and 11.

Both read ONNX, build a plan for profiles of shapes, and run it. TensorRT-RTX needs no GPU to build and can build for
several kinds of GPU at once; TensorRT builds for the GPU that is present. Networks are strongly typed in both.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...errors import ConfigurationError, EngineError
from ...packages import install_command
from ..base import RuntimeTensor

log = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""Modules, the preferred one first: TensorRT times kernels on the GPU that is present."""
INSTALL = f"{install_command('tensorrt_rtx')} (or NVIDIA's tensorrt)"
WORKSPACE_BYTES = 4 << 30
_MESSAGE_LIMIT = 300  # characters of a message of the library

# TensorRT's names of types, in the network and in the engine inspector, as precisions
_PRECISIONS = {
    "float": "fp32",
    "float32": "fp32",
    "fp32": "fp32",
    "half": "fp16",
    "float16": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "int8": "int8",
    "tf32": "tf32",
}

Progress = Callable[[str, int, int], object]
"""Called with phase, steps done and steps of the phase. Its exception ends the build."""


class PlanRefused(EngineError):
    """The library refuses a plan, as it was built for another GPU, driver or version."""


@dataclass(frozen=True)
class Profile:
    """Batches of a plan; the smallest is 1."""

    preferred: int
    """Batch for which the plan is tuned."""
    maximum: int
    """Largest batch."""

    def __post_init__(self) -> None:
        if not 1 <= self.preferred <= self.maximum <= 1 << 16:
            raise ConfigurationError(
                "profile", "batch", f"{self.preferred} of {self.maximum}", "1 <= preferred <= maximum"
            )


@dataclass(frozen=True)
class Build:
    """Result of a build."""

    plan: bytes
    """The plan."""
    products: Mapping[str, int]
    """Number of matrix products by precision, e.g. {"bf16": 37, "fp32": 3}; a strongly typed build keeps it."""
    warnings: tuple[str, ...] = ()
    """Different warnings of the library."""


class Library(Protocol):
    """Functions of a library that compiler and engine use; `open_library` returns a real one."""

    name: str
    """One of LIBRARIES."""
    version: str
    """Version of the library."""
    captures: bool
    """Whether its contexts capture CUDA graphs by themselves."""
    builds_ahead: bool
    """Whether it builds for GPUs that are not present."""

    def build(
        self, model: bytes, profile: Profile, targets: Sequence[str], portable: bool, progress: Progress | None
    ) -> Build:
        """Build a plan; raises EngineError with the library's message, ConfigurationError for unknown targets."""
        ...

    def deserialise(self, plan: bytes) -> Any:
        """Load a trusted plan, whose code is run, in the current CUDA context; raises PlanRefused."""
        ...

    def tensors(self, engine: Any) -> dict[str, list[RuntimeTensor]]:
        """Tensors of an engine under the keys "input" and "output"."""
        ...

    def context(self, engine: Any) -> Any:
        """Create an execution context (set_input_shape, set_tensor_address, execute_async_v3); raises EngineError."""
        ...

    def layer_precisions(self, engine: Any) -> dict[str, int]:
        """Number of layers by output precision, from the engine inspector; empty where it does not tell."""
        ...

    def last_error(self) -> str:
        """The library's last error message, or "no message"."""
        ...


@dataclass
class TensorRTLibrary:
    """`Library` of the module `tensorrt` or `tensorrt_rtx`."""

    name: str
    module: Any
    version: str = ""
    captures: bool = False
    builds_ahead: bool = False
    _runtime: Any = field(default=None, repr=False)
    _logger: Any = field(default=None, repr=False)
    _messages: list[tuple[int, str]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.version = str(self.module.__version__)
        self.captures = hasattr(self.module, "CudaGraphStrategy")
        self.builds_ahead = self.name == "tensorrt_rtx"
        self._logger = _make_logger(self.module, self._messages)

    def build(
        self,
        model: bytes,
        profile: Profile,
        targets: Sequence[str] = (),
        portable: bool = False,
        progress: Progress | None = None,
    ) -> Build:
        """See `Library.build`. targets: sm_86 etc. (TensorRT-RTX only); portable: for other GPUs too."""
        trt = self.module
        self._messages.clear()
        builder = trt.Builder(self._logger)
        if builder is None:
            raise EngineError(self.name, "builder", self.last_error(), "a builder")
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind in TensorRT 11
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model):
            reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise EngineError(
                self.name, "model", f"refused ({reasons or self.last_error()})"[:_MESSAGE_LIMIT], "an ONNX model"
            )
        config = builder.create_builder_config()
        self._configure(config, builder, network, profile)
        self._aim(config, targets, portable)
        monitor = _make_monitor(trt, progress) if progress is not None else None
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.error is not None:
            raise monitor.error
        if plan is None:
            raise EngineError(self.name, "build", self.last_error(), "a plan")
        warnings = tuple(dict.fromkeys(text for severity, text in self._messages if severity == _WARNING))
        return Build(bytes(plan), _products(trt, network), warnings)

    def _configure(self, config: Any, builder: Any, network: Any, profile: Profile) -> None:
        trt = self.module
        shapes = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            rest = tuple(tensor.shape)[1:]
            shapes.set_shape(tensor.name, (1, *rest), (profile.preferred, *rest), (profile.maximum, *rest))
        if config.add_optimization_profile(shapes) < 0:
            raise EngineError(self.name, "profile", self.last_error(), "inputs with a free batch")
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lets the built precisions be read back
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # its precision is lower than float32's
        if hasattr(trt.MemoryPoolType, "WORKSPACE"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)

    def _aim(self, config: Any, targets: Sequence[str], portable: bool) -> None:
        """Set the GPUs to build for; with neither targets nor portable, the one that is present."""
        trt = self.module
        if not self.builds_ahead:
            if targets:
                raise ConfigurationError(
                    self.name, "targets", ", ".join(targets), "none: it builds for the GPU that is present"
                )
            if portable:
                config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
            return
        if portable:
            return  # without a capability it builds for all GPUs from Ampere on
        kinds = trt.ComputeCapability
        chosen = [getattr(kinds, _kind(target), None) for target in targets] or [kinds.CURRENT]
        if None in chosen:
            known = sorted(name for name in dir(kinds) if name.startswith("SM"))
            expected = "of " + ", ".join(f"sm_{name[2:]}" for name in known)
            raise ConfigurationError(self.name, "targets", targets[chosen.index(None)], expected)
        config.num_compute_capabilities = len(chosen)
        for i, kind in enumerate(chosen):
            config.set_compute_capability(kind, i)

    def deserialise(self, plan: bytes) -> Any:
        """See `Library.deserialise`."""
        self._messages.clear()
        if self._runtime is None:  # kept, as it must outlive its engines
            self._runtime = self.module.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan) if self._runtime is not None else None
        if engine is None:
            raise PlanRefused(self.name, "plan", self.last_error(), "a plan for this GPU, driver and library")
        return engine

    def tensors(self, engine: Any) -> dict[str, list[RuntimeTensor]]:
        """See `Library.tensors`."""
        found: dict[str, list[RuntimeTensor]] = {"input": [], "output": []}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape = [None if size < 0 else int(size) for size in engine.get_tensor_shape(name)]
            precision = _precision(engine.get_tensor_dtype(name))
            dtype = "float32" if precision == "fp32" else precision
            is_input = engine.get_tensor_mode(name) == self.module.TensorIOMode.INPUT
            found["input" if is_input else "output"].append(RuntimeTensor(name, shape, dtype))
        return found

    def context(self, engine: Any) -> Any:
        """See `Library.context`."""
        if self.captures:
            settings = engine.create_runtime_config()
            settings.cuda_graph_strategy = self.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(settings)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise EngineError(self.name, "context", self.last_error(), "an execution context")
        return context

    def layer_precisions(self, engine: Any) -> dict[str, int]:
        """See `Library.layer_precisions`."""
        inspector = engine.create_engine_inspector()
        return read_layers(inspector.get_engine_information(self.module.LayerInformationFormat.JSON))

    def last_error(self) -> str:
        """See `Library.last_error`."""
        errors = [text for severity, text in self._messages if severity < _WARNING]
        return (errors[-1] if errors else "no message")[:_MESSAGE_LIMIT]


def read_layers(information: str) -> dict[str, int]:
    """Number of layers by the precision of their outputs, from the engine inspector's JSON.

    Layers without a type, and parts of the network that were fused as a whole, are left out.
    """
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and "ForeignNode" not in str(layer.get("Name", "")):
            types = [str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Outputs", [])]
            counts.update({_PRECISIONS[word] for text in types for word in text.lower().split() if word in _PRECISIONS})
    return dict(counts)


def find_libraries() -> dict[str, TensorRTLibrary]:
    """Libraries that can be imported, by name, the preferred one first."""
    found = {}
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: a wheel without its shared libraries
            log.debug("%s cannot be used: %s", name, error)
            continue
        if hasattr(module, "Builder"):
            found[name] = TensorRTLibrary(name, module)
    return found


def open_library(name: str = "auto", gpu: bool = True) -> TensorRTLibrary:
    """Import a library.

    Parameters
    ----------
    name : str
        "auto" or one of LIBRARIES.
    gpu : bool
        Whether a GPU is present; without one, "auto" prefers TensorRT-RTX, which can build nevertheless.

    Raises
    ------
    ConfigurationError
        Another name.
    EngineError
        No library can be imported.
    """
    if name not in ("auto", *LIBRARIES):
        raise ConfigurationError("engine tensorrt", "library", repr(name), "one of " + ", ".join(("auto", *LIBRARIES)))
    found = find_libraries()
    order: Iterator[str] = iter(LIBRARIES if gpu else LIBRARIES[::-1]) if name == "auto" else iter((name,))
    for candidate in order:
        if candidate in found:
            return found[candidate]
    missing = " or ".join(LIBRARIES) if name == "auto" else name
    raise EngineError("engine tensorrt", "library", f"no module {missing} that can be loaded", INSTALL)


def capability_name(text: str) -> str:
    """Normalise a target (sm_89, SM89 or 8.9) to "sm_89"; raises ConfigurationError."""
    digits = text.strip().lower().removeprefix("sm").removeprefix("_").replace(".", "")
    if not (digits.isascii() and digits.isdigit() and 2 <= len(digits) <= 3):
        raise ConfigurationError("compile", "target", repr(text), "a compute capability such as sm_89")
    return f"sm_{digits}"


def _kind(target: str) -> str:
    return "SM" + capability_name(target)[3:]


def _precision(dtype: object) -> str:
    name = str(dtype).rpartition(".")[2].lower()
    return _PRECISIONS.get(name, name)


def _products(trt: Any, network: Any) -> dict[str, int]:
    """Number of matrix products by precision; a product of two dequantised factors counts as int8."""
    makers = {}
    counts: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        for k in range(layer.num_outputs):
            makers[layer.get_output(k).name] = layer
        if layer.type != trt.LayerType.MATRIX_MULTIPLY:
            continue
        factors = [makers.get(layer.get_input(k).name) for k in range(2)]
        quantised = all(_is_dequantised(trt, factor, makers) for factor in factors)
        counts["int8" if quantised else _precision(layer.get_output(0).dtype)] += 1
    return dict(counts)


def _is_dequantised(trt: Any, layer: Any, makers: Mapping[str, Any]) -> bool:
    """Whether a layer dequantises, behind the reshapes that the parser inserts."""
    for _ in range(4):
        if layer is None or layer.type == trt.LayerType.DEQUANTIZE:
            return layer is not None
        if layer.type != trt.LayerType.SHUFFLE:
            return False
        layer = makers.get(layer.get_input(0).name)
    return False


_WARNING = 2  # TensorRT's severities: 0 internal error, 1 error, 2 warning, 3 information, 4 verbose


def _make_logger(trt: Any, messages: list[tuple[int, str]]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = int(severity)
            if level <= _WARNING:
                messages.append((level, message))
                # errors are raised as exceptions with the library's message
                log.log(logging.INFO if level < _WARNING else logging.WARNING, "%s", message)

    return Log()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            self._report(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return self.error is None

        def _report(self, phase: str, done: int, steps: int) -> None:
            if self.error is None:
                try:
                    progress(phase, done, steps)
                except BaseException as error:  # it must not pass through the library's C++ code
                    self.error = error

    return Monitor()
