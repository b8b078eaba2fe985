# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a model's activations become on calibration tiles, which int8 needs to know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...bundle.bundle import bundle_inputs
from ...bundle.npz import load_arrays
from ...bundle.spec import BundleSpec
from ...errors import EngineError, InputError
from ...packages import install_command
from ...types import Tensor

TILES_LIMIT = 1 << 30  # bytes


def activation_ranges(model: bytes, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest magnitude of each tensor that int8 quantises, over a batch of the model's inputs by name.

    Computed by onnxruntime on the CPU, tile by tile, so that memory stays small. Raises EngineError.
    """
    try:
        import onnxruntime
    except ImportError as error:
        expected = "for the calibration of int8: " + install_command("onnxruntime")
        raise EngineError("calibration", "runtime", error, expected) from error
    from .mixed_precision import activations, with_range_outputs  # which needs the package onnx

    names = activations(model)
    if not names:
        return {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(with_range_outputs(model, names), options, ["CPUExecutionProvider"])
        wanted = {tensor.name for tensor in session.get_inputs()}
        largest = np.zeros(len(names))
        for i in range(len(next(iter(inputs.values())))):
            one = {name: array[i : i + 1] for name, array in inputs.items() if name in wanted}
            largest = np.maximum(largest, np.array(session.run(None, one), np.float64))
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise EngineError("calibration", "run", f"{error}"[:300], "activations of the model") from error
    return dict(zip(names, map(float, largest), strict=True))


def read_tiles(path: Path, spec: BundleSpec) -> dict[str, Tensor]:
    """A user's calibration set as the model's inputs by name: an npz with `tiles` float32 [n, C, H, W].

    `rate_hz` [n] (0: unknown, which is taken where there is none) and, for pilot grids, `snr_db` [n] go with it.
    Raises InputError.
    """
    arrays = load_arrays(path, TILES_LIMIT, InputError, ("tiles", "rate_hz", "snr_db"))
    tiles, shape = arrays.get("tiles"), spec.preprocess.tile_shape
    if tiles is None or tiles.ndim != 4 or tiles.shape[1:] != shape or tiles.dtype != np.float32 or not len(tiles):
        found = "nothing" if tiles is None else f"{tiles.dtype} {tiles.shape}"
        raise InputError(path, "tiles", found, f"float32 (n, {', '.join(map(str, shape))}), n at least 1")
    for name in ("rate_hz", "snr_db"):
        if name in arrays and (arrays[name].shape != tiles.shape[:1] or arrays[name].dtype.kind not in "fiu"):
            raise InputError(path, name, f"{arrays[name].dtype} {arrays[name].shape}", f"{len(tiles)} numbers")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(path, "values", "NaN or infinity", "finite numbers")
    return bundle_inputs(spec, tiles, arrays.get("rate_hz", np.zeros(len(tiles))), arrays.get("snr_db"))


def digest(inputs: Mapping[str, Tensor]) -> str:
    """Names a calibration set: two of different contents are different calibrations."""
    total = hashlib.sha256()
    for name in sorted(inputs):
        total.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        total.update(np.ascontiguousarray(inputs[name]).tobytes())
    return total.hexdigest()[:16]
