# SPDX-License-Identifier: GPL-3.0-or-later
"""A thread for looks, so that the detector does not wait for views and engine."""

from __future__ import annotations

import threading
import time
from collections import deque

from .rounds import Job

JOBS = 2  # that wait or run, at most: what is looked at later than that is old


class LookThread:
    """Runs jobs one after the other; jobs handle their exceptions."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._running = self._closed = False
        self._began_s = 0.0  # monotonic time at which the running job began
        self._thread = threading.Thread(target=self._work, name="wavesfm-looks", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds since the running job began; 0.0 when none runs."""
        with self._changed:
            return time.monotonic() - self._began_s if self._running else 0.0

    def submit(self, job: Job) -> bool:
        """Run a job later; False if too many wait, or the thread has ended."""
        with self._changed:
            if self._closed or len(self._jobs) + self._running >= JOBS:
                return False
            self._jobs.append(job)
            self._changed.notify_all()
            return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until no job waits or runs; False if that took longer, or the thread has ended."""
        with self._changed:
            idle = self._changed.wait_for(lambda: self._closed or not (self._jobs or self._running), timeout_s)
            return idle and not self._closed

    def close(self) -> None:
        """Drop the jobs that wait; the thread ends after the one that runs."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs.popleft()
                self._running, self._began_s = True, time.monotonic()
            try:
                job()
            finally:
                with self._changed:
                    self._running = False
                    self._changed.notify_all()
