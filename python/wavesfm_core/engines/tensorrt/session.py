# SPDX-License-Identifier: GPL-3.0-or-later
"""Execution of a plan on a GPU: buffers, streams, CUDA graphs."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.spec import BundleSpec, TensorSpec
from ...errors import EngineError
from ...types import Tensor
from ..base import check_arrays, closed, match_tensors
from .cuda import CudaDriver
from .library import Library, Profile

log = logging.getLogger(__name__)

ENGINE = "engine tensorrt"
SPLIT_FROM = 16
"""Tiles from which on a batch is run in two parts, so that the second is copied while the first runs."""
PINNED_LIMIT = 64 << 20
"""Most bytes of the inputs of one buffer set; bounds the largest batch."""
PREFERRED, MAXIMUM = 8, 64
"""Batch for which a plan is tuned, and its largest batch."""


def profile_of(spec: BundleSpec, max_batch: int | None = None) -> Profile:
    """Profile of a bundle: batch 1, PREFERRED, and at most max_batch (None: MAXIMUM, less for very large tiles)."""
    if max_batch is None:
        tile_bytes = 4 * sum(math.prod(tensor.shape[1:]) for tensor in spec.inputs)
        max_batch = max(1, min(MAXIMUM, PINNED_LIMIT // tile_bytes))
    return Profile(min(PREFERRED, max_batch), max_batch)


def parts(batch: int, maximum: int) -> list[slice]:
    """Split a batch into nearly equal runs of at most `maximum` tiles, two or more from SPLIT_FROM on."""
    n = max(math.ceil(batch / maximum), 2 if batch >= SPLIT_FROM else 1)
    return [slice(batch * i // n, batch * (i + 1) // n) for i in range(n)]


@dataclass
class _Buffers:
    """One buffer set and the events that order its use."""

    host: dict[str, Tensor]
    """Page-locked arrays by tensor."""
    device: dict[str, Any]
    """Device memory by tensor."""
    copied: Any
    """Event: the inputs are on the device."""
    done: Any
    """Event: the outputs are on the host."""
    graphs: dict[int, Any] = field(default_factory=dict)
    """CUDA graphs by batch."""


class GpuSession:
    """One plan with an execution context, two streams (input copies and the rest) and two buffer sets.

    Used by one thread at a time, of any identity: each call pushes and pops the CUDA context.

    Parameters
    ----------
    plan : bytes
        Trusted plan, see `plan_cache`.
    spec : BundleSpec
        Contract of the bundle.
    model : Path
        The bundle's ONNX file, for errors.
    profile : Profile
        Batches of the plan.
    library : Library
        Library that built the plan.
    driver : CudaDriver
        The GPU. It is not closed with the session.

    Raises
    ------
    EngineError
        The plan cannot be loaded or run.
    BundleError
        The plan's tensors are not the bundle's.
    """

    memory_bytes: int
    """Memory of the GPU that the session took."""

    def __init__(
        self, plan: bytes, spec: BundleSpec, model: Path, profile: Profile, library: Library, driver: CudaDriver
    ) -> None:
        self._spec, self._profile, self._library, self._driver = spec, profile, library, driver
        self._tensors = (*spec.inputs, *spec.outputs)
        self._graph_contexts: dict[int, Any] = {}
        self._stack = contextlib.ExitStack()
        with self._driver.current(), contextlib.ExitStack() as stack:
            free, _ = driver.memory()
            stack.callback(self._forget)
            self._engine: Any = library.deserialise(plan)
            found = library.tensors(self._engine)
            match_tensors(model, "input", spec.inputs, found["input"])
            match_tensors(model, "output", spec.outputs, found["output"])
            self._context: Any = library.context(self._engine)
            self._copies, self._runs = driver.stream(), driver.stream()
            self._buffers = [self._make_buffers(stack) for _ in range(2)]
            stack.callback(self._settle)
            self._captures = not library.captures
            self._warm_up()
            self.memory_bytes = free - driver.memory()[0]
            self._stack = stack.pop_all()

    def layer_precisions(self) -> dict[str, int]:
        """Number of layers by precision, see `Library.layer_precisions`."""
        with self._driver.current():
            return self._library.layer_precisions(self._engine)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`; a batch above the profile's largest is run in parts."""
        if self._engine is None:
            raise closed(ENGINE)
        check_arrays(ENGINE, "input", self._spec.inputs, inputs)
        batch = len(next(iter(inputs.values())))
        outputs = {t.name: np.empty((batch, *t.shape[1:]), np.float32) for t in self._spec.outputs}
        with self._driver.current(), self._settled_on_failure():
            waiting: list[tuple[_Buffers, slice]] = []
            for i, part in enumerate(parts(batch, self._profile.maximum)):
                if len(waiting) == len(self._buffers):
                    self._collect(*waiting.pop(0), outputs)
                buffers = self._buffers[i % len(self._buffers)]
                self._start(buffers, inputs, part)
                waiting.append((buffers, part))
            for buffers, part in waiting:
                self._collect(buffers, part, outputs)
        return outputs

    def close(self) -> None:
        """Free all memory, while no run is under way. Closing twice does no harm."""
        if self._engine is not None:
            with self._driver.current():
                self._stack.close()

    def _start(self, buffers: _Buffers, inputs: Mapping[str, Tensor], part: slice) -> None:
        """Enqueue a part: into page-locked buffers, to the device, through the engine, and back."""
        driver, n = self._driver, part.stop - part.start
        for tensor in self._spec.inputs:
            host = buffers.host[tensor.name][:n]
            np.copyto(host, inputs[tensor.name][part])
            driver.upload(buffers.device[tensor.name], host, self._copies)
        driver.record(buffers.copied, self._copies)
        driver.wait(self._runs, buffers.copied)
        if (graph := buffers.graphs.get(n)) is not None:
            driver.launch(graph, self._runs)
        else:
            self._enqueue(self._context, buffers, n)
        driver.record(buffers.done, self._runs)

    def _collect(self, buffers: _Buffers, part: slice, outputs: dict[str, Tensor]) -> None:
        self._driver.synchronise(buffers.done)
        for name, output in outputs.items():
            output[part] = buffers.host[name][: part.stop - part.start]

    def _enqueue(self, context: Any, buffers: _Buffers, n: int) -> None:
        """Enqueue the engine's run and the copies of the outputs on their stream."""
        for tensor in self._spec.inputs:
            if not context.set_input_shape(tensor.name, (n, *tensor.shape[1:])):
                raise self._failed(f"input {tensor.name}, batch {n}")
        for tensor in self._tensors:
            if not context.set_tensor_address(tensor.name, int(buffers.device[tensor.name])):
                raise self._failed(f"address of {tensor.name}")
        if not context.execute_async_v3(self._driver.stream_handle(self._runs)):
            raise self._failed(f"run of batch {n}")
        for output in self._spec.outputs:
            self._driver.download(buffers.host[output.name][:n], buffers.device[output.name], self._runs)

    def _warm_up(self) -> None:
        """Run each batch of the profile once in both buffer sets, and capture it as a graph if the library does not.

        A graph keeps state of its execution context, so each batch has a separate context.
        """
        most = self._profile.maximum
        split = {part.stop - part.start for part in parts(most, most)}
        for n in sorted({1, self._profile.preferred, most, *split}):
            for buffers in self._buffers:
                zeros = {t.name: np.zeros((n, *t.shape[1:]), np.float32) for t in self._spec.inputs}
                self._start(buffers, zeros, slice(0, n))
                self._driver.synchronise(buffers.done)
            if self._captures:
                self._capture(n)

    def _capture(self, n: int) -> None:
        driver = self._driver
        try:
            context = self._graph_contexts[n] = self._library.context(self._engine)
            for buffers in self._buffers:
                self._enqueue(context, buffers, n)  # once without capturing: a capture must not load modules
                driver.synchronise(self._runs)
                driver.begin_capture(self._runs)
                try:
                    self._enqueue(context, buffers, n)
                finally:
                    graph = driver.end_capture(self._runs)
                buffers.graphs[n] = graph
        except EngineError as error:
            log.warning("batch %d runs without a CUDA graph: %s", n, error)
            self._captures = False

    def _make_buffers(self, stack: contextlib.ExitStack) -> _Buffers:
        driver, most = self._driver, self._profile.maximum
        host: dict[str, Tensor] = {}
        device: dict[str, Any] = {}
        for tensor in self._tensors:
            array = driver.pinned((most, *tensor.shape[1:]))
            stack.callback(driver.free_pinned, array)
            memory = driver.allocate(_n_bytes(tensor, most))
            stack.callback(driver.free, memory)
            host[tensor.name], device[tensor.name] = array, memory
        buffers = _Buffers(host, device, driver.event(), driver.event())
        stack.callback(self._free_graphs, buffers)
        return buffers

    def _free_graphs(self, buffers: _Buffers) -> None:
        while buffers.graphs:
            self._driver.free_graph(buffers.graphs.popitem()[1])

    def _forget(self) -> None:
        """Drop the contexts before their engine: the last reference frees each."""
        self._graph_contexts.clear()
        self._context = self._copies = self._runs = None
        self._buffers = []
        self._engine = None

    def _settle(self) -> None:
        """Wait until nothing uses the buffers any more, even after a failure."""
        for stream in (self._copies, self._runs):
            try:
                self._driver.synchronise(stream)
            except Exception as error:  # the context is broken: only freeing is left
                log.warning("%s: %s", ENGINE, error)

    @contextlib.contextmanager
    def _settled_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._settle()
            raise

    def _failed(self, what: str) -> EngineError:
        return EngineError(ENGINE, what, self._library.last_error(), "success")


def _n_bytes(tensor: TensorSpec, batch: int) -> int:
    return 4 * batch * math.prod(tensor.shape[1:])
