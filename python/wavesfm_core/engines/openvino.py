# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVINO on the CPU: bf16 where the processor computes it natively, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError
from ..packages import install_command
from ..types import Tensor
from .base import RuntimeTensor, check_arrays, closed, match_tensors

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

FIRST_REFUSED = (2026, 0)
"""First version that writes past blocks of the heap while it compiles some models; so do all up to 2026.4.1."""
BF16_RELATIVE_TOLERANCE = 0.05
"""Allowed difference as a share of the largest output: bf16 keeps 8 bits, and the errors of a dozen layers add up."""


class OpenVinoEngine:
    """See `Engine`; the CPU plugin tuned for latency.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    threads : int
        Threads; 0 for all cores.
    precision : str
        "auto", "f32" or "bf16".

    Raises
    ------
    EngineError
        openvino is missing or of a version from FIRST_REFUSED on, or refuses the model.
    BundleError
        The model's tensors are not those of bundle.json.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "auto") -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError("engine openvino", "runtime", error, install_command("openvino")) from error
        version = openvino.__version__.split("-")[0]
        if tuple(map(int, version.split(".")[:2])) >= FIRST_REFUSED:
            raise EngineError(
                "engine openvino", "version", version, "a version before 2026: later ones corrupt the heap"
            )
        try:
            core = openvino.Core()
            native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = ("bf16" if native else "f32") if precision == "auto" else precision
            settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            if threads:
                settings["INFERENCE_NUM_THREADS"] = threads
            model = core.read_model(bundle.model_path)
            self._match(bundle, model)
            compiled = core.compile_model(model, "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                bundle.model_path, "model", f"refused by openvino ({error})"[:300], "an ONNX model"
            ) from error
        self._spec = bundle.spec
        self.relative_tolerance = BF16_RELATIVE_TOLERANCE if precision == "bf16" else 0.0
        self.description = f"openvino {version}, CPU, {precision}, threads: {threads or 'all'}"

    @staticmethod
    def _match(bundle: Bundle, model: Any) -> None:
        match_tensors(bundle.model_path, "input", bundle.spec.inputs, map(_declared, model.inputs))
        match_tensors(bundle.model_path, "output", bundle.spec.outputs, map(_declared, model.outputs))

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine openvino", "input", self._spec.inputs, inputs)
        if self._request is None:
            raise closed("engine openvino")
        try:
            results = self._request.infer(dict(inputs), share_inputs=True)
            # copied, since the next run's results are written into the same memory
            outputs = {t.name: np.array(results[t.name], np.float32) for t in self._spec.outputs}
        except RuntimeError as error:
            raise EngineError("engine openvino", "run", f"{error}"[:300], "outputs") from error
        check_arrays("engine openvino", "output", self._spec.outputs, outputs)
        return outputs

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None


def _declared(port: Any) -> RuntimeTensor:
    shape = [None if size.is_dynamic else size.get_length() for size in port.partial_shape]
    name = {"f32": "float32"}.get(port.element_type.get_type_name(), port.element_type.get_type_name())
    return RuntimeTensor(port.any_name, shape, name)
