# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine is, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..bundle.spec import TensorSpec
from ..errors import BundleError, EngineError
from ..types import Tensor


class Engine(Protocol):
    """One model in one runtime, used by one thread at a time.

    description: runtime, device, precision and threads, for people; relative_tolerance: how far outputs may differ from
    float32, as a part of the largest output (0 for float32 engines).
    """

    @property
    def description(self) -> str: ...

    @property
    def relative_tolerance(self) -> float: ...

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, float32 [B, ...], for the bundle's inputs by name; raises EngineError."""
        ...

    def close(self) -> None:
        """Free all that the runtime holds, while no run is under way; closing twice does no harm.

        A run afterwards raises EngineError; `description` and `relative_tolerance` stay.
        """
        ...


def closed(engine: str) -> EngineError:
    """What a closed engine's run raises."""
    return EngineError(engine, "run", "a closed engine", "an open one")


class RuntimeTensor(NamedTuple):
    """A tensor as a runtime declares it: None in shape for a dynamic size; dtype as numpy names it."""

    name: str
    shape: Sequence[int | None]
    dtype: str


def match_tensors(model: Path, kind: str, declared: Iterable[TensorSpec], found: Iterable[RuntimeTensor]) -> None:
    """Raise BundleError, naming the tensor, unless the model's inputs or outputs are those that the bundle declares.

    The batch must be dynamic; another dynamic size is taken to fit, what comes out of it is checked at each run.
    """
    there = {tensor.name: tensor for tensor in found}
    names = [tensor.name for tensor in declared]
    for name in there:
        if name not in names:
            raise BundleError(
                model, f"{kind} {name}", "a tensor that bundle.json does not name", "one of " + ", ".join(names)
            )
    for tensor in declared:
        if tensor.name not in there:
            raise BundleError(model, f"{kind} {tensor.name}", "only " + (", ".join(there) or "none"), "this tensor")
        runtime = there[tensor.name]
        if runtime.dtype != "float32":
            raise BundleError(model, f"{kind} {tensor.name} dtype", runtime.dtype, "float32")
        if not _fits(tensor.shape, runtime.shape):
            shape = tuple(-1 if size is None else size for size in runtime.shape)
            raise BundleError(model, f"{kind} {tensor.name} shape", shape, f"{tensor.shape} as bundle.json says")


def _fits(declared: Sequence[int], found: Sequence[int | None]) -> bool:
    if len(declared) != len(found) or found[0] is not None:
        return False
    return all(there is None or size == there for size, there in zip(declared[1:], found[1:], strict=True))


def check_arrays(engine: str, kind: str, declared: Iterable[TensorSpec], arrays: Mapping[str, Tensor]) -> None:
    """Raise EngineError, naming the tensor, unless all arrays are there, float32, of the declared shapes."""
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
