"""How large a model's activations become on calibration tiles, which int8 needs to know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ..errors import EngineError
from ..types import Tensor
from .typed_onnx import activations, exposing


def activation_ranges(model: bytes, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest magnitude of each tensor that int8 quantises, over a batch of the model's inputs by name.

    Computed by onnxruntime on the CPU, tile by tile, so that memory stays small. Raises EngineError.
    """
    try:
        import onnxruntime
    except ImportError as error:
        expected = "for the calibration of int8: pip install wavesfm-core[onnxruntime]"
        raise EngineError("calibration", "runtime", error, expected) from error
    names = activations(model)
    if not names:
        return {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(exposing(model, names), options, ["CPUExecutionProvider"])
        wanted = {tensor.name for tensor in session.get_inputs()}
        largest = np.zeros(len(names))
        for i in range(len(next(iter(inputs.values())))):
            one = {name: array[i : i + 1] for name, array in inputs.items() if name in wanted}
            largest = np.maximum(largest, np.array(session.run(None, one), np.float64))
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise EngineError("calibration", "run", f"{error}"[:300], "activations of the model") from error
    return dict(zip(names, map(float, largest), strict=True))


def digest(inputs: Mapping[str, Tensor]) -> str:
    """Names a calibration set: two of different contents are different calibrations."""
    total = hashlib.sha256()
    for name in sorted(inputs):
        total.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        total.update(np.ascontiguousarray(inputs[name]).tobytes())
    return total.hexdigest()[:16]
