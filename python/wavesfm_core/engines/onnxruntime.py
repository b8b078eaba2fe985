"""ONNX Runtime on the CPU: the portable reference, float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, EngineError
from ..types import Tensor
from .base import RuntimeTensor, check_arrays, match_tensors

if TYPE_CHECKING:
    from ..bundle import Bundle


class OnnxRuntimeEngine:
    """Float32 on the CPU; see `Engine`. threads: of one operator, 0 for all cores."""

    relative_tolerance = 0.0

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "auto") -> None:
        if precision == "bf16":
            raise ConfigurationError("engine onnxruntime", "precision", precision, "f32 (openvino has bf16)")
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                "engine onnxruntime", "runtime", error, "pip install wavesfm-core[onnxruntime]"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # threads that spin between batches take the core on which the flowgraph computes its next tile
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(bundle.model_path), options, ["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise EngineError(
                bundle.model_path, "model", f"refused by onnxruntime ({error})"[:300], "an ONNX model"
            ) from error
        self._spec = bundle.spec
        match_tensors(bundle.model_path, "input", self._spec.inputs, map(_declared, self._session.get_inputs()))
        match_tensors(bundle.model_path, "output", self._spec.outputs, map(_declared, self._session.get_outputs()))
        self._outputs = [tensor.name for tensor in self._spec.outputs]
        self.description = f"onnxruntime {onnxruntime.__version__}, CPU, f32, threads: {threads or 'all'}"

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine onnxruntime", "input", self._spec.inputs, inputs)
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise EngineError("engine onnxruntime", "run", f"{error}"[:300], "outputs") from error
        outputs = dict(zip(self._outputs, results, strict=True))
        check_arrays("engine onnxruntime", "output", self._spec.outputs, outputs)
        return outputs


def _declared(node: Any) -> RuntimeTensor:
    shape = [size if isinstance(size, int) else None for size in node.shape]
    dtype = {"tensor(float)": "float32"}.get(node.type, node.type)
    return RuntimeTensor(node.name, shape, dtype)
