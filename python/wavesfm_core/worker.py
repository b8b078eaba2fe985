# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference on its own thread: a bounded queue, micro-batches, an overrun policy, an age limit, closing accounts."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .errors import ConfigurationError, EngineError, WavesfmError
from .types import Accounts, ChannelEstimate, Prediction, Slot, Tile

log = logging.getLogger(__name__)

POLICIES = ("block", "drop_oldest", "drop_newest")
POLL_S = 0.05  # how often a wait looks whether it was cancelled
SPEED_WEIGHT = 0.3  # of the newest batch in the running mean of the seconds per item
Answer = Prediction | ChannelEstimate | WavesfmError
Cancelled = Callable[[], bool]


class Predictor(Protocol):
    """The part of a pipeline that the worker calls."""

    def predict(self, tiles: Any) -> Sequence[Answer]:
        """Answer each item of a list of tiles or slots, in order; a bad item is answered with its error."""
        ...


@dataclass(frozen=True)
class WorkerOptions:
    """Queue and batch limits of a worker."""

    queue_tiles: int = 64
    """Most items that wait."""
    batch_tiles: int = 8
    """A batch is run when this many items wait."""
    batch_wait_s: float = 0.01
    """A smaller batch is run when its first item has waited this long, in seconds."""
    max_age_s: float = 0.0
    """Items older than this when their batch begins are dropped, in seconds; 0 keeps all."""

    def __post_init__(self) -> None:
        limits = (
            ("queue_tiles", self.queue_tiles >= 1, "1 or more"),
            ("batch_tiles", self.batch_tiles >= 1, "1 or more"),
            ("batch_wait_s", 0 <= self.batch_wait_s <= 3600, "0 to 3600"),
            ("max_age_s", 0 <= self.max_age_s <= 3600, "0 (no limit) to 3600"),
        )
        for name, is_right, expected in limits:
            if not is_right:
                raise ConfigurationError("worker", name, getattr(self, name), expected)


class _Waiting(NamedTuple):
    item: Tile | Slot
    queued_s: float

    @property
    def since_s(self) -> float:
        """Monotonic time at which the item's last sample arrived, or at which it was queued."""
        return self.queued_s if self.item.arrived_s is None else self.item.arrived_s


class Worker:
    """Classify tiles, or estimate the channels of slots, on a thread that no exception ends.

    Parameters
    ----------
    pipeline : Predictor
        Called with one batch at a time.
    on_predictions : callable
        Called on the worker's thread with a list of answers, in order, without those that are errors.
    options : WorkerOptions
        Queue and batch limits.
    policy : {"block", "drop_oldest", "drop_newest"}
        What `submit` does when the queue is full: wait, or drop and count.
    on_error : callable, optional
        Called with (WavesfmError, n_items): a failed batch, a failed item (n_items 1), or an exception of
        `on_predictions` (n_items 0, counted in `accounts.extra["callback_errors"]`).

    Raises
    ------
    ConfigurationError
        For an unknown policy.
    """

    def __init__(
        self,
        pipeline: Predictor,
        on_predictions: Callable[[list[Any]], object],
        options: WorkerOptions | None = None,
        policy: str = "block",
        on_error: Callable[[WavesfmError, int], object] | None = None,
    ) -> None:
        self._pipeline, self._on_predictions, self._on_error = pipeline, on_predictions, on_error
        self.options = options = options or WorkerOptions()
        self._batch_tiles = min(options.batch_tiles, options.queue_tiles)
        self._changed = threading.Condition()  # its lock guards every attribute below
        self._queue: deque[_Waiting] = deque()
        self._batch_began_s: float | None = None
        self._batch_size = 0
        self._item_s = 0.0  # running mean of the seconds per item in `predict`
        self._closed = self._abandoned = False
        self._accounts = Accounts(extra={"callback_errors": 0, "too_old": 0})
        self.policy = policy
        self._thread = threading.Thread(target=self._work, name="wavesfm-worker", daemon=True)
        self._thread.start()

    @property
    def policy(self) -> str:
        """One of POLICIES; a waiting `submit` follows a change at once. Raises ConfigurationError."""
        return self._policy

    @policy.setter
    def policy(self, value: str) -> None:
        check_policy(value)
        with self._changed:
            self._policy = value
            self._changed.notify_all()

    @property
    def accounts(self) -> Accounts:
        """A consistent copy of the accounts; `extra["too_old"]` is the part of `dropped` that `max_age_s` dropped."""
        with self._changed:
            return dataclasses.replace(self._accounts, extra=dict(self._accounts.extra))

    @property
    def batch_s(self) -> float:
        """Seconds since the running batch began, 0.0 between batches."""
        began_s = self._batch_began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def submit(self, item: Tile | Slot, cancelled: Cancelled | None = None) -> bool:
        """Queue a tile or a slot.

        Parameters
        ----------
        item : Tile or Slot
            What to infer.
        cancelled : callable, optional
            Polled while `submit` waits for room; the item is dropped once it returns True.

        Returns
        -------
        bool
            False if this item was dropped.

        Raises
        ------
        ConfigurationError
            After `close`.
        """
        with self._changed:
            if self._closed:
                raise ConfigurationError("worker", "submit", "a closed worker", "an open one")
            gave_up = False
            while self._full() and self._policy == "block" and not self._closed and not gave_up:
                self._changed.wait(None if cancelled is None else POLL_S)
                gave_up = cancelled is not None and cancelled()
            self._accounts.tiles_in += 1
            if self._closed or gave_up or (self._full() and self._policy == "drop_newest"):
                self._accounts.dropped += 1
                return False
            if self._full():
                self._queue.popleft()
                self._accounts.dropped += 1
                self._accounts.waiting -= 1
            self._queue.append(_Waiting(item, time.monotonic()))
            self._accounts.waiting += 1
            self._changed.notify_all()
            return True

    def drain(self, timeout_s: float | None = None, cancelled: Cancelled | None = None) -> bool:
        """Wait until the queue is empty and all answers were handed over; False after `timeout_s` or if cancelled."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._queue or self._batch_began_s is not None:
                left_s = None if end_s is None else end_s - time.monotonic()
                if (left_s is not None and left_s <= 0) or (cancelled is not None and cancelled()):
                    return False
                waits_s = [seconds for seconds in (left_s, POLL_S if cancelled else None) if seconds is not None]
                self._changed.wait(min(waits_s) if waits_s else None)
            return True

    def close(self, timeout_s: float | None = None) -> bool:
        """Drop and count waiting items, let the running batch end, end the thread; closing twice is harmless.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait for the running batch; after them the thread is abandoned: its batch counts as failed and
            what it still returns is ignored.

        Returns
        -------
        bool
            False if the thread was abandoned.
        """
        with self._changed:
            self._closed = True
            self._accounts.dropped += len(self._queue)
            self._accounts.waiting -= len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if threading.current_thread() is self._thread:
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._abandon()
        return not self._abandoned

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _full(self) -> bool:
        return len(self._queue) >= self.options.queue_tiles

    def _abandon(self) -> None:
        with self._changed:
            if self._abandoned or self._batch_began_s is None:
                return
            self._abandoned = True
            self._accounts.waiting -= self._batch_size
            self._accounts.failed += self._batch_size
            self._accounts.last_error = f"the engine has not returned for {self.batch_s:.0f} s"

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._process(batch)
            with self._changed:
                self._batch_began_s = None
                self._changed.notify_all()

    def _next_batch(self) -> list[Tile | Slot] | None:
        """Wait for items; None once closed. The items returned still count as waiting."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._closed)
                self._drop_old()
                while self._queue and len(self._queue) < self._batch_limit() and not self._closed:
                    left_s = self._queue[0].queued_s + self.options.batch_wait_s - time.monotonic()
                    if left_s <= 0:
                        break
                    self._changed.wait(left_s)
                if self._closed:
                    return None
                if self._queue:
                    break
            count = min(self._batch_limit(), len(self._queue))
            self._batch_began_s, self._batch_size = time.monotonic(), count
            batch = [self._queue.popleft().item for _ in range(count)]
            self._changed.notify_all()
            return batch

    def _batch_limit(self) -> int:
        """Most items of a batch: with an age limit no more than are inferred within that time."""
        if self.options.max_age_s and self._item_s:
            return max(1, min(self._batch_tiles, int(self.options.max_age_s / self._item_s)))
        return self._batch_tiles

    def _drop_old(self) -> None:
        if not self.options.max_age_s:
            return
        oldest_s = time.monotonic() - self.options.max_age_s
        while self._queue and self._queue[0].since_s < oldest_s:
            self._queue.popleft()
            self._accounts.dropped += 1
            self._accounts.waiting -= 1
            self._accounts.extra["too_old"] += 1
            self._changed.notify_all()

    def _process(self, batch: list[Tile | Slot]) -> None:
        began_s = time.monotonic()
        try:
            predictions = self._pipeline.predict(batch)
            if len(predictions) != len(batch):
                raise EngineError("worker", "predictions", len(predictions), f"{len(batch)}, one for each tile")
        except BaseException as error:  # even SystemExit: nobody would notice that this thread has ended
            if self._settle(len(batch), failed=len(batch), error=error):
                self._report(error, "inference", len(batch))
            return
        item_s = (time.monotonic() - began_s) / len(batch)
        self._item_s += SPEED_WEIGHT * (item_s - self._item_s) if self._item_s else item_s
        answers = [prediction for prediction in predictions if not isinstance(prediction, WavesfmError)]
        errors = [prediction for prediction in predictions if isinstance(prediction, WavesfmError)]
        gated = sum(answer.gated for answer in answers)
        last = errors[-1] if errors else None
        if not self._settle(len(batch), gated=gated, inferred=len(answers) - gated, failed=len(errors), error=last):
            return
        for refused in errors:
            self._report(refused, "inference", 1)
        if not answers:
            return
        try:
            self._on_predictions(answers)
        except BaseException as error:
            self._settle(0, error=error, callback_errors=1)
            self._report(error, "on_predictions", 0)

    def _settle(
        self,
        decided: int,
        inferred: int = 0,
        gated: int = 0,
        failed: int = 0,
        error: BaseException | None = None,
        callback_errors: int = 0,
    ) -> bool:
        """Book a batch; False if the thread was abandoned, which has booked it already."""
        with self._changed:
            if self._abandoned:
                return False
            accounts = self._accounts
            accounts.waiting -= decided
            accounts.inferred += inferred
            accounts.gated += gated
            accounts.failed += failed
            accounts.batches += decided > 0
            accounts.extra["callback_errors"] += callback_errors
            if error is not None:
                accounts.last_error = _sentence(error)
            self._batch_size = 0
            return True

    def _report(self, error: BaseException, field: str, n_tiles: int) -> None:
        if not isinstance(error, WavesfmError):
            log.error("worker: %s raised", field, exc_info=error)
            error = EngineError("worker", field, _sentence(error), "no exception")
        if self._on_error is None:
            log.error("%s", error)
            return
        try:
            self._on_error(error, n_tiles)
        except BaseException as second:
            log.error("worker: on_error raised", exc_info=second)
            self._settle(0, error=second, callback_errors=1)


def check_policy(policy: str) -> None:
    """Raise ConfigurationError unless the policy is one of POLICIES."""
    if policy not in POLICIES:
        raise ConfigurationError("worker", "policy", repr(policy), "one of " + ", ".join(POLICIES))


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, WavesfmError) else f"{type(error).__name__}: {error}"
