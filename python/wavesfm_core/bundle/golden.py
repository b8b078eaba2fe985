# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden tiles: inputs with the tiles and the outputs that they must give, read without trusting the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..types import Tensor
from .npz import load_arrays
from .spec import BundleSpec

GOLDEN_LIMIT = 64 << 20
"""Most bytes of the file, and of all its arrays together."""
TILES_LIMIT = 1024


@dataclass(frozen=True)
class Golden:
    """Inputs with which a bundle's model is tried, and the tiles and outputs that they must give."""

    inputs: tuple[NDArray[Any], ...]
    """n inputs of `prepare`: IQ complex64 [samples], arrays float32 [C, rows, columns] or grids complex64 [A, S, F]."""
    rate_hz: NDArray[np.float64]
    """Sample rates, float64 [n]; 0 where unknown."""
    tiles: tuple[Tensor, ...]
    """n prepared tiles, float32 [C, H, W]."""
    outputs: Mapping[str, Tensor]
    """Outputs of the model by name, float32 [n, ...]."""

    def save(self, path: Path, input_name: str) -> None:
        """Write a compressed npz: {input_name}_{i}, rate_hz, tile_{i}, out_{name}."""
        arrays: dict[str, NDArray[Any]] = {"rate_hz": np.asarray(self.rate_hz, np.float64)}
        arrays.update({f"{input_name}_{i}": np.asarray(a) for i, a in enumerate(self.inputs)})
        arrays.update({f"tile_{i}": np.asarray(a, np.float32) for i, a in enumerate(self.tiles)})
        arrays.update({f"out_{name}": np.asarray(a, np.float32) for name, a in self.outputs.items()})
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy types only its flags

    @classmethod
    def load(cls, path: Path, input_name: str) -> Golden:
        """Read a golden.npz without pickle, sizes checked from the headers first; raises BundleError."""
        arrays = load_arrays(path, GOLDEN_LIMIT, BundleError)
        if "rate_hz" not in arrays or arrays["rate_hz"].ndim != 1:
            found = "nothing" if "rate_hz" not in arrays else "a matrix"
            raise BundleError(path, "rate_hz", found, "one rate per tile")
        count = len(arrays["rate_hz"])
        if not 1 <= count <= TILES_LIMIT:
            raise BundleError(path, "rate_hz", f"{count} tiles", f"1 to {TILES_LIMIT}")
        for name in [f"{kind}_{i}" for kind in (input_name, "tile") for i in range(count)]:
            if name not in arrays:
                raise BundleError(path, name, "nothing", "an array")
        inputs = tuple(arrays[f"{input_name}_{i}"] for i in range(count))
        tiles = tuple(arrays[f"tile_{i}"] for i in range(count))
        outputs = {name[4:]: a for name, a in arrays.items() if name.startswith("out_")}
        return cls(inputs, arrays["rate_hz"], tiles, outputs)

    def check(self, spec: BundleSpec, path: Path) -> None:
        """Raise BundleError, naming the array, unless shapes and dtypes are what the spec's tensors say."""
        n = len(self.rate_hz)
        if not n or len(self.tiles) != n or len(self.inputs) != n:
            found = f"{n} rates, {len(self.inputs)} inputs, {len(self.tiles)} tiles"
            raise BundleError(path, "number of tiles", found, "equal numbers, at least 1")
        for i, array in enumerate(self.inputs):
            if expected := spec.preprocess.input_mismatch(array):
                name = f"{spec.preprocess.input_name}_{i}"
                raise BundleError(path, name, f"{array.dtype} {array.shape}", expected)
        tensors: dict[str, tuple[Tensor, tuple[int, ...]]] = {
            f"tile_{i}": (a, spec.preprocess.tile_shape) for i, a in enumerate(self.tiles)
        }
        for output in spec.outputs:
            if output.name not in self.outputs:
                raise BundleError(path, f"out_{output.name}", "nothing", "an array")
            tensors[f"out_{output.name}"] = (self.outputs[output.name], (n, *output.shape[1:]))
        for name, (array, shape) in tensors.items():
            if array.shape != shape or array.dtype != np.float32:
                raise BundleError(path, name, f"{array.dtype} {array.shape}", f"float32 {shape}")
