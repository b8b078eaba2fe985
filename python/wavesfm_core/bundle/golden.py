# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden tiles: inputs with the tile and the outputs that they must give, read without trusting the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..types import Samples, Tensor
from .npz import load_arrays
from .spec import BundleSpec, PilotGridSpec

GOLDEN_LIMIT = 64 << 20  # bytes, of the file and of all its arrays together
TILES_LIMIT = 1024
_INPUTS = {"spectrogram": "pieces of IQ", "image": "arrays", "pilot_grid": "grids"}


@dataclass(frozen=True)
class Golden:
    """What a bundle's model is tried with: n inputs, and what they must give.

    iq: n arrays complex64 [any length], for a bundle of spectrograms only; rate_hz: float64 [n], 0 where unknown;
    tiles: n arrays float32 [C, H, W]; outputs: by output name, float32 [n, ...];
    arrays: n arrays float32 [C, rows, columns], for a bundle of images only; grids: n grids complex64 [A, S, F], for a
    bundle of pilot grids only, which has no iq.
    """

    iq: tuple[Samples, ...]
    rate_hz: np.ndarray
    tiles: tuple[Tensor, ...]
    outputs: Mapping[str, Tensor]
    arrays: tuple[Tensor, ...] = ()
    grids: tuple[NDArray[np.complex64], ...] = ()

    @property
    def inputs(self) -> tuple[Samples, ...] | tuple[Tensor, ...]:
        """What `prepare` takes: the arrays or the grids where there are any, else the IQ."""
        return self.arrays or self.grids or self.iq

    def snr_db(self, spec: BundleSpec) -> NDArray[np.float64] | None:
        """What the grids' pilots say, in dB, float64 [n]; None for other bundles. Raises InputError for bad grids."""
        if not isinstance(spec.preprocess, PilotGridSpec):
            return None
        from ..preprocess.pilot_grid import observe  # here, so that reading a bundle needs no compiled kernels

        return observe(np.stack(self.grids), spec.preprocess.numerology).snr_db

    def save(self, path: Path) -> None:
        """Write as a compressed npz: iq_{i}, array_{i} or grid_{i}, rate_hz, tile_{i}, out_{name}."""
        arrays = {"rate_hz": np.asarray(self.rate_hz, np.float64)}
        arrays.update({f"iq_{i}": np.asarray(a, np.complex64) for i, a in enumerate(self.iq)})
        arrays.update({f"array_{i}": np.asarray(a, np.float32) for i, a in enumerate(self.arrays)})
        arrays.update({f"grid_{i}": np.asarray(a, np.complex64) for i, a in enumerate(self.grids)})
        arrays.update({f"tile_{i}": np.asarray(a, np.float32) for i, a in enumerate(self.tiles)})
        arrays.update({f"out_{name}": np.asarray(a, np.float32) for name, a in self.outputs.items()})
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy types only its flags

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Read a golden.npz without pickle, sizes checked from the headers first; raises BundleError."""
        arrays = load_arrays(path, GOLDEN_LIMIT, BundleError)
        if "rate_hz" not in arrays or arrays["rate_hz"].ndim != 1:
            raise BundleError(
                path, "rate_hz", "nothing" if "rate_hz" not in arrays else "a matrix", "one rate per tile"
            )
        count = len(arrays["rate_hz"])
        if not 1 <= count <= TILES_LIMIT:
            raise BundleError(path, "rate_hz", f"{count} tiles", f"1 to {TILES_LIMIT}")
        source = next((name for name in ("array", "grid") if f"{name}_0" in arrays), "iq")
        for name in [f"{kind}_{i}" for kind in (source, "tile") for i in range(count)]:
            if name not in arrays:
                raise BundleError(path, name, "nothing", "an array")
        inputs = tuple(arrays[f"{source}_{i}"] for i in range(count))
        tiles = tuple(arrays[f"tile_{i}"] for i in range(count))
        outputs = {name[4:]: a for name, a in arrays.items() if name.startswith("out_")}
        iq, images, grids = (inputs if source == name else () for name in ("iq", "array", "grid"))
        return cls(iq, arrays["rate_hz"], tiles, outputs, images, grids)

    def check(self, spec: BundleSpec, path: Path) -> None:
        """Raise BundleError, naming the array, unless shapes and dtypes are what the spec's tensors say."""
        n = len(self.rate_hz)
        counts = {"pieces of IQ": len(self.iq), "arrays": len(self.arrays), "grids": len(self.grids)}
        source = _INPUTS[spec.preprocess.kind]
        if not n or len(self.tiles) != n or counts != {name: n if name == source else 0 for name in counts}:
            listed = {**counts, "tiles": len(self.tiles)}
            found = f"{n} rates, " + ", ".join(f"{m} {name}" for name, m in listed.items())
            others = " and no ".join(name for name in counts if name != source)
            raise BundleError(path, "number of tiles", found, f"equal numbers, at least 1, and no {others}")
        expected: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {
            f"tile_{i}": (a, spec.preprocess.tile_shape) for i, a in enumerate(self.tiles)
        }
        for output in spec.outputs:
            if output.name not in self.outputs:
                raise BundleError(path, f"out_{output.name}", "nothing", "an array")
            expected[f"out_{output.name}"] = (self.outputs[output.name], (n, *output.shape[1:]))
        for name, (array, shape) in expected.items():
            if array.shape != shape or array.dtype != np.float32:
                raise BundleError(path, name, f"{array.dtype} {array.shape}", f"float32 {shape}")
        self._check_inputs(spec, path)

    def _check_inputs(self, spec: BundleSpec, path: Path) -> None:
        if isinstance(spec.preprocess, PilotGridSpec):
            shape = spec.preprocess.numerology.grid_shape
            for i, grid in enumerate(self.grids):
                if grid.shape != shape or grid.dtype != np.complex64:
                    raise BundleError(path, f"grid_{i}", f"{grid.dtype} {grid.shape}", f"complex64 {shape}")
        for i, iq in enumerate(self.iq):
            if iq.ndim != 1 or iq.dtype != np.complex64:
                raise BundleError(path, f"iq_{i}", f"{iq.dtype} {iq.shape}", "complex64, one dimension")
        channels = spec.preprocess.tile_shape[0]
        for i, array in enumerate(self.arrays):
            if array.ndim != 3 or array.shape[0] != channels or array.dtype != np.float32:
                expected = f"float32 [{channels}, rows, columns]"
                raise BundleError(path, f"array_{i}", f"{array.dtype} {array.shape}", expected)
