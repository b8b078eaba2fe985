# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of a model's activations on calibration tiles, for int8."""

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

TILES_LIMIT = 1 << 30
"""Most bytes of a calibration set."""


def activation_ranges(model: bytes, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest magnitude of each tensor that int8 quantises.

    Computed by onnxruntime on the CPU, tile by tile to bound the memory.

    Parameters
    ----------
    model : bytes
        The ONNX file.
    inputs : Mapping of str to ndarray
        Inputs of the model, float32 [B, ...].

    Returns
    -------
    dict of str to float
        By the name of the tensor; empty for a model without products of a transformer.

    Raises
    ------
    EngineError
        onnxruntime is missing or fails.
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
    """Read a calibration set.

    Parameters
    ----------
    path : Path
        npz with `tiles` float32 [n, C, H, W], optionally `rate_hz` [n] (0: unknown, the default) and, for pilot grids,
        `snr_db` [n].
    spec : BundleSpec
        Contract of the bundle.

    Returns
    -------
    dict of str to ndarray
        Inputs of the model by name.

    Raises
    ------
    InputError
        Missing arrays, another type or shape, or values that are not finite.
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
    """Hash of a calibration set, 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name in sorted(inputs):
        total.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        total.update(np.ascontiguousarray(inputs[name]).tobytes())
    return total.hexdigest()[:16]
