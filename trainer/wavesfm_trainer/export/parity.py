# SPDX-License-Identifier: GPL-3.0-or-later
"""The exported network against torch, and batches against single tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines import Engine, open_engine
from wavesfm_core.errors import BundleError, EngineError
from wavesfm_core.preprocess.golden_inputs import golden_inputs

from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask

# How far outputs may be from torch's in float32, as a share of the largest; halves keep 11 and 8 bits.
TOLERANCES = {"fp32": 2e-4, "fp16": 1e-2, "bf16": 5e-2}


LEAST_OUTPUT = 0.1  # outputs smaller than this are held to this one's tolerance


ENGINES = ("onnxruntime", "openvino")  # tried in this order for the parity check


BATCHES = (1, 2, 7)  # no multiples of each other, so that a batch that was baked in shows


def check_parity(bundle: Bundle, trained: TrainedTask, precision: str) -> str:
    """Description of the engine that gives torch's outputs for BATCHES and the same for each; BundleError if none."""
    refusals = []
    for name in ENGINES:
        try:
            engine = open_engine(bundle, name, precision="f32")
            _check_batches(engine, bundle, trained)
            return engine.description
        except EngineError as error:  # missing, or it does not know an operator in this type
            refusals.append(f"{name} ({error.found})")
    what = f"a model in {precision} that no engine here runs: {'; '.join(refusals)}"
    expected = (
        "one that does (pip install openvino runs bf16), or another precision: what was not tried is not exported"
    )
    raise BundleError("export", f"precision {precision}", what, expected)


def _check_batches(engine: Engine, bundle: Bundle, trained: TrainedTask) -> None:
    golden, spec = bundle.golden(), bundle.spec
    count = max(BATCHES)
    rows = [i % len(golden.tiles) for i in range(count)]
    tiles = np.stack([np.roll(golden.tiles[row], i, axis=-1) for i, row in enumerate(rows)])  # no two are the same
    inputs = golden_inputs(spec, golden, rows, tiles)
    expected = TorchEngine(trained.model, trained.output).run(inputs)
    together = engine.run(inputs)
    for name, values in together.items():
        _refuse(values, expected[name], f"{name} of ONNX against torch", spec.tolerance)
    for size in BATCHES[:-1]:
        pieces = [
            engine.run({key: value[first : first + size] for key, value in inputs.items()})
            for first in range(0, count, size)
        ]
        for name, values in together.items():
            single = np.concatenate([piece[name] for piece in pieces])
            _refuse(single, values, f"{name} of batch {size} against batch {count}", spec.tolerance)


def _refuse(a: NDArray, b: NDArray, what: str, tolerance: float) -> None:
    difference = float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError("export", what, f"a difference of {difference:.3g}", f"at most {tolerance:.3g}")


def tolerance_of(precision: str, outputs: NDArray) -> float:
    return TOLERANCES[precision] * max(LEAST_OUTPUT, float(np.abs(outputs).max()))
