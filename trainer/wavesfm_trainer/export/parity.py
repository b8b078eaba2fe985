# SPDX-License-Identifier: GPL-3.0-or-later
"""The exported network against torch, and batches against single tiles."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.bundle import Bundle, write_bundle
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.engines import Engine, open_engine
from wavesfm_core.errors import BundleError, EngineError
from wavesfm_core.preprocess.golden_inputs import golden_inputs

from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask
from .export_job import ExportJob

ENGINES = ("onnxruntime", "openvino")
"""Engines to check with, in this order."""
BATCHES = (1, 2, 7)
"""Batch sizes to check with: no multiples of each other, so that a batch baked into the graph shows."""


def check_parity(job: ExportJob, onnx: bytes, golden: Golden) -> str:
    """Compare the exported network with torch.

    Parameters
    ----------
    job
        The export; its tolerance is that of every comparison.
    onnx
        The exported network.
    golden
        Tiles to compare on.

    Returns
    -------
    Description of the engine that gives torch's outputs.

    Raises
    ------
    BundleError
        Outputs differ from torch's or depend on the batch, or no engine here runs the model.
    """
    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(Path(scratch) / "bundle", job.spec, onnx, golden, "none")
        return matching_engine(bundle, job.trained, job.options.precision)


def matching_engine(bundle: Bundle, trained: TrainedTask, precision: str) -> str:
    """Description of the first of ENGINES that runs a bundle; see `check_parity`."""
    refusals = []
    for name in ENGINES:
        try:
            engine = open_engine(bundle, name, precision="f32")
            _check_batches(engine, bundle, trained)
            return engine.description
        except EngineError as error:  # missing, or it does not know an operator in this type
            refusals.append(f"{name} ({error.found})")
    found = f"a model in {precision} that no engine here runs: {'; '.join(refusals)}"
    expected = "an engine that runs it (pip install openvino runs bf16), or another precision"
    raise BundleError("export", f"precision {precision}", found, expected)


def _check_batches(engine: Engine, bundle: Bundle, trained: TrainedTask) -> None:
    golden, spec = bundle.golden(), bundle.spec
    count = max(BATCHES)
    rows = [i % len(golden.tiles) for i in range(count)]
    tiles = np.stack([np.roll(golden.tiles[row], i, axis=-1) for i, row in enumerate(rows)])  # no two are the same
    inputs = golden_inputs(spec, golden, rows, tiles)
    expected = TorchEngine(trained.model, trained.output).run(inputs)
    together = engine.run(inputs)
    for name, values in together.items():
        _require_equal(values, expected[name], f"{name} of ONNX against torch", spec.tolerance)
    for size in BATCHES[:-1]:
        pieces = [
            engine.run({key: value[first : first + size] for key, value in inputs.items()})
            for first in range(0, count, size)
        ]
        for name, values in together.items():
            single = np.concatenate([piece[name] for piece in pieces])
            _require_equal(single, values, f"{name} of batch {size} against batch {count}", spec.tolerance)


def _require_equal(a: NDArray, b: NDArray, comparison: str, tolerance: float) -> None:
    difference = float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError("export", comparison, f"a difference of {difference:.3g}", f"at most {tolerance:.3g}")
