# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of an output, and the thread that serves one: bounded queue, counted drops, reconnects."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..bus import Record

log = logging.getLogger(__name__)

BACK_OFF_S = (0.5, 30.0)  # first and longest wait between two attempts to reach a peer


class Output(Protocol):
    """One peer. All methods but `close` run on one thread."""

    name: str
    """For accounts and logs, such as "mqtt broker:1883"."""
    kinds: frozenset[str]
    """Kinds of the records that it takes."""

    def connect(self) -> None:
        """Reach the peer. Raises any exception where that fails; it is tried again later."""
        ...

    def send(self, record: Record) -> None:
        """Hand a record over.

        Raises
        ------
        OSError
            The peer is gone or does not answer: the record is sent again after the next `connect`.
        Exception
            Any other: the record is refused and counted as failed.
        """
        ...

    def close(self) -> None:
        """Let go of the peer; also after a failed `connect` or `send`. Finish files."""
        ...


@dataclass
class OutputAccounts:
    """Where the records of an output went; records_in = sent + dropped + failed + waiting."""

    records_in: int = 0
    """Records of its kinds."""
    sent: int = 0
    """Records handed to the peer."""
    dropped: int = 0
    """Records that did not fit into the queue or waited at the end; the oldest go first."""
    failed: int = 0
    """Records that the peer refused."""
    waiting: int = 0
    """Records in the queue, with the one that is being sent."""
    connects: int = 0
    """How often the peer was reached."""
    disconnects: int = 0
    """How often the peer was lost or could not be reached."""
    last_error: str = ""
    """Text of the last fault; "" for none."""

    def closes(self) -> bool:
        """Whether every record is accounted for."""
        return self.records_in == self.sent + self.dropped + self.failed + self.waiting


class OutputWorker:
    """Serve an output on a thread that no exception of the output ends.

    Parameters
    ----------
    output : Output
        Closed at the end.
    queue_records : int
        Most records that wait; then the oldest is dropped and counted.
    back_off_s : tuple of float
        First and longest wait in seconds between two attempts to reach the peer; each is twice the one before.
    """

    def __init__(self, output: Output, queue_records: int = 1000, back_off_s: tuple[float, float] = BACK_OFF_S) -> None:
        self.output = output
        self._limit, self._back_off_s = queue_records, back_off_s
        self._changed = threading.Condition()  # its reentrant lock guards all below
        self._queue: deque[Record] = deque()
        self._accounts = OutputAccounts()
        self._closing = self._cancelled = False
        self._thread = threading.Thread(target=self._work, name=f"wavesfm-{output.name[:24]}", daemon=True)
        self._thread.start()

    @property
    def accounts(self) -> OutputAccounts:
        """A consistent copy."""
        with self._changed:
            return replace(self._accounts)

    def take(self, record: Record) -> None:
        """Queue a record of the output's kinds; never blocks."""
        if record.kind not in self.output.kinds:
            return
        with self._changed:
            accounts = self._accounts
            accounts.records_in += 1
            if self._closing:
                accounts.dropped += 1
                return
            if len(self._queue) >= self._limit:
                self._queue.popleft()
                accounts.dropped += 1
                accounts.waiting -= 1
            self._queue.append(record)
            accounts.waiting += 1
            self._changed.notify_all()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Send what waits for at most `timeout_s` seconds, drop and count the rest, close the output.

        Returns False where the output did not return in time: its thread is abandoned.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            self._cancelled = True
            self._accounts.dropped += self._accounts.waiting
            self._accounts.waiting = 0
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s / 4)
        return not self._thread.is_alive()

    def _work(self) -> None:
        wait_s = self._back_off_s[0]
        while not self._is_done():
            if self._attempt(self.output.connect):
                with self._changed:
                    self._accounts.connects += 1
                wait_s = self._back_off_s[0]
                self._send_all()
            self._close_output()
            with self._changed:
                if not self._is_done():
                    self._changed.wait_for(lambda: self._cancelled, wait_s)
            wait_s = min(2 * wait_s, self._back_off_s[1])

    def _is_done(self) -> bool:
        with self._changed:
            return self._cancelled or (self._closing and not self._queue)

    def _send_all(self) -> None:
        """Send records until the end, or until the peer is lost. A record that the peer did not get stays first."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if self._is_done():
                    return
                record = self._queue[0]
            try:
                self.output.send(record)
            except OSError as error:
                self._lost(error)
                return
            except Exception as error:
                log.exception("%s refused a record", self.output.name)
                self._settle(record, sent=False, error=error)
            else:
                self._settle(record, sent=True)

    def _settle(self, record: Record, sent: bool, error: Exception | None = None) -> None:
        with self._changed:
            if error is not None:
                self._accounts.last_error = f"{type(error).__name__}: {error}"
            if not self._queue or self._queue[0] is not record:
                return  # it was dropped, and counted, while it was being sent
            self._queue.popleft()
            self._accounts.waiting -= 1
            self._accounts.sent += sent
            self._accounts.failed += not sent

    def _attempt(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except Exception as error:
            self._lost(error)
            return False
        return True

    def _lost(self, error: Exception) -> None:
        with self._changed:
            is_news = not self._accounts.last_error
            self._accounts.disconnects += 1
            self._accounts.last_error = f"{type(error).__name__}: {error}"
        log.log(logging.WARNING if is_news else logging.INFO, "%s: %s", self.output.name, error)

    def _close_output(self) -> None:
        try:
            self.output.close()
        except Exception as error:
            log.warning("%s: closing failed: %s", self.output.name, error)
