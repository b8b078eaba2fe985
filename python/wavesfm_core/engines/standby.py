# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference on the CPU while a faster engine is opened, and after it fails; no batch is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..errors import WavesfmError
from ..types import Tensor
from .base import Engine, RemoteAccounts, check_arrays, check_finite, closed
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


class FastKind(NamedTuple):
    """What the fast engine is, for reports, and whether it is opened again."""

    name: str = "the GPU's engine"
    """Subject of a sentence."""
    opening: str = "is being compiled"
    """What is done until it is open."""
    opened: str = "it is compiled and gives the golden outputs"
    """Reason of the switch to it."""
    reopen_s: float = 0.0
    """Seconds after a failure until it is opened again; they double at each further failure. 0: never."""
    daemon: bool = False
    """Whether the process may end while it is opened. A compiler is let finish: its plan serves the next start."""


LONGEST_REOPEN_FACTOR = 64
"""Greatest number of `reopen_s` between two openings."""


GPU = FastKind()


class StandbyEngine:
    """An engine that runs on the CPU until a fast engine is open, and again when the fast engine fails.

    The fast engine is opened on a thread and must give the bundle's golden outputs. It is used from the next run on. If
    it raises or an output is not finite, the same batch is run on the CPU's engine. `description` and
    `relative_tolerance` are those of the engine in use. A compiler cannot be stopped half-way, so that the process does
    not end before `open_fast` has returned, unless `kind` says so.

    Parameters
    ----------
    bundle : Bundle
        Bundle of both engines.
    cpu_engine : Engine
        Engine in use first.
    open_fast : callable
        Opens the fast engine. It is called once, and again where `kind` says so, on a thread of the StandbyEngine.
    on_change : callable
        Receives each EngineChange, on that thread or on the one that calls `run`. Its exceptions are logged.
    kind : FastKind
        The fast engine, for reports.
    wait : bool
        Open the fast engine before the constructor returns, which raises what `open_fast` and `replay_golden` raise.
    remote : RemoteAccounts or None
        Requests of the fast engine, where it is a server.
    """

    state: str
    """"compiling" (the fast engine is being opened), "fast" or "cpu"."""
    reason: str
    """Reason of the state in plain words."""
    failures: int
    """How often the fast engine failed while it ran, or could not be opened the first time."""

    def __init__(
        self,
        bundle: Bundle,
        cpu_engine: Engine,
        open_fast: Callable[[], Engine],
        on_change: Callable[[EngineChange], object],
        kind: FastKind = GPU,
        wait: bool = False,
        remote: RemoteAccounts | None = None,
    ) -> None:
        self._bundle, self._cpu, self._on_change = bundle, cpu_engine, on_change
        self._open_fast, self._kind, self.remote = open_fast, kind, remote
        self._lock = threading.Lock()  # guards _opened, _closed, state and reason, which two threads use
        self._opened: Engine | None = None  # verified, not yet in use
        self._in_use = cpu_engine
        self._closed = threading.Event()
        self._reopen_s = kind.reopen_s
        self.state, self.reason = "compiling", f"{kind.name} {kind.opening}"
        self.failures = 0
        if wait:
            try:
                self._opened = self._verified()
            except BaseException:
                _close(cpu_engine)
                raise
        else:
            self._start_thread(self._open)

    def _start_thread(self, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name="wavesfm-compile", daemon=self._kind.daemon)
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
            check_finite("engine", outputs)
            return outputs
        except Exception as error:  # the CPU can still compute this batch
            self._fall_back(error)
        return self._cpu.run(inputs)

    def close(self) -> None:
        """See `Engine.close`; an engine that is still being opened is closed as soon as it is open."""
        with self._lock:
            opened, self._opened = self._opened, None
            self._closed.set()
        for engine in {id(e): e for e in (opened, self._in_use, self._cpu) if e is not None}.values():
            _close(engine)

    def _open(self) -> None:
        """Open the fast engine the first time."""
        try:
            self._offer(self._verified())
        except BaseException as error:  # else the thread would end unnoticed
            self._stay(error)
            if self._kind.reopen_s:
                self._reopen()

    def _reopen(self) -> None:
        """Open the fast engine again after a failure, as often as is needed."""
        while not self._closed.wait(self._reopen_s):
            self._reopen_s = min(2 * self._reopen_s, LONGEST_REOPEN_FACTOR * self._kind.reopen_s)
            try:
                self._offer(self._verified())
                return
            except BaseException as error:
                log.info("%s could not be opened again: %s", self._kind.name, _sentence(error))

    def _verified(self) -> Engine:
        """The fast engine, which gives the golden outputs."""
        engine = self._open_fast()
        try:
            if not self._closed.is_set():
                replay_golden(self._bundle, engine)
        except BaseException:
            _close(engine)
            raise
        return engine

    def _offer(self, engine: Engine) -> None:
        """Let the next run use the engine."""
        with self._lock:
            if not self._closed.is_set():
                self._opened = engine
                return
        _close(engine)

    def _stay(self, error: BaseException) -> None:
        with self._lock:
            self.state, self.reason = "cpu", f"{self._kind.name} could not be opened: {_sentence(error)}"
            self.failures += 1
            closed_before = self._closed.is_set()
        if not closed_before:
            self._report(EngineChange(self._cpu.description, self._cpu.description, self.reason, True))

    def _switch_to_opened(self) -> None:
        with self._lock:
            if self._closed.is_set():
                raise closed("engine")
            opened, self._opened = self._opened, None
            if opened is None:
                return
            self.state, self.reason = "fast", self._kind.opened
        was, self._in_use = self._in_use, opened
        self._report(EngineChange(was.description, opened.description, self.reason, False))

    def _fall_back(self, error: Exception) -> None:
        failed, self._in_use = self._in_use, self._cpu
        with self._lock:
            self.state, self.reason = "cpu", f"{self._kind.name} failed: {_sentence(error)}"
            self.failures += 1
        _close(failed)
        self._report(EngineChange(failed.description, self._cpu.description, self.reason, True))
        if self._kind.reopen_s:
            self._start_thread(self._reopen)

    def _report(self, change: EngineChange) -> None:
        level = logging.WARNING if change.failed else logging.INFO
        log.log(level, "%s runs on %s: %s", self._bundle.id, change.now, change.why)
        try:
            self._on_change(change)
        except Exception:
            log.exception("on_change raised")


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except Exception:  # memory of a failed GPU may not be freed; the flowgraph goes on
        log.exception("%s could not be closed", engine.description)


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, WavesfmError) else f"{type(error).__name__}: {error}"
