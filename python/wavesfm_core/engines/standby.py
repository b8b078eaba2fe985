# SPDX-License-Identifier: GPL-3.0-or-later
"""The CPU serves while a GPU's engine is made, and again when that one fails: no batch is lost on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import EngineError, WavesfmError
from ..types import Tensor
from .base import Engine, check_arrays, closed

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

log = logging.getLogger(__name__)


class EngineChange(NamedTuple):
    """What a StandbyEngine says of itself.

    was, now: descriptions of the engine in use before and after, equal where the fast one could not be made; why: in
    plain words; failed: whether the fast one failed, while it was made or while it ran.
    """

    was: str
    now: str
    why: str
    failed: bool


class StandbyEngine:
    """The CPU's engine until a fast one is made, then the fast one, and the CPU's for good when that one fails.

    `make_fast` is called once, on a thread of its own; what it makes must give the bundle's golden outputs before it is
    taken into use, which happens at the beginning of a run. A batch with which the fast engine fails (it raises, or an
    output is not finite) is run on the CPU's engine instead, at once.
    on_change(EngineChange) is called on that thread or on the one that runs; what it raises is logged.
    state: "compiling" (the fast one is being made), "fast", or "cpu"; reason: why, in plain words. description and
    relative_tolerance: of the engine in use. failures: of the fast engine so far, 0 or 1.
    The process does not end before `make_fast` has returned: a compiler cannot be stopped half-way, and what it
    compiled is kept for the next time.
    """

    def __init__(
        self,
        bundle: Bundle,
        cpu_engine: Engine,
        make_fast: Callable[[], Engine],
        on_change: Callable[[EngineChange], object],
    ) -> None:
        self._bundle, self._cpu, self._on_change = bundle, cpu_engine, on_change
        self._lock = threading.Lock()  # of what the two threads share: _made, _closed, state, reason
        self._made: Engine | None = None  # and proven, but not yet in use
        self._in_use = cpu_engine
        self._closed = False
        self.state, self.reason = "compiling", "the GPU's engine is being made"
        self.failures = 0
        self._thread = threading.Thread(target=self._make, args=(make_fast,), name="wavesfm-compile")
        self._thread.start()

    @property
    def description(self) -> str:
        """Of the engine in use, with why it is the CPU's where it is."""
        said = self._in_use.description
        return said if self.state == "fast" else f"{said} ({self.reason})"

    @property
    def relative_tolerance(self) -> float:
        """Of the engine that made the last outputs."""
        return self._in_use.relative_tolerance

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine", "input", self._bundle.spec.inputs, inputs)  # a wrong input is not the engine's failure
        self._take_made()
        if self._in_use is self._cpu:
            return self._cpu.run(inputs)
        try:
            outputs = self._in_use.run(inputs)
            _check_finite(outputs)
            return outputs
        except Exception as error:  # whatever it is, this batch can still be computed
            self._fall_back(error)
        return self._cpu.run(inputs)

    def close(self) -> None:
        """See `Engine.close`; an engine that is still being made is closed as soon as it is there."""
        with self._lock:
            made, self._made, self._closed = self._made, None, True
        for engine in {id(e): e for e in (made, self._in_use, self._cpu) if e is not None}.values():
            _close(engine)

    def _make(self, make_fast: Callable[[], Engine]) -> None:
        from .verify import replay_golden  # here: a bundle knows engines

        engine = None
        try:
            engine = make_fast()
            if not self._closed:
                replay_golden(self._bundle, engine)
        except BaseException as error:  # nobody would notice that this thread is gone
            if engine is not None:
                _close(engine)
            self._stay(error)
            return
        with self._lock:
            if not self._closed:
                self._made = engine
                return
        _close(engine)

    def _stay(self, error: BaseException) -> None:
        with self._lock:
            self.state, self.reason = "cpu", f"the GPU's engine could not be made: {_sentence(error)}"
            self.failures += 1
            told = not self._closed
        if told:
            self._tell(EngineChange(self._cpu.description, self._cpu.description, self.reason, True))

    def _take_made(self) -> None:
        with self._lock:
            if self._closed:
                raise closed("engine")
            made, self._made = self._made, None
            if made is None:
                return
            self.state, self.reason = "fast", "it is made and gives the golden outputs"
        was, self._in_use = self._in_use, made
        self._tell(EngineChange(was.description, made.description, self.reason, False))

    def _fall_back(self, error: Exception) -> None:
        failed, self._in_use = self._in_use, self._cpu
        with self._lock:
            self.state, self.reason = "cpu", f"the GPU's engine failed: {_sentence(error)}"
            self.failures += 1
        _close(failed)
        self._tell(EngineChange(failed.description, self._cpu.description, self.reason, True))

    def _tell(self, change: EngineChange) -> None:
        level = logging.WARNING if change.failed else logging.INFO
        log.log(level, "%s runs on %s: %s", self._bundle.id, change.now, change.why)
        try:
            self._on_change(change)
        except Exception:
            log.exception("on_change raised")


def _check_finite(outputs: Mapping[str, Tensor]) -> None:
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise EngineError("engine", f"output {name}", "NaN or infinity", "finite values")


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except Exception:  # a GPU that failed may not even be freed; the flowgraph goes on
        log.exception("%s could not be closed", engine.description)


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, WavesfmError) else f"{type(error).__name__}: {error}"
