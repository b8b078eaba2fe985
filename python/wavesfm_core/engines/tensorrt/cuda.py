# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of the CUDA driver that an engine needs, as a protocol, and their implementation with pycuda.

Handles are opaque and belong to the driver that returned them. All methods but `current` and `close` are called inside
`with driver.current():`. A failure of the driver is an EngineError with CUDA's name of the error.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from ...errors import EngineError
from ...types import Tensor

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for work on the default stream
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: allocations of other threads do not end a capture
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class GPU:
    """Properties of a GPU."""

    name: str
    """Name in the driver."""
    capability: str
    """Compute capability, e.g. sm_89."""
    driver: str
    """CUDA version of the driver and, where the system tells it, the driver's own version."""
    memory_bytes: int
    """Total memory."""


class CudaDriver(Protocol):
    """Primary context of one GPU, its streams, events, memory and graphs."""

    gpu: GPU

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the primary context current on this thread, and restore the former one afterwards."""
        ...

    def stream(self) -> Any:
        """Create a stream."""
        ...

    def stream_handle(self, stream: Any) -> int:
        """Address of a stream, for TensorRT."""
        ...

    def event(self) -> Any:
        """Create an event."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Record an event on a stream."""
        ...

    def wait(self, stream: Any, event: Any) -> None:
        """Let later work of a stream wait for an event."""
        ...

    def synchronise(self, stream_or_event: Any) -> None:
        """Wait on the host for a stream or an event."""
        ...

    def pinned(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate a page-locked float32 array on the host."""
        ...

    def free_pinned(self, array: Tensor) -> None:
        """Free a page-locked array."""
        ...

    def allocate(self, n_bytes: int) -> Any:
        """Allocate device memory; int() of the handle is its address."""
        ...

    def free(self, memory: Any) -> None:
        """Free device memory."""
        ...

    def upload(self, memory: Any, array: Tensor, stream: Any) -> None:
        """Start copying a page-locked array to the device."""
        ...

    def download(self, array: Tensor, memory: Any, stream: Any) -> None:
        """Start copying from the device into a page-locked array."""
        ...

    def begin_capture(self, stream: Any) -> None:
        """Record the following work of a stream instead of running it."""
        ...

    def end_capture(self, stream: Any) -> Any:
        """End the recording and return a graph that can be launched."""
        ...

    def launch(self, graph: Any, stream: Any) -> None:
        """Run a graph on a stream."""
        ...

    def free_graph(self, graph: Any) -> None:
        """Free a graph."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total memory of the GPU in bytes."""
        ...

    def close(self) -> None:
        """Release the primary context. Closing twice does no harm."""
        ...


def _named_call(call: Callable[Concatenate[PyCudaDriver, P], T]) -> Callable[Concatenate[PyCudaDriver, P], T]:
    """Turn errors of pycuda in a call into EngineErrors."""

    @functools.wraps(call)
    def named(self: PyCudaDriver, /, *args: P.args, **options: P.kwargs) -> T:
        try:
            return call(self, *args, **options)
        except self._cuda.Error as error:
            raise _failure(call.__name__, error) from error

    return named


class PyCudaDriver:
    """`CudaDriver` with pycuda.

    pycuda lacks calls for graphs and for popping a context; those go to the driver's library by ctypes.

    Parameters
    ----------
    device_id : int
        Index of the GPU.

    Raises
    ------
    EngineError
        pycuda, the driver or the GPU is missing.
    """

    def __init__(self, device_id: int = 0) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            expected = "the NVIDIA driver and pycuda: pip install pycuda, which needs the CUDA toolkit"
            raise EngineError("engine tensorrt", "pycuda", error, expected) from error
        self._cuda = cuda
        with self._named("initialisation"):
            cuda.init()
            count = cuda.Device.count()
        if not 0 <= device_id < count:
            raise EngineError("engine tensorrt", "device_id", device_id, f"one of the {count} GPUs here, from 0")
        self._library = _Library()
        with self._named("context"):
            device = cuda.Device(device_id)
            major, minor = device.compute_capability()
            version = " ".join(filter(None, (str(cuda.get_driver_version()), _kernel_module())))
            self.gpu = GPU(device.name(), f"sm_{major}{minor}", version, int(device.total_memory()))
            self._context = device.retain_primary_context()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """See `CudaDriver`."""
        if self._context is None:
            raise EngineError("engine tensorrt", "context", "a closed one", "an open one")
        with self._named("context"):
            self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    @_named_call
    def stream(self) -> Any:
        """See `CudaDriver`."""
        return self._cuda.Stream(NON_BLOCKING)

    def stream_handle(self, stream: Any) -> int:
        """See `CudaDriver`."""
        return int(stream.handle)

    @_named_call
    def event(self) -> Any:
        """See `CudaDriver`."""
        return self._cuda.Event(_NO_TIMING)

    @_named_call
    def record(self, event: Any, stream: Any) -> None:
        """See `CudaDriver`."""
        event.record(stream)

    @_named_call
    def wait(self, stream: Any, event: Any) -> None:
        """See `CudaDriver`."""
        stream.wait_for_event(event)

    @_named_call
    def synchronise(self, stream_or_event: Any) -> None:
        """See `CudaDriver`."""
        stream_or_event.synchronize()

    @_named_call
    def pinned(self, shape: tuple[int, ...]) -> Tensor:
        """See `CudaDriver`."""
        array: Tensor = self._cuda.pagelocked_empty(shape, np.float32)
        return array

    @_named_call
    def free_pinned(self, array: Tensor) -> None:
        """See `CudaDriver`."""
        array.base.free()  # type: ignore[union-attr]  # pycuda's own object

    @_named_call
    def allocate(self, n_bytes: int) -> Any:
        """See `CudaDriver`."""
        return self._cuda.mem_alloc(n_bytes)

    @_named_call
    def free(self, memory: Any) -> None:
        """See `CudaDriver`."""
        memory.free()

    @_named_call
    def upload(self, memory: Any, array: Tensor, stream: Any) -> None:
        """See `CudaDriver`."""
        self._cuda.memcpy_htod_async(memory, array, stream)

    @_named_call
    def download(self, array: Tensor, memory: Any, stream: Any) -> None:
        """See `CudaDriver`."""
        self._cuda.memcpy_dtoh_async(array, memory, stream)

    def begin_capture(self, stream: Any) -> None:
        """See `CudaDriver`."""
        self._library.begin_capture(self.stream_handle(stream))

    def end_capture(self, stream: Any) -> Any:
        """See `CudaDriver`."""
        return self._library.end_capture(self.stream_handle(stream))

    def launch(self, graph: Any, stream: Any) -> None:
        """See `CudaDriver`."""
        self._library.launch(graph, self.stream_handle(stream))

    def free_graph(self, graph: Any) -> None:
        """See `CudaDriver`."""
        self._library.free_graph(graph)

    @_named_call
    def memory(self) -> tuple[int, int]:
        """See `CudaDriver`."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """See `CudaDriver`."""
        context, self._context = self._context, None
        if context is not None:
            with self._named("context"):
                # In a thread other than the one that retained the context, pycuda only detaches a context on top of
                # its stack of this thread, and leaves it on CUDA's stack, from which it is popped here first.
                context.push()
                self._library.pop_context()
                context.detach()

    @contextlib.contextmanager
    def _named(self, field: str) -> Iterator[None]:
        """Turn errors of pycuda into EngineErrors."""
        try:
            yield
        except self._cuda.Error as error:
            raise _failure(field, error) from error


def _failure(field: str, error: Exception) -> EngineError:
    return EngineError("engine tensorrt", f"CUDA {field}", f"{error}"[:300], "success")


class _Library:
    """Calls of the CUDA driver that pycuda lacks, by ctypes."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise EngineError("engine tensorrt", "CUDA library", error, "the driver's library") from error

    def pop_context(self) -> None:
        self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        recorded, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(recorded))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), recorded, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", recorded)
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        code = function(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            found = (text.value or b"an unknown error").decode()
            raise EngineError("engine tensorrt", name, f"{found} ({code})", "success")


def _kernel_module() -> str:
    """The driver's own version (580.65.06), as several have one CUDA version; "" where the system does not tell."""
    try:
        text = _KERNEL_MODULE.read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found.group() if found else ""
