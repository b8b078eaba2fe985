# SPDX-License-Identifier: GPL-3.0-or-later
"""ONNX Runtime in float32: the reference on the CPU, and the engine of a GPU without TensorRT."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, EngineError
from ..packages import install_command
from ..types import Tensor
from .base import RuntimeTensor, check_arrays, closed, match_tensors
from .native import NativeEngine

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle


CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, str]]


def cuda_providers(device_id: int) -> list[Provider]:
    """Providers of an engine on a GPU; without TF32, whose precision is lower than float32's."""
    return [(CUDA, {"device_id": str(device_id), "use_tf32": "0"}), CPU]


class OnnxRuntimeEngine(NativeEngine):
    """See `Engine`; float32 on the CPU.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    threads : int
        Threads of one operator; 0 for all cores.
    precision : str
        "auto" or "f32", which are the same.

    Raises
    ------
    EngineError
        onnxruntime is missing or refuses the model.
    BundleError
        The model's tensors are not those of bundle.json.
    ConfigurationError
        Another precision.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "auto") -> None:
        _require_f32(precision)
        super().__init__(bundle, "onnxruntime", library(), threads, "f32")


def library() -> str:
    """Return the path of ONNX Runtime's shared library in the installed package.

    Raises
    ------
    EngineError
        The package is missing, or has no such library.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("engine onnxruntime", "runtime", "no package onnxruntime", install_command("onnxruntime"))
    folder = Path(spec.submodule_search_locations[0], "capi")
    found = [path for path in sorted(folder.glob("libonnxruntime.so*")) if path.is_file()]
    if not found:
        raise EngineError("engine onnxruntime", "runtime", f"no libonnxruntime.so in {folder}", "the wheel's library")
    return str(found[-1])


class OnnxRuntimeSession:
    """See `Engine`; float32 on any execution provider, through the runtime's Python binding.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    threads : int
        Threads of one operator; 0 for all cores.
    precision : str
        "auto" or "f32", which are the same.
    providers : sequence
        Execution providers of onnxruntime, the wanted one first.

    Raises
    ------
    EngineError
        onnxruntime is missing, refuses the model, or dropped the first provider, which it only logs.
    BundleError
        The model's tensors are not those of bundle.json.
    ConfigurationError
        Another precision.
    """

    relative_tolerance = 0.0

    def __init__(
        self, bundle: Bundle, threads: int = 0, precision: str = "auto", providers: Sequence[Provider] = (CPU,)
    ) -> None:
        _require_f32(precision)
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError("engine onnxruntime", "runtime", error, install_command("onnxruntime")) from error
        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if wanted == CUDA and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(sys.stderr):  # it prints the libraries that it does not find
                onnxruntime.preload_dlls()  # CUDA and cuDNN installed by pip, outside the loader's path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # threads that spin between batches take the core on which the flowgraph computes its next tile
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(str(bundle.model_path), options, list(providers))
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise EngineError(
                bundle.model_path, "model", f"refused by onnxruntime ({error})"[:300], "an ONNX model"
            ) from error
        if wanted not in (taken := self._session.get_providers()):
            raise EngineError("engine onnxruntime", wanted, f"only {', '.join(taken)}", "its libraries, see the log")
        self._spec = bundle.spec
        match_tensors(bundle.model_path, "input", self._spec.inputs, map(_declared, self._session.get_inputs()))
        match_tensors(bundle.model_path, "output", self._spec.outputs, map(_declared, self._session.get_outputs()))
        self._outputs = [tensor.name for tensor in self._spec.outputs]
        self.description = (
            f"onnxruntime {onnxruntime.__version__}, {_place(providers[0])}, f32, threads: {threads or 'all'}"
        )

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine onnxruntime", "input", self._spec.inputs, inputs)
        if self._session is None:
            raise closed("engine onnxruntime")
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise EngineError("engine onnxruntime", "run", f"{error}"[:300], "outputs") from error
        outputs = dict(zip(self._outputs, results, strict=True))
        check_arrays("engine onnxruntime", "output", self._spec.outputs, outputs)
        return outputs

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None


def _require_f32(precision: str) -> None:
    if precision not in ("auto", "f32"):
        raise ConfigurationError("engine onnxruntime", "precision", precision, "f32 (openvino has bf16)")


def _place(provider: Provider) -> str:
    return "CPU" if isinstance(provider, str) else f"CUDA device {provider[1]['device_id']}"


def _declared(node: Any) -> RuntimeTensor:
    shape = [size if isinstance(size, int) else None for size in node.shape]
    dtype = {"tensor(float)": "float32"}.get(node.type, node.type)
    return RuntimeTensor(node.name, shape, dtype)
