# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine for every pipeline of a process that asks for the same one: one set of weights, batches mixed."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from ..errors import EngineError
from ..types import Tensor
from .base import Engine, closed
from .standby import EngineChange, StandbyEngine

log = logging.getLogger(__name__)

POLL_S = 0.05  # how often a caller that waits for another's batch looks whether its lease was closed
Outputs = dict[str, Tensor]
OnChange = Callable[[EngineChange], object]
Opener = Callable[[OnChange | None], Engine]


class _Request(NamedTuple):
    inputs: Mapping[str, Tensor]
    outputs: Future[Outputs]


class EngineLease:
    """A caller's share of an engine; an `Engine` whose `run` may be called beside other leases' on other threads."""

    def __init__(self, shared: _SharedEngine, on_change: OnChange | None) -> None:
        self._shared = shared
        self.on_change = on_change
        self.closed = False

    @property
    def engine(self) -> Engine:
        """The engine that all its leases share."""
        return self._shared.engine

    @property
    def description(self) -> str:
        """See `Engine.description`."""
        return self.engine.description

    @property
    def relative_tolerance(self) -> float:
        """See `Engine.relative_tolerance`."""
        return self.engine.relative_tolerance

    def run(self, inputs: Mapping[str, Tensor]) -> Outputs:
        """See `Engine.run`; batches that several leases have ready are run as one."""
        if self.closed:
            raise closed("shared engine")
        return self._shared.run(inputs, self)

    def close(self) -> None:
        """Give the share back; the last one closes the engine. Closing twice is harmless."""
        if not self.closed:
            self.closed = True
            self._shared.release(self)

    def abandon(self) -> None:
        """Give up an engine that does not return: it is never closed, and the next `acquire` opens another one."""
        self.closed = True
        self._shared.forget()


class _SharedEngine:
    """An engine, its leases and the requests that wait for it."""

    def __init__(self, key: Hashable, opener: Opener, notified: bool) -> None:
        self._key = key
        self.leases: list[EngineLease] = []
        self._running = threading.Lock()  # held by the thread that runs the engine
        self._requests: list[_Request] = []
        self._lock = threading.Lock()  # guards `leases` and `_requests`
        self.engine = opener(self._notify if notified else None)

    def lease(self, on_change: OnChange | None) -> EngineLease:
        lease = EngineLease(self, on_change)
        with self._lock:
            self.leases.append(lease)
        return lease

    def release(self, lease: EngineLease) -> None:
        with _registry_lock:
            with self._lock:
                if lease in self.leases:
                    self.leases.remove(lease)
                last = not self.leases
            if last:
                self.forget()
        if last:
            with self._running:  # a batch of this very lease may be under way
                self.engine.close()

    def forget(self) -> None:
        """Let nobody else acquire this engine."""
        if _registry.get(self._key) is self:
            del _registry[self._key]

    def run(self, inputs: Mapping[str, Tensor], lease: EngineLease) -> Outputs:
        """Queue a batch; the thread that gets the engine runs all batches that wait."""
        request = _Request(inputs, Future())
        with self._lock:
            self._requests.append(request)
        while not request.outputs.done():
            if self._running.acquire(timeout=POLL_S):
                try:
                    self._run_all()
                finally:
                    self._running.release()
            elif lease.closed:
                raise closed("shared engine")
        return request.outputs.result()

    def _run_all(self) -> None:
        with self._lock:
            requests, self._requests = self._requests, []
        if len(requests) > 1 and self._run_mixed(requests):
            return
        for request in requests:
            try:
                request.outputs.set_result(self.engine.run(request.inputs))
            except BaseException as error:
                request.outputs.set_exception(error)

    def _run_mixed(self, requests: list[_Request]) -> bool:
        """Run the batches as one; False if that fails: then each is run alone and only the bad one fails."""
        try:
            names = requests[0].inputs.keys()
            mixed = {name: np.concatenate([request.inputs[name] for request in requests]) for name in names}
            outputs = self.engine.run(mixed)
        except Exception as error:
            log.warning("a batch of %d callers failed, each is run alone: %s", len(requests), error)
            return False
        first = 0
        for request in requests:
            last = first + len(next(iter(request.inputs.values())))
            request.outputs.set_result({name: output[first:last] for name, output in outputs.items()})
            first = last
        return True

    def _notify(self, change: EngineChange) -> None:
        with self._lock:
            listeners = [lease.on_change for lease in self.leases if lease.on_change is not None]
        for on_change in listeners:
            try:
                on_change(change)
            except Exception:
                log.exception("a listener of the engine raised")


_registry: dict[Hashable, _SharedEngine] = {}
_registry_lock = threading.RLock()


def acquire(key: Hashable, opener: Opener, on_change: OnChange | None = None) -> EngineLease:
    """Take a share of the engine that is open under `key`, or open it.

    Parameters
    ----------
    key : hashable
        What makes two engines equal: the bundle and every option with which it is opened.
    opener : callable
        Opens the engine where there is none; called with a listener for its changes, or None.
    on_change : callable, optional
        Called with each EngineChange of the engine while the lease is open, on any thread.

    Returns
    -------
    EngineLease
        To be closed by the caller.

    Raises
    ------
    WavesfmError
        As `opener` does.
    """
    with _registry_lock:
        shared = _registry.get(key)
        if shared is None:
            shared = _registry[key] = _SharedEngine(key, opener, on_change is not None)
        return shared.lease(on_change)


def engine_failures(engine: Engine | None) -> int:
    """Return how often a GPU's engine failed in a StandbyEngine, shared or not; 0 for other engines and for None."""
    if isinstance(engine, EngineLease):
        engine = engine.engine
    return engine.failures if isinstance(engine, StandbyEngine) else 0


def remote_accounts(engine: Engine | None) -> dict[str, float]:
    """Return the fields of RemoteAccounts of an engine on a server, shared or not; {} for other engines."""
    if isinstance(engine, EngineLease):
        engine = engine.engine
    remote = getattr(engine, "remote", None)
    return {} if remote is None else dict(vars(remote))


def close_all() -> None:
    """Close every shared engine that is not running; at the end of the process."""
    with _registry_lock:
        engines = list(_registry.values())
        _registry.clear()
    for shared in engines:
        if shared._running.acquire(timeout=POLL_S):
            try:
                shared.engine.close()
            except EngineError as error:
                log.warning("%s", error)
            finally:
                shared._running.release()


atexit.register(close_all)
