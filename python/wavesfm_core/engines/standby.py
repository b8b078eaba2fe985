# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference on the CPU while the engine of a GPU is compiled, and after it fails; no batch is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import EngineError, WavesfmError
from ..types import Tensor
from .base import Engine, check_arrays, closed
from .verify import replay_golden

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

log = logging.getLogger(__name__)


class EngineChange(NamedTuple):
    """Report of a StandbyEngine that it changed engines, or could not."""

    was: str
    """Description of the engine in use before."""
    now: str
    """Description of the engine in use now; equal to `was` where the fast engine could not be opened."""
    why: str
    """Reason in plain words."""
    failed: bool
    """Whether the fast engine failed, while it was opened or while it ran."""


class StandbyEngine:
    """An engine that runs on the CPU until a fast engine is open, and again for good when the fast engine fails.

    The fast engine is opened on a thread and must give the bundle's golden outputs. It is used from the next run on. If
    it raises or an output is not finite, the same batch is run on the CPU's engine. `description` and
    `relative_tolerance` are those of the engine in use. The process does not end before `open_fast` has returned: a
    compiler cannot be stopped half-way, and the compiled plan is kept for the next start.

    Parameters
    ----------
    bundle : Bundle
        Bundle of both engines.
    cpu_engine : Engine
        Engine in use first.
    open_fast : callable
        Opens the fast engine. It is called once, on a thread of the StandbyEngine.
    on_change : callable
        Receives each EngineChange, on that thread or on the one that calls `run`. Its exceptions are logged.
    """

    state: str
    """"compiling" (the fast engine is being opened), "fast" or "cpu"."""
    reason: str
    """Reason of the state in plain words."""
    failures: int
    """Failures of the fast engine so far, 0 or 1."""

    def __init__(
        self,
        bundle: Bundle,
        cpu_engine: Engine,
        open_fast: Callable[[], Engine],
        on_change: Callable[[EngineChange], object],
    ) -> None:
        self._bundle, self._cpu, self._on_change = bundle, cpu_engine, on_change
        self._lock = threading.Lock()  # guards _opened, _closed, state and reason, which two threads use
        self._opened: Engine | None = None  # verified, not yet in use
        self._in_use = cpu_engine
        self._closed = False
        self.state, self.reason = "compiling", "the GPU's engine is being compiled"
        self.failures = 0
        self._thread = threading.Thread(target=self._open, args=(open_fast,), name="wavesfm-compile")
        self._thread.start()

    @property
    def description(self) -> str:
        """Description of the engine in use, with the reason where it is the CPU's."""
        in_use = self._in_use.description
        return in_use if self.state == "fast" else f"{in_use} ({self.reason})"

    @property
    def relative_tolerance(self) -> float:
        """Tolerance of the engine that computed the last outputs."""
        return self._in_use.relative_tolerance

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays("engine", "input", self._bundle.spec.inputs, inputs)  # a wrong input is no failure of the engine
        self._switch_to_opened()
        if self._in_use is self._cpu:
            return self._cpu.run(inputs)
        try:
            outputs = self._in_use.run(inputs)
            _check_finite(outputs)
            return outputs
        except Exception as error:  # the CPU can still compute this batch
            self._fall_back(error)
        return self._cpu.run(inputs)

    def close(self) -> None:
        """See `Engine.close`; an engine that is still being opened is closed as soon as it is open."""
        with self._lock:
            opened, self._opened, self._closed = self._opened, None, True
        for engine in {id(e): e for e in (opened, self._in_use, self._cpu) if e is not None}.values():
            _close(engine)

    def _open(self, open_fast: Callable[[], Engine]) -> None:
        engine = None
        try:
            engine = open_fast()
            if not self._closed:
                replay_golden(self._bundle, engine)
        except BaseException as error:  # else the thread would end unnoticed
            if engine is not None:
                _close(engine)
            self._stay(error)
            return
        with self._lock:
            if not self._closed:
                self._opened = engine
                return
        _close(engine)

    def _stay(self, error: BaseException) -> None:
        with self._lock:
            self.state, self.reason = "cpu", f"the GPU's engine could not be opened: {_sentence(error)}"
            self.failures += 1
            closed_before = self._closed
        if not closed_before:
            self._report(EngineChange(self._cpu.description, self._cpu.description, self.reason, True))

    def _switch_to_opened(self) -> None:
        with self._lock:
            if self._closed:
                raise closed("engine")
            opened, self._opened = self._opened, None
            if opened is None:
                return
            self.state, self.reason = "fast", "it is compiled and gives the golden outputs"
        was, self._in_use = self._in_use, opened
        self._report(EngineChange(was.description, opened.description, self.reason, False))

    def _fall_back(self, error: Exception) -> None:
        failed, self._in_use = self._in_use, self._cpu
        with self._lock:
            self.state, self.reason = "cpu", f"the GPU's engine failed: {_sentence(error)}"
            self.failures += 1
        _close(failed)
        self._report(EngineChange(failed.description, self._cpu.description, self.reason, True))

    def _report(self, change: EngineChange) -> None:
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
    except Exception:  # memory of a failed GPU may not be freed; the flowgraph goes on
        log.exception("%s could not be closed", engine.description)


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, WavesfmError) else f"{type(error).__name__}: {error}"
