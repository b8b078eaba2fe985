# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU that is none: a driver whose streams do nothing before somebody waits for them, and a library that runs on it.

What is put on a stream is done as late as the driver may: only when an event or stream is synchronised, and on other
streams only as far as events are waited for. So an order that is not enforced shows as wrong numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.engines.base import RuntimeTensor
from wavesfm_core.engines.tensorrt.cuda import GPU
from wavesfm_core.engines.tensorrt.library import Build, Profile, Progress
from wavesfm_core.errors import EngineError


class Stream:
    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()
        self.capturing: list[Callable[[], None]] | None = None

    def put(self, work: Callable[[], None]) -> None:
        (self.work if self.capturing is None else self.capturing).append(work)

    def run(self) -> None:
        while self.work:
            self.work.popleft()()


class Event:
    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.mark = self.reached = 0

    def wait(self, mark: int) -> None:
        while self.reached < mark:
            assert self.stream is not None
            assert self.stream.work, "an event that never comes"
            self.stream.work.popleft()()


class FakeDriver:
    """A CudaDriver; failures: name of a call -> which of its calls (from 0) fail; log: names of calls in order."""

    def __init__(self, capability: str = "sm_89", memory_bytes: int = 8 << 30) -> None:
        self.gpu = GPU("Fake GPU", capability, "13000", memory_bytes)
        self.failures: dict[str, set[int]] = {}
        self.calls: dict[str, int] = {}
        self.log: list[str] = []
        self.memory_of: dict[int, np.ndarray] = {}
        self.pinned_arrays: dict[int, np.ndarray] = {}
        self.graphs: set[int] = set()
        self.objects: weakref.WeakSet[Any] = weakref.WeakSet()
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.closed = 0
        self._local = threading.local()
        self._next = 1 << 32
        self._recorded: dict[int, list[Callable[[], None]]] = {}

    def _call(self, name: str) -> None:
        assert getattr(self._local, "depth", 0) == 1, f"{name} outside the context"
        count = self.calls.get(name, 0)
        self.calls[name] = count + 1
        self.log.append(name)
        if count in self.failures.get(name, ()):
            raise EngineError("engine tensorrt", f"CUDA {name}", "CUDA_ERROR_FAKE", "success")

    def fail(self, name: str) -> None:
        """The next call of this name fails."""
        self.failures[name] = {self.calls.get(name, 0)}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._local.depth = getattr(self._local, "depth", 0) + 1
        try:
            yield
        finally:
            self._local.depth -= 1

    @property
    def held(self) -> int:
        """Things that were made and not freed."""
        return len(self.memory_of) + len(self.pinned_arrays) + len(self.graphs) + len(self.objects)

    def stream(self) -> Stream:
        self._call("stream")
        stream = Stream()
        self.objects.add(stream)
        self.streams[id(stream)] = stream
        return stream

    def stream_handle(self, stream: Stream) -> int:
        return id(stream)

    def event(self) -> Event:
        self._call("event")
        event = Event()
        self.objects.add(event)
        return event

    def record(self, event: Event, stream: Stream) -> None:
        self._call("record")
        event.stream = stream
        event.mark += 1
        mark = event.mark

        def reach() -> None:
            event.reached = mark

        stream.put(reach)

    def wait(self, stream: Stream, event: Event) -> None:
        self._call("wait")
        mark = event.mark
        stream.put(lambda: event.wait(mark))

    def synchronise(self, stream_or_event: Stream | Event) -> None:
        self._call("synchronise")
        if isinstance(stream_or_event, Event):
            stream_or_event.wait(stream_or_event.mark)
        else:
            stream_or_event.run()

    def pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        self._call("pinned")
        array = np.full(shape, np.nan, np.float32)
        self.pinned_arrays[id(array)] = array
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        self._call("free_pinned")
        del self.pinned_arrays[id(array)]

    def allocate(self, n_bytes: int) -> int:
        self._call("allocate")
        self._next += n_bytes + 256
        self.memory_of[self._next] = np.full(n_bytes // 4, np.nan, np.float32)
        return self._next

    def free(self, memory: int) -> None:
        self._call("free")
        del self.memory_of[memory]

    def upload(self, memory: int, array: np.ndarray, stream: Stream) -> None:
        self._call("upload")
        assert any(np.shares_memory(array, pinned) for pinned in self.pinned_arrays.values())

        def copy() -> None:
            self.memory_of[memory][: array.size] = array.ravel()

        stream.put(copy)

    def download(self, array: np.ndarray, memory: int, stream: Stream) -> None:
        self._call("download")
        assert array.flags.c_contiguous

        def copy() -> None:
            array[...] = self.memory_of[memory][: array.size].reshape(array.shape)

        stream.put(copy)

    def begin_capture(self, stream: Stream) -> None:
        self._call("begin_capture")
        assert not stream.work, "work before a capture"
        stream.capturing = []

    def end_capture(self, stream: Stream) -> int:
        self._call("end_capture")
        assert stream.capturing is not None
        self._next += 1
        self.graphs.add(self._next)
        self._recorded[self._next] = stream.capturing
        stream.capturing = None
        return self._next

    def launch(self, graph: int, stream: Stream) -> None:
        self._call("launch")
        assert graph in self.graphs
        for work in self._recorded[graph]:
            stream.put(work)

    def free_graph(self, graph: int) -> None:
        self._call("free_graph")
        self.graphs.remove(graph)

    def memory(self) -> tuple[int, int]:
        used = sum(array.nbytes for array in self.memory_of.values())
        return self.gpu.memory_bytes - used, self.gpu.memory_bytes

    def close(self) -> None:
        self.closed += 1


class Context:
    """An execution context: outputs are the mean of the tile plus the element's index, plus `offset`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self.shapes[name] = tuple(shape)
        return 1 <= shape[0] <= self.engine.facts["maximum"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.engine.library.driver.memory_of

    def execute_async_v3(self, handle: int) -> bool:
        library = self.engine.library
        library.batches.append(next(iter(self.shapes.values()))[0])
        if len(library.batches) - 1 in library.failures:
            return False
        shapes, addresses, memory = dict(self.shapes), dict(self.addresses), library.driver.memory_of

        def work() -> None:
            tile = next(t for t in library.spec.inputs if t.source == "tile")
            shape = shapes[tile.name]
            tiles = memory[addresses[tile.name]][: int(np.prod(shape))].reshape(shape)
            for output in library.spec.outputs:
                values = outputs_of(tiles, output.shape[1:]) + library.offset
                memory[addresses[output.name]][: values.size] = values.ravel()

        library.driver.streams[handle].put(work)
        return True


class Engine:
    def __init__(self, library: FakeLibrary, facts: dict[str, Any]) -> None:
        self.library, self.facts = library, facts


class FakeLibrary:
    """A Library whose plans are JSON; failures: indices of runs that are refused; offset: added to all outputs."""

    name, version = "tensorrt", "fake 1"

    def __init__(self, spec: BundleSpec, driver: FakeDriver, captures: bool = False) -> None:
        self.spec, self.driver, self.captures = spec, driver, captures
        self.builds_ahead = False
        self.failures: set[int] = set()
        self.offset = 0.0
        self.batches: list[int] = []
        self.builds: list[dict[str, Any]] = []
        self.products: dict[str, int] = {"bf16": 4, "fp32": 1}
        self.layers: dict[str, int] = {}
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def build(
        self, model: bytes, profile: Profile, targets: Sequence[str], portable: bool, progress: Progress | None
    ) -> Build:
        if progress is not None:
            progress("Building", 1, 1)
        facts = {"maximum": profile.maximum, "model": len(model), "targets": list(targets), "portable": portable}
        self.builds.append(facts)
        return Build(json.dumps(facts).encode(), self.products)

    def deserialise(self, plan: bytes) -> Engine:
        engine = Engine(self, json.loads(plan))
        self.alive.add(engine)
        return engine

    def tensors(self, engine: Engine) -> Mapping[str, list[RuntimeTensor]]:
        def declared(tensors: Sequence[Any]) -> list[RuntimeTensor]:
            return [RuntimeTensor(t.name, [None, *t.shape[1:]], "float32") for t in tensors]

        return {"input": declared(self.spec.inputs), "output": declared(self.spec.outputs)}

    def context(self, engine: Engine) -> Context:
        context = Context(engine)
        self.alive.add(context)
        return context

    def layer_precisions(self, engine: Engine) -> dict[str, int]:
        return self.layers

    def last_error(self) -> str:
        return "the library's own words"


def outputs_of(tiles: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What the fake computes."""
    means = tiles.mean(axis=(1, 2, 3), dtype=np.float64)
    ramp = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    return (means.reshape(-1, *[1] * len(shape)) + ramp).astype(np.float32)


class FakePycuda(SimpleNamespace):
    """The few names of pycuda.driver that the driver uses, with the stacks of contexts that each thread has: pycuda's
    and, as libcuda.so.1 pops it, CUDA's own. As in pycuda 2026.1, `detach` gives the primary context back only where it
    is on top of pycuda's stack or the thread is the one that retained it, and never pops CUDA's.

    retained: how often the primary context is; stack: CUDA's, of this thread; failures: names of calls that fail.
    """

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(retained=0, failures=set(), _local=threading.local())
        self.Device, self.Context = self._make_device(), self._make_context()

    def init(self) -> None:
        self._call("init")

    def get_driver_version(self) -> int:
        return 13000

    def mem_get_info(self) -> tuple[int, int]:
        self._call("mem_get_info")
        return 1, 2

    @property
    def stack(self) -> list[Any]:
        return self._of_thread("stack")

    def _of_thread(self, name: str) -> list[Any]:
        return self._local.__dict__.setdefault(name, [])

    def _call(self, name: str) -> None:
        if name in self.failures:
            raise self.Error(f"{name} failed: out of memory")

    def library(self, name: str) -> SimpleNamespace:
        """libcuda.so.1 as ctypes gives it."""
        assert name == "libcuda.so.1"

        def pop(reference: Any) -> int:
            self.stack.pop()
            return 0

        def error_name(code: ctypes.c_int, reference: Any) -> int:
            reference._obj.value = b"CUDA_ERROR_FAKE"
            return 0

        def refuse(*arguments: Any) -> int:
            return 900

        return SimpleNamespace(cuCtxPopCurrent_v2=pop, cuGetErrorName=error_name, cuStreamBeginCapture_v2=refuse)

    def _make_context(self) -> type:
        cuda = self

        class Context:
            def __init__(self) -> None:
                self.valid, self.thread = True, threading.get_ident()

            def push(self) -> None:
                ours = cuda._of_thread("pycudas")
                if ours:
                    cuda.stack.pop()
                cuda.stack.append(self)
                ours.append(self)

            @staticmethod
            def pop() -> None:
                ours = cuda._of_thread("pycudas")
                cuda.stack.pop()
                ours.pop()
                if ours:
                    cuda.stack.append(ours[-1])

            def detach(self) -> None:
                ours = cuda._of_thread("pycudas")
                active = bool(ours) and ours[-1] is self
                if active:
                    cuda.retained -= 1
                elif self.thread == threading.get_ident():
                    cuda.stack.append(self)
                    cuda.retained -= 1
                self.valid = False
                while active and ours and not ours[-1].valid:
                    ours.pop()
                if active and ours:
                    cuda.stack.append(ours[-1])

        return Context

    def _make_device(self) -> type:
        cuda = self

        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            @staticmethod
            def count() -> int:
                return 2

            def name(self) -> str:
                return f"GPU {self.index}"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 9

            def total_memory(self) -> int:
                return 1 << 30

            def retain_primary_context(self) -> Any:
                cuda.retained += 1
                return cuda.Context()

        return Device
