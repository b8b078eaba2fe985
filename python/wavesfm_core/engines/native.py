# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines of the C++ library: a runtime's shared library is loaded and called without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .. import _kernels
from ..errors import EngineError
from ..types import Tensor
from .base import Engine, RuntimeTensor, check_arrays, closed, match_tensors
from .shared import EngineLease

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

MISSING, MODEL = 2, 3
"""Status of an EngineFailure, see include/gnuradio/wavesfm/engine.h: no library, a model that is refused."""


open_library = _kernels.Engine.open  # a name that tests can replace


class NativeEngine:
    """See `Engine`; a model in a runtime whose shared library the C++ library loads.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    runtime : {"openvino", "onnxruntime"}
        Name of the runtime.
    library : str
        Path or name of its shared library.
    threads : int
        Threads; 0 for the runtime's choice.
    precision : str
        "auto", "f32" or "bf16".

    Raises
    ------
    EngineError
        The library is missing, of a refused version, or refuses the model.
    BundleError
        The model's tensors are not those of bundle.json.
    """

    relative_tolerance = 0.0

    def __init__(self, bundle: Bundle, runtime: str, library: str, threads: int, precision: str) -> None:
        self._name, self._spec = f"engine {runtime}", bundle.spec
        try:
            native = open_library(runtime, library, str(bundle.model_path), precision, threads)
        except _kernels.EngineFailure as failure:
            status, text = failure.args
            if status == MODEL:
                found = f"refused by {runtime} ({text})"[:300]
                raise EngineError(bundle.model_path, "model", found, "an ONNX model") from failure
            raise EngineError(self._name, "runtime", text[:300], "a library that works") from failure
        match_tensors(bundle.model_path, "input", bundle.spec.inputs, map(_declared, native.inputs))
        match_tensors(bundle.model_path, "output", bundle.spec.outputs, map(_declared, native.outputs))
        self._inputs = [name for name, _ in native.inputs]
        self._outputs = [name for name, _ in native.outputs]
        self.native: _kernels.Engine | None = native
        self.description = f"{runtime} {native.version}, CPU, {native.precision}, threads: {threads or 'all'}"

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays(self._name, "input", self._spec.inputs, inputs)
        if self.native is None:
            raise closed(self._name)
        try:
            outputs = self.native.run([np.ascontiguousarray(inputs[name]) for name in self._inputs])
        except _kernels.EngineFailure as failure:
            raise EngineError(self._name, "run", failure.args[1][:300], "outputs") from failure
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """See `Engine.close`."""
        native, self.native = self.native, None
        if native is not None:
            native.close()


def native_engine(bundle: Bundle, engine: Engine) -> _kernels.Engine:
    """Return an engine as the C++ library takes it.

    A NativeEngine, shared or not, is called without the interpreter; any other engine is called back with one take of
    the interpreter's lock a batch.

    Parameters
    ----------
    bundle : Bundle
        Names and shapes of the tensors.
    engine : Engine
        An open engine. Its owner closes it.

    Returns
    -------
    _kernels.Engine
        Inputs and outputs in the order of its `inputs` and `outputs`.
    """
    inner = engine.engine if isinstance(engine, EngineLease) else engine
    if isinstance(inner, NativeEngine) and inner.native is not None:
        return inner.native
    inputs, outputs = (
        [(t.name, list(t.shape)) for t in tensors] for tensors in (bundle.spec.inputs, bundle.spec.outputs)
    )
    return _kernels.Engine.wrap(engine, engine.description, inputs, outputs)


def _declared(tensor: tuple[str, list[int]]) -> RuntimeTensor:
    name, shape = tensor
    return RuntimeTensor(name, [None if size < 0 else size for size in shape], "float32")
