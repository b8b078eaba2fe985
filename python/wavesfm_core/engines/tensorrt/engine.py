# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine `tensorrt`: a bundle compiled once, cached, checked, and run on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...errors import ConfigurationError, EngineError, WavesfmError
from ...types import Tensor
from ..base import closed
from .compiler import Plan, compile_bundle, precision_for
from .cuda import CudaDriver, PyCudaDriver
from .library import Library, PlanRefused, open_library
from .plan_cache import PlanCache, PlanRecord
from .precisions import PRECISIONS, RELATIVE_TOLERANCES
from .session import ENGINE, GpuSession

if TYPE_CHECKING:
    from ...bundle.bundle import Bundle


class TensorRTEngine:
    """See `Engine`. The constructor compiles (minutes, the first time), loads the plan and warms up.

    A cached plan that the library refuses is built anew.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    precision : str
        "auto" (bf16 from Ampere on, fp16 before, fp32 for models that are no transformers), "fp32", "bf16", "fp16" or
        "int8".
    device_id : int
        Index of the GPU.
    driver : CudaDriver, optional
        Default: pycuda's. A driver of the caller is not closed.
    library : Library, optional
        Default: the installed one.
    max_batch : int, optional
        Largest batch that is run at once. Default: that of the latest plan, or a number that suits the tiles.
    cache : PlanCache, optional
        Default: the user's.

    Raises
    ------
    EngineError
        The library, onnx, pycuda, the driver or the GPU is missing, or the outputs are too far off.
    """

    plan: PlanRecord
    """Record of the plan."""
    memory_bytes: int
    """Memory of the GPU that the engine took."""

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        device_id: int = 0,
        driver: CudaDriver | None = None,
        library: Library | None = None,
        max_batch: int | None = None,
        cache: PlanCache | None = None,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            expected = "one of " + ", ".join(("auto", *PRECISIONS))
            raise ConfigurationError(ENGINE, "precision", repr(precision), expected)
        library = open_library() if library is None else library
        with contextlib.ExitStack() as stack:
            if driver is None:
                driver = PyCudaDriver(device_id)
                stack.callback(driver.close)
            if precision == "auto":
                precision = precision_for(bundle, driver.gpu)
            cache = PlanCache() if cache is None else cache
            with _named("opening", "an engine"):
                plan, session = _opened(bundle, precision, max_batch, library, driver, cache)
            stack.callback(session.close)
            self._stack = stack.pop_all()
        self._session: GpuSession | None = session
        self.plan, self.memory_bytes = plan.record, session.memory_bytes
        self.relative_tolerance = RELATIVE_TOLERANCES[precision]
        self.description = f"{library.name} {library.version}, {driver.gpu.name}, {precision}"

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`; any batch size, in any thread."""
        if self._session is None:
            raise closed(ENGINE)
        with _named("run", "outputs"):
            return self._session.run(inputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None
        self._stack.close()


@contextlib.contextmanager
def _named(field: str, expected: str) -> Iterator[None]:
    """Turn exceptions of the library's bindings, which share no base class, into EngineErrors."""
    try:
        yield
    except WavesfmError:
        raise
    except Exception as error:
        raise EngineError(ENGINE, field, f"{type(error).__name__}: {error}"[:300], expected) from error


def _opened(
    bundle: Bundle, precision: str, max_batch: int | None, library: Library, driver: CudaDriver, cache: PlanCache
) -> tuple[Plan, GpuSession]:
    refused: set[str] = set()
    while True:
        plan = compile_bundle(bundle, precision, max_batch, library=library, driver=driver, cache=cache, to_run=True)
        try:
            return plan, GpuSession(plan.data, bundle.spec, bundle.model_path, plan.profile, library, driver)
        except PlanRefused as error:
            if not plan.cached or plan.record.key.digest in refused:
                raise
            refused.add(plan.record.key.digest)
            with cache.locked():
                cache.discard(plan.record.key, str(error))
