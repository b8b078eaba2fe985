# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounded publication: messages wait here, and not in the unbounded queue of a slow reader. No GNU Radio."""

from __future__ import annotations

import threading
import time as clock
from collections import deque
from collections.abc import Callable
from typing import Any

POLL_S = 0.002  # how often a wait for the reader looks at its queue
STALLED_S = 5.0  # a reader that takes nothing for so long is not waited for any more
DROP_AGE_S = 1.0  # messages older than this are dropped under the policies that drop


class Outbox:
    """A queue between a publisher and the readers of one message port; used by any thread.

    Messages leave in order while fewer than `in_flight` wait at the slowest reader. When `limit` messages wait here,
    the policy "block" makes `put` wait; any other drops the oldest, as it does with those older than DROP_AGE_S.

    Parameters
    ----------
    send : callable
        Publishes one message; never blocks.
    queued : callable
        Returns how many messages wait in the fullest queue of the readers.
    policy : callable
        Returns the policy in force.
    cancelled : callable
        Polled while `put` or `drain` waits; returns True when the flowgraph is being stopped.
    in_flight : int
        Most messages in a reader's queue.
    limit : int
        Most messages that wait here.
    """

    def __init__(
        self,
        send: Callable[[Any], None],
        queued: Callable[[], int],
        policy: Callable[[], str],
        cancelled: Callable[[], bool],
        in_flight: int = 16,
        limit: int = 256,
    ) -> None:
        self._send, self._queued, self._policy, self._cancelled = send, queued, policy, cancelled
        self._in_flight, self._limit = in_flight, limit
        self._waiting: deque[tuple[Any, float]] = deque()
        self._lock = threading.Lock()  # guards `_waiting` and the order of what is sent
        self._progress_s = clock.monotonic()  # when a reader last took a message
        self.dropped = 0
        self.stalled = False

    def put(self, message: Any) -> None:
        """Send a message, or queue it where a reader is slow."""
        with self._lock:
            self._waiting.append((message, clock.monotonic()))
        self.flush()
        while len(self._waiting) > self._limit and self._holds_back():
            clock.sleep(POLL_S)
            self.flush()
        with self._lock:
            while len(self._waiting) > self._limit:
                self._waiting.popleft()
                self.dropped += 1

    def flush(self) -> bool:
        """Send what the readers have room for; returns whether nothing waits any more."""
        with self._lock:
            self._drop_old()
            if not self._waiting:
                return True
            room = self._in_flight - self._queued()
            if room > 0:
                self._progress_s, self.stalled = clock.monotonic(), False
            elif clock.monotonic() - self._progress_s > STALLED_S:
                self.stalled = True
            for _ in range(min(room, len(self._waiting))):
                self._send(self._waiting.popleft()[0])
            return not self._waiting

    def drain(self) -> None:
        """Wait until everything was sent, whatever the policy; what a stalled reader does not take is dropped."""
        while not self.flush() and not self.stalled and not self._cancelled():
            clock.sleep(POLL_S)
        self.clear()

    def clear(self) -> None:
        """Drop and count what waits."""
        with self._lock:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _holds_back(self) -> bool:
        return self._policy() == "block" and not self.stalled and not self._cancelled()

    def _drop_old(self) -> None:
        if self._policy() == "block":
            return
        oldest_s = clock.monotonic() - DROP_AGE_S
        while self._waiting and self._waiting[0][1] < oldest_s:
            self._waiting.popleft()
            self.dropped += 1
