# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine interface, and checks that all engines share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..bundle.spec import TensorSpec
from ..errors import BundleError, EngineError
from ..types import Tensor


class Engine(Protocol):
    """One model in one runtime, used by one thread at a time."""

    @property
    def description(self) -> str:
        """Runtime, device, precision and threads, for people."""
        ...

    @property
    def relative_tolerance(self) -> float:
        """Allowed difference from float32 outputs as a share of the largest output; 0 for float32 engines."""
        ...

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one batch.

        Parameters
        ----------
        inputs : Mapping of str to ndarray
            float32 [B, ...] by the name of the bundle's input; B is 1 or more.

        Returns
        -------
        dict of str to ndarray
            float32 [B, ...] by the name of the output.

        Raises
        ------
        EngineError
            An input of another type or shape, a failure of the runtime, or a closed engine.
        """
        ...

    def close(self) -> None:
        """Free the memory of the runtime, while no run is under way. Closing twice does no harm.

        A later run raises EngineError; `description` and `relative_tolerance` stay.
        """
        ...


@dataclass
class RemoteAccounts:
    """Requests to a server since the engine was opened, over all its connections."""

    requests: int = 0
    """Requests sent, retries and the ones for metadata among them."""
    retries: int = 0
    """Of these, repetitions of a request that failed."""
    failures: int = 0
    """Batches, or openings, that the server failed for good: the CPU computed these batches, or they failed."""
    seconds: float = 0.0
    """Time spent waiting for answers."""


def closed(engine: str) -> EngineError:
    """The error of a run of a closed engine."""
    return EngineError(engine, "run", "a closed engine", "an open one")


class RuntimeTensor(NamedTuple):
    """A tensor as a runtime declares it."""

    name: str
    """Name of the input or output."""
    shape: Sequence[int | None]
    """Sizes; None for a dynamic size."""
    dtype: str
    """Type as numpy names it."""


def match_tensors(model: Path | str, kind: str, declared: Iterable[TensorSpec], found: Iterable[RuntimeTensor]) -> None:
    """Raise BundleError unless the model's inputs or outputs are those that the bundle declares.

    The batch must be dynamic. Another dynamic size is taken to fit: each run checks the shapes of its arrays.

    Parameters
    ----------
    model : Path or str
        The ONNX file or the server's address, for errors.
    kind : str
        "input" or "output", for errors.
    declared : iterable of TensorSpec
        Tensors of bundle.json.
    found : iterable of RuntimeTensor
        Tensors of the runtime.
    """
    present = {tensor.name: tensor for tensor in found}
    names = [tensor.name for tensor in declared]
    for name in present:
        if name not in names:
            raise BundleError(
                model, f"{kind} {name}", "a tensor that bundle.json does not name", "one of " + ", ".join(names)
            )
    for tensor in declared:
        if tensor.name not in present:
            raise BundleError(model, f"{kind} {tensor.name}", "only " + (", ".join(present) or "none"), "this tensor")
        runtime = present[tensor.name]
        if runtime.dtype != "float32":
            raise BundleError(model, f"{kind} {tensor.name} dtype", runtime.dtype, "float32")
        if not _fits(tensor.shape, runtime.shape):
            shape = tuple(-1 if size is None else size for size in runtime.shape)
            raise BundleError(model, f"{kind} {tensor.name} shape", shape, f"{tensor.shape} as bundle.json says")


def _fits(declared: Sequence[int], found: Sequence[int | None]) -> bool:
    if len(declared) != len(found) or found[0] is not None:
        return False
    return all(actual is None or size == actual for size, actual in zip(declared[1:], found[1:], strict=True))


def check_arrays(engine: str, kind: str, declared: Iterable[TensorSpec], arrays: Mapping[str, Tensor]) -> None:
    """Raise EngineError, naming the tensor, unless all arrays are present, float32 and of the declared shapes."""
    batches = set()
    for tensor in declared:
        array = arrays.get(tensor.name)
        if array is None:
            raise EngineError(engine, f"{kind} {tensor.name}", "nothing", "an array")
        if array.dtype != np.float32 or array.shape[1:] != tensor.shape[1:] or array.ndim != len(tensor.shape):
            raise EngineError(
                engine, f"{kind} {tensor.name}", f"{array.dtype} {array.shape}", f"float32 {tensor.shape}"
            )
        batches.add(len(array))
    if len(batches) > 1 or 0 in batches:
        raise EngineError(engine, f"{kind} batch", sorted(batches), "one size of at least 1")


def check_finite(engine: str, outputs: Mapping[str, Tensor]) -> None:
    """Raise EngineError, naming the output, unless all values are finite."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise EngineError(engine, f"output {name}", "NaN or infinity", "finite values")
