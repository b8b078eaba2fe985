# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep an engine open over a restart, and close it when the block rests or is gone. No GNU Radio."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

IDLE_S = 60.0  # seconds after a stop at which the engine is closed; opening one takes about half a second


class Reopenable(Protocol):
    """A pipeline."""

    def close(self) -> None: ...

    def abandon(self) -> None: ...

    def reopen(self) -> None: ...


class IdleEngine:
    """Opens and closes the engine of a pipeline for a block that starts and stops; used by any thread.

    Parameters
    ----------
    owner : object
        The block; when it is gone the engine is closed. The pipeline must not hold a reference to it.
    pipeline : Reopenable
        Open at first.
    """

    def __init__(self, owner: object, pipeline: Reopenable) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._gone = weakref.finalize(owner, pipeline.close)
        self._gone.atexit = False  # at the end of the process `engines.shared` closes what is open

    def use(self) -> None:
        """Keep the engine open; a closed one is opened. Raises as `Pipeline.open` does."""
        with self._lock:
            self._cancel()
            self._pipeline.reopen()

    def rest(self) -> None:
        """Close the engine in IDLE_S, unless it is used before."""
        with self._lock:
            self._cancel()
            self._timer = threading.Timer(IDLE_S, self._close)
            self._timer.name, self._timer.daemon = "wavesfm-idle", True
            self._timer.start()

    def abandon(self) -> None:
        """Give up an engine that does not return; the next `use` opens another one."""
        with self._lock:
            self._cancel()
            self._pipeline.abandon()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread():
                self._timer = None
                try:
                    self._pipeline.close()
                except Exception:
                    log.exception("closing an idle engine")


def weak_listener(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a bound method while its object is alive, without keeping it alive.

    After that it returns None.
    """
    reference = weakref.WeakMethod(method)

    def listen(*values: Any, **named: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*values, **named)

    return listen
