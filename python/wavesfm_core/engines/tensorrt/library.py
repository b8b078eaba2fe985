# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorRT and TensorRT-RTX behind one face: what differs between the two, and between TensorRT 10 and 11, is here.

Both read ONNX, build a plan for profiles of shapes, and run it. TensorRT-RTX needs no GPU to build and can build for
several kinds of GPU at once; TensorRT builds for the GPU that is there. Networks are strongly typed in both.
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

LIBRARIES = ("tensorrt", "tensorrt_rtx")  # the fuller one first: it times kernels on the GPU that is there
INSTALL = f"{install_command('tensorrt_rtx')} (or NVIDIA's tensorrt)"
WORKSPACE_BYTES = 4 << 30
_MESSAGE = 300  # characters

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

# progress(phase, steps done, steps of the phase); an exception that it raises ends the build
Progress = Callable[[str, int, int], object]


class PlanRefused(EngineError):
    """A plan that the library does not take: of another GPU, driver or version than it was built for."""


@dataclass(frozen=True)
class Profile:
    """Batches that a plan is built for: smallest 1, the one it is tuned for, and the largest."""

    preferred: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.preferred <= self.maximum <= 1 << 16:
            raise ConfigurationError(
                "profile", "batch", f"{self.preferred} of {self.maximum}", "1 <= preferred <= maximum"
            )


@dataclass(frozen=True)
class Build:
    """A plan fresh from the builder.

    products: how many matrix products of the network are in each precision, e.g. {"bf16": 37, "fp32": 3}, which a
    strongly typed build keeps; warnings: what the library said, without repetitions.
    """

    plan: bytes
    products: Mapping[str, int]
    warnings: tuple[str, ...] = ()


class Library(Protocol):
    """What compiler and engine need of a library; `open_library` gives a real one."""

    name: str
    version: str
    captures: bool  # whether its contexts capture CUDA graphs by themselves
    builds_ahead: bool  # whether it builds for GPUs that are not there

    def build(
        self, model: bytes, profile: Profile, targets: Sequence[str], portable: bool, progress: Progress | None
    ) -> Build:
        """Parse and build; raises EngineError with the library's own words, ConfigurationError for unknown targets."""
        ...

    def deserialise(self, plan: bytes) -> Any:
        """The engine of a trusted plan (whose code it runs), in the current CUDA context; raises PlanRefused."""
        ...

    def tensors(self, engine: Any) -> dict[str, list[RuntimeTensor]]:
        """Its "input"s and "output"s."""
        ...

    def context(self, engine: Any) -> Any:
        """A new execution context (set_input_shape, set_tensor_address, execute_async_v3); raises EngineError."""
        ...

    def layer_precisions(self, engine: Any) -> dict[str, int]:
        """Layers by the precision of what they give, from the engine inspector; empty where it does not say."""
        ...

    def last_error(self) -> str:
        """The library's last error message, or "no message"."""
        ...


@dataclass
class TensorRTLibrary:
    """A `Library` over the module `tensorrt` or `tensorrt_rtx`."""

    name: str
    module: Any
    version: str = ""
    captures: bool = False
    builds_ahead: bool = False
    _runtime: Any = field(default=None, repr=False)
    _logger: Any = field(default=None, repr=False)
    _said: list[tuple[int, str]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.version = str(self.module.__version__)
        self.captures = hasattr(self.module, "CudaGraphStrategy")
        self.builds_ahead = self.name == "tensorrt_rtx"
        self._logger = _make_logger(self.module, self._said)

    def build(
        self,
        model: bytes,
        profile: Profile,
        targets: Sequence[str] = (),
        portable: bool = False,
        progress: Progress | None = None,
    ) -> Build:
        """See `Library.build`. targets: sm_86 and the like (TensorRT-RTX only); portable: for other GPUs too."""
        trt = self.module
        self._said.clear()
        builder = trt.Builder(self._logger)
        if builder is None:
            raise EngineError(self.name, "builder", self.last_error(), "a builder")
        typed = getattr(
            trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None
        )  # in TensorRT 11 there is nothing else
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model):
            reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise EngineError(
                self.name, "model", f"refused ({reasons or self.last_error()})"[:_MESSAGE], "an ONNX model"
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
        warnings = tuple(dict.fromkeys(text for severity, text in self._said if severity == _WARNING))
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
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the built precisions can be read back
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # where the model says float32 it means it
        if hasattr(trt.MemoryPoolType, "WORKSPACE"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)

    def _aim(self, config: Any, targets: Sequence[str], portable: bool) -> None:
        """Say for which GPUs to build; with neither targets nor portable, for the one that is there."""
        trt = self.module
        if not self.builds_ahead:
            if targets:
                raise ConfigurationError(self.name, "targets", ", ".join(targets), "none: it builds for the GPU there")
            if portable:
                config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
            return
        if portable:
            return  # with none set it builds for all from Ampere on
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
        self._said.clear()
        if self._runtime is None:  # kept: it has to outlive its engines
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
        said = inspector.get_engine_information(self.module.LayerInformationFormat.JSON)
        return read_layers(said)

    def last_error(self) -> str:
        """See `Library.last_error`."""
        errors = [text for severity, text in self._said if severity < _WARNING]
        return (errors[-1] if errors else "no message")[:_MESSAGE]


def read_layers(information: str) -> dict[str, int]:
    """Layers by the precision of their outputs, from the engine inspector's JSON.

    Left out are layers that do not say, and parts of the network that were fused whole, whose outputs tell nothing.
    """
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and "ForeignNode" not in str(layer.get("Name", "")):
            said = [str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Outputs", [])]
            counts.update({_PRECISIONS[word] for text in said for word in text.lower().split() if word in _PRECISIONS})
    return dict(counts)


def find_libraries() -> dict[str, TensorRTLibrary]:
    """The libraries that can be imported here, by name, in the order in which they are to be preferred."""
    found = {}
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # a wheel without its shared libraries raises the latter
            log.debug("%s cannot be used: %s", name, error)
            continue
        if hasattr(module, "Builder"):
            found[name] = TensorRTLibrary(name, module)
    return found


def open_library(name: str = "auto", gpu: bool = True) -> TensorRTLibrary:
    """One library; name: `auto`, or one of LIBRARIES. gpu: whether there is one: without, only TensorRT-RTX can build.

    Raises ConfigurationError for another name and EngineError where there is none.
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
    """A target as it is kept, "sm_89", from sm_89, SM89 or 8.9; raises ConfigurationError."""
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
    """Products of the parsed network by precision; one whose factors are both dequantised integers counts as int8."""
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
    """Whether a layer dequantises, looked at through the reshapes that the parser puts in."""
    for _ in range(4):
        if layer is None or layer.type == trt.LayerType.DEQUANTIZE:
            return layer is not None
        if layer.type != trt.LayerType.SHUFFLE:
            return False
        layer = makers.get(layer.get_input(0).name)
    return False


_WARNING = 2  # TensorRT's severities: 0 internal error, 1 error, 2 warning, 3 information, 4 verbose


def _make_logger(trt: Any, said: list[tuple[int, str]]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = int(severity)
            if level <= _WARNING:
                said.append((level, message))
                # what went wrong is raised as an exception, with the library's words
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
            self._say(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            self._say(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._say(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return self.error is None

        def _say(self, phase: str, done: int, steps: int) -> None:
            if self.error is None:
                try:
                    progress(phase, done, steps)
                except BaseException as error:  # it must not pass through the library's C++
                    self.error = error

    return Monitor()
