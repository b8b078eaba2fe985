# SPDX-License-Identifier: GPL-3.0-or-later
"""A thread that watches a running block: accounts, an engine that hangs, readers that are slow. No GNU Radio."""

from __future__ import annotations

import logging
import threading
import time as clock
from typing import Any, Protocol

log = logging.getLogger(__name__)

TICK_S = 0.05
ACCOUNTS_EVERY_S = 1.0
STALLED_S = 5.0  # an engine that has not returned for so long is reported as hanging


class Watched(Protocol):
    """What the monitor asks of a run; each method may be called on the monitor's thread."""

    def batch_s(self) -> float:
        """Seconds since the running batch began, 0.0 between batches."""
        ...

    def silence(self, now_s: float) -> str:
        """Why no result came for a while, or "". now_s: monotonic."""
        ...

    def status(self) -> dict[str, Any]:
        """The accounts."""
        ...


class Publisher(Protocol):
    """What the monitor calls of a `StatusPublisher`."""

    @property
    def stalled(self) -> str: ...

    def flush(self) -> None: ...

    def report(self, kind: str, **values: Any) -> None: ...


class Monitor:
    """Publishes accounts once a second, and a warning when something begins to stall.

    Parameters
    ----------
    publisher : Publisher
        Where messages go; its outboxes are flushed.
    watched : Watched
        The run.
    """

    def __init__(self, publisher: Publisher, watched: Watched) -> None:
        self._publisher, self._watched = publisher, watched
        self._stop = threading.Event()
        self._accounts_s = clock.monotonic()
        self._warned: dict[str, bool] = {}
        self._thread = threading.Thread(target=self._run, name="wavesfm-monitor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when nothing more is published."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def tick(self, now_s: float) -> None:
        """Look once; now_s: monotonic."""
        self._publisher.flush()
        batch_s = self._watched.batch_s()
        text = f"no batch for {batch_s:.0f} s: the engine has not returned" if batch_s > STALLED_S else ""
        if self._warn("engine", text):
            self._warn("silence", self._watched.silence(now_s))
        ports = self._publisher.stalled
        self._warn("reader", f"the reader of {ports} takes no messages: they are dropped" if ports else "")
        if now_s - self._accounts_s >= ACCOUNTS_EVERY_S:
            self._accounts_s = now_s
            self._publisher.report("accounts", **self._watched.status())

    def _warn(self, kind: str, text: str) -> bool:
        """Publish a text when it begins to hold; returns whether all is well."""
        if bool(text) != self._warned.get(kind, False):
            self._warned[kind] = bool(text)
            if text:
                self._publisher.report("warning", text=text)
        return not text

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self.tick(clock.monotonic())
            except Exception:
                log.exception("the monitor of a block")
