# SPDX-License-Identifier: GPL-3.0-or-later
"""Covariances of a channel over antennas, symbols and subcarriers, estimated from channels and kept in a file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_file import write_atomically
from ..errors import InputError
from .npz import load_arrays
from .ofdm_spec import OFDMSpec

FILE_LIMIT = 256 << 20
"""Most bytes of the file, and of its arrays together."""
TOLERANCE = 1e-4
"""Allowed deviation from a Hermitian matrix, and of an eigenvalue below 0, as a share of the mean eigenvalue."""
AXES = ("space", "time", "frequency")


@dataclass(frozen=True, eq=False)
class Covariances:
    """Covariance E[h_i conj(h_j)] of a channel [A, S, F] as a Kronecker product of one matrix for each axis.

    The matrices are scaled to a mean diagonal of 1. Singular ones, as from few channels, are valid.

    Raises
    ------
    InputError
        Names the matrix that is not square, finite, Hermitian or positive semidefinite within TOLERANCE.
    """

    space: NDArray[np.complex128]
    """Over antennas, complex128 [A, A]."""
    time: NDArray[np.complex128]
    """Over symbols, complex128 [S, S]."""
    frequency: NDArray[np.complex128]
    """Over subcarriers, complex128 [F, F]."""
    source: str = field(default="covariances", kw_only=True)
    """Name in errors: the file."""

    def __post_init__(self) -> None:
        for name in AXES:
            object.__setattr__(self, name, _checked(getattr(self, name), name))

    @classmethod
    def learn(cls, channels: Iterable[NDArray[np.complex64]]) -> Covariances:
        """Estimate the covariances as means over channels.

        Parameters
        ----------
        channels : iterable of ndarray
            Batches of channels, complex [n, A, S, F], of any mean power.

        Raises
        ------
        InputError
            No channels, batches of different shapes, or values that are not finite.
        """
        sums: list[NDArray[np.complex128]] = []
        shape: tuple[int, ...] = ()
        for i, batch in enumerate(channels):
            where = f"channels, batch {i}"
            if batch.ndim != 4 or batch.dtype.kind != "c" or not np.isfinite(batch).all():
                expected = "finite complex numbers [n, A, S, F]"
                raise InputError(where, "array", f"{batch.dtype} {batch.shape}, or NaN or infinity in it", expected)
            if shape and batch.shape[1:] != shape:
                raise InputError(where, "shape", batch.shape[1:], f"{shape}, as in earlier batches")
            shape = batch.shape[1:]
            grams = [_gram(batch, axis) for axis in (1, 2, 3)]
            sums = [a + b for a, b in zip(sums, grams)] if sums else grams
        if not sums:
            raise InputError("channels", "batches", "none", "one or more")
        return cls(*sums)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Antennas, symbols and subcarriers."""
        return len(self.space), len(self.time), len(self.frequency)

    def require(self, spec: OFDMSpec) -> None:
        """Raise InputError, naming source and matrix, unless their sizes are those of the numerology."""
        for name, found, expected in zip(AXES, self.shape, spec.grid_shape):
            if found != expected:
                raise InputError(
                    self.source, name, f"{found} x {found}", f"{expected} x {expected}, as the numerology has"
                )

    def to_bytes(self) -> bytes:
        """Contents of the npz file: space, time and frequency as complex64."""
        file = io.BytesIO()
        np.savez_compressed(file, **{name: getattr(self, name).astype(np.complex64) for name in AXES})
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the npz file; raises InputError where that fails."""
        try:
            write_atomically(path, self.to_bytes())
        except OSError as error:
            raise InputError(path, "file", error.strerror or error, "a file that can be written") from error

    @classmethod
    def load(cls, path: str | Path) -> Covariances:
        """Read an npz file without pickle, sizes checked before allocation; raises InputError, naming the matrix."""
        arrays = load_arrays(Path(path), FILE_LIMIT, InputError)
        for name in AXES:
            if name not in arrays:
                raise InputError(path, name, "nothing", "a matrix")
        try:
            return cls(*(arrays[name] for name in AXES), source=str(path))
        except InputError as error:
            raise InputError(path, error.field, error.found, error.expected) from None


def _gram(batch: NDArray[Any], axis: int) -> NDArray[np.complex128]:
    rows = np.moveaxis(batch, axis, 0).reshape(batch.shape[axis], -1)
    return (rows @ rows.conj().T).astype(np.complex128)


def _checked(matrix: NDArray[Any], name: str) -> NDArray[np.complex128]:
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError("covariances", name, f"shape {getattr(matrix, 'shape', None)}", "a square matrix")
    if matrix.dtype.kind not in "fc" or not np.isfinite(matrix).all():
        raise InputError("covariances", name, f"{matrix.dtype} with NaN or infinity, or no numbers", "finite numbers")
    power = float(np.trace(matrix).real) / len(matrix)
    if not power > 0:
        raise InputError("covariances", name, f"a mean diagonal of {power:g}", "a positive one")
    scaled = matrix.astype(np.complex128) / power
    apart = float(np.abs(scaled - scaled.conj().T).max())
    if apart > TOLERANCE:
        raise InputError("covariances", name, f"a matrix that differs by {apart:.3g} from its adjoint", "Hermitian")
    hermitian = (scaled + scaled.conj().T) / 2
    try:
        np.linalg.cholesky(hermitian + TOLERANCE * np.eye(len(hermitian)))
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(hermitian)[0])
        raise InputError("covariances", name, f"an eigenvalue of {least:.3g}", "positive definite") from None
    hermitian.setflags(write=False)
    return hermitian
