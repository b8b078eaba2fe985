"""Golden tiles: IQ or arrays with the tile and the outputs that they must give, read without trusting the file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from .errors import BundleError
from .spec import BundleSpec
from .types import Samples, Tensor

GOLDEN_LIMIT = 64 << 20  # bytes, of the file and of all its arrays together
TILES_LIMIT = 1024


@dataclass(frozen=True)
class Golden:
    """What a bundle's model is tried with: n inputs, and what they must give.

    iq: n arrays complex64 [any length], none for a bundle of images; rate_hz: float64 [n], 0 unknown and for images;
    tiles: n arrays float32 [C, H, W]; outputs: by output name, float32 [n, ...];
    arrays: n arrays float32 [C, rows, columns], none for a bundle of spectrograms.
    """

    iq: tuple[Samples, ...]
    rate_hz: np.ndarray
    tiles: tuple[Tensor, ...]
    outputs: Mapping[str, Tensor]
    arrays: tuple[Tensor, ...] = ()

    @property
    def inputs(self) -> tuple[Samples, ...] | tuple[Tensor, ...]:
        """What `prepare` takes: the arrays where there are any, else the IQ."""
        return self.arrays or self.iq

    def save(self, path: Path) -> None:
        """Write as a compressed npz: iq_{i} or array_{i}, rate_hz, tile_{i}, out_{name}."""
        arrays = {"rate_hz": np.asarray(self.rate_hz, np.float64)}
        arrays.update({f"iq_{i}": np.asarray(a, np.complex64) for i, a in enumerate(self.iq)})
        arrays.update({f"array_{i}": np.asarray(a, np.float32) for i, a in enumerate(self.arrays)})
        arrays.update({f"tile_{i}": np.asarray(a, np.float32) for i, a in enumerate(self.tiles)})
        arrays.update({f"out_{name}": np.asarray(a, np.float32) for name, a in self.outputs.items()})
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy types only its flags

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Read a golden.npz without pickle, sizes checked from the headers first; raises BundleError."""
        arrays = _load_arrays(path)
        if "rate_hz" not in arrays or arrays["rate_hz"].ndim != 1:
            raise BundleError(
                path, "rate_hz", "nothing" if "rate_hz" not in arrays else "a matrix", "one rate per tile"
            )
        count = len(arrays["rate_hz"])
        if not 1 <= count <= TILES_LIMIT:
            raise BundleError(path, "rate_hz", f"{count} tiles", f"1 to {TILES_LIMIT}")
        source = "array" if "array_0" in arrays else "iq"
        for name in [f"{kind}_{i}" for kind in (source, "tile") for i in range(count)]:
            if name not in arrays:
                raise BundleError(path, name, "nothing", "an array")
        inputs = tuple(arrays[f"{source}_{i}"] for i in range(count))
        tiles = tuple(arrays[f"tile_{i}"] for i in range(count))
        outputs = {name[4:]: a for name, a in arrays.items() if name.startswith("out_")}
        if source == "array":
            return cls((), arrays["rate_hz"], tiles, outputs, inputs)
        return cls(inputs, arrays["rate_hz"], tiles, outputs)

    def check(self, spec: BundleSpec, path: Path) -> None:
        """Raise BundleError, naming the array, unless shapes and dtypes are what the spec's tensors say."""
        n = len(self.rate_hz)
        counts = {"pieces of IQ": len(self.iq), "arrays": len(self.arrays), "tiles": len(self.tiles)}
        source, other = ("arrays", "pieces of IQ") if spec.preprocess.kind == "image" else ("pieces of IQ", "arrays")
        if not n or counts != {source: n, other: 0, "tiles": n}:
            found = f"{n} rates, " + ", ".join(f"{count} {name}" for name, count in counts.items())
            raise BundleError(path, "number of tiles", found, f"equal numbers, at least 1, and no {other}")
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
        for i, iq in enumerate(self.iq):
            if iq.ndim != 1 or iq.dtype != np.complex64:
                raise BundleError(path, f"iq_{i}", f"{iq.dtype} {iq.shape}", "complex64, one dimension")
        channels = spec.preprocess.tile_shape[0]
        for i, array in enumerate(self.arrays):
            if array.ndim != 3 or array.shape[0] != channels or array.dtype != np.float32:
                expected = f"float32 [{channels}, rows, columns]"
                raise BundleError(path, f"array_{i}", f"{array.dtype} {array.shape}", expected)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > GOLDEN_LIMIT:
                raise BundleError(path, "size of the arrays", f"{total} bytes", f"at most {GOLDEN_LIMIT} bytes")
            return {m.filename.removesuffix(".npy"): _load_array(archive, m, path) for m in members}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise BundleError(path, "contents", f"an unreadable archive ({error})"[:200], "numpy arrays (npz)") from None


def _load_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size  # Python's integers do not overflow
    if dtype.hasobject or claimed > member.file_size:
        found = "Python objects" if dtype.hasobject else f"{claimed} bytes in a member of {member.file_size}"
        raise BundleError(path, member.filename, found, "an array of numbers that is all there")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
