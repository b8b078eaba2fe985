# SPDX-License-Identifier: GPL-3.0-or-later
"""The live caller's side: a bounded queue, one inference thread, micro-batches, an overrun policy, closing accounts."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .errors import ConfigurationError, EngineError, WavesfmError
from .types import Accounts, ChannelEstimate, Prediction, Slot, Tile

log = logging.getLogger(__name__)

POLICIES = ("block", "drop_oldest", "drop_newest")
Answer = Prediction | ChannelEstimate | WavesfmError


class Predictor(Protocol):
    """What the worker needs of a pipeline."""

    def predict(self, tiles: Any) -> Sequence[Answer]:
        """One answer for each of a list of tiles or slots, in order: an error for one that is bad by itself."""
        ...


class Worker:
    """Classifies tiles, or estimates channels of slots, on a thread of its own, which no exception ends.

    on_predictions(list of Prediction or of ChannelEstimate) is called on that thread, in order, without those that the
    pipeline answered with an error; on_error(WavesfmError, n_tiles) when a batch of n_tiles failed, with n_tiles 1 for
    each such error, and with n_tiles 0 when on_predictions raised (counted in `extra["callback_errors"]`).
    queue_tiles: most that wait; batch_tiles, batch_wait_s: a batch is taken when so many wait or the first has waited
    so long. policy, where the queue is full: `block` makes submit wait, `drop_oldest` and `drop_newest` drop and count.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        pipeline: Predictor,
        on_predictions: Callable[[list[Any]], object],
        queue_tiles: int = 64,
        batch_tiles: int = 8,
        batch_wait_s: float = 0.01,
        policy: str = "block",
        on_error: Callable[[WavesfmError, int], object] | None = None,
    ) -> None:
        if queue_tiles < 1:
            raise ConfigurationError("worker", "queue_tiles", queue_tiles, "1 or more")
        if batch_tiles < 1:
            raise ConfigurationError("worker", "batch_tiles", batch_tiles, "1 or more")
        if not 0 <= batch_wait_s <= 3600:
            raise ConfigurationError("worker", "batch_wait_s", batch_wait_s, "0 to 3600")
        self._pipeline, self._on_predictions, self._on_error = pipeline, on_predictions, on_error
        self._queue_tiles, self._batch_tiles, self._batch_wait_s = (
            queue_tiles,
            min(batch_tiles, queue_tiles),
            batch_wait_s,
        )
        self._changed = threading.Condition()  # its one lock guards all that follows
        self._queue: deque[tuple[Tile | Slot, float]] = deque()
        self._busy = False
        self._closed = False
        self._accounts = Accounts(extra={"callback_errors": 0})
        self.policy = policy
        self._thread = threading.Thread(target=self._work, name="wavesfm-worker", daemon=True)
        self._thread.start()

    @property
    def policy(self) -> str:
        """One of POLICIES; a submit that waits follows a change at once. Raises ConfigurationError."""
        return self._policy

    @policy.setter
    def policy(self, value: str) -> None:
        if value not in POLICIES:
            raise ConfigurationError("worker", "policy", repr(value), "one of " + ", ".join(POLICIES))
        with self._changed:
            self._policy = value
            self._changed.notify_all()

    @property
    def accounts(self) -> Accounts:
        """A consistent copy."""
        with self._changed:
            return dataclasses.replace(self._accounts, extra=dict(self._accounts.extra))

    def submit(self, tile: Tile | Slot) -> bool:
        """Queue a tile or a slot; False when this very one was dropped (drop_newest, or closed while waiting for room).

        Raises ConfigurationError after close.
        """
        with self._changed:
            if self._closed:
                raise ConfigurationError("worker", "submit", "a closed worker", "an open one")
            while len(self._queue) >= self._queue_tiles and self._policy == "block" and not self._closed:
                self._changed.wait()
            self._accounts.tiles_in += 1
            full = len(self._queue) >= self._queue_tiles
            if self._closed or (full and self._policy == "drop_newest"):
                self._accounts.dropped += 1
                return False
            if full:
                self._queue.popleft()
                self._accounts.dropped += 1
                self._accounts.waiting -= 1
            self._queue.append((tile, time.monotonic()))
            self._accounts.waiting += 1
            self._changed.notify_all()
            return True

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing waits and all predictions were handed over; False when `timeout_s` passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self) -> None:
        """Drop and count what waits, let the running batch end, end the thread. Closing twice does no harm."""
        with self._changed:
            self._closed = True
            self._accounts.dropped += len(self._queue)
            self._accounts.waiting -= len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._process(batch)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next_batch(self) -> list[Tile | Slot] | None:
        """Wait for tiles; None once closed. What is returned still counts as waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            while self._queue and len(self._queue) < self._batch_tiles and not self._closed:
                left_s = self._queue[0][1] + self._batch_wait_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if self._closed:
                return None
            self._busy = True
            batch = [self._queue.popleft()[0] for _ in range(min(self._batch_tiles, len(self._queue)))]
            self._changed.notify_all()
            return batch

    def _process(self, batch: list[Tile | Slot]) -> None:
        try:
            predictions = self._pipeline.predict(batch)
            if len(predictions) != len(batch):
                raise EngineError("worker", "predictions", len(predictions), f"{len(batch)}, one for each tile")
        except BaseException as error:  # even SystemExit: nobody would notice that this thread is gone
            self._settle(len(batch), failed=len(batch), error=error)
            self._report(error, "inference", len(batch))
            return
        answers = [prediction for prediction in predictions if not isinstance(prediction, WavesfmError)]
        errors = [prediction for prediction in predictions if isinstance(prediction, WavesfmError)]
        gated = sum(answer.gated for answer in answers)
        last = errors[-1] if errors else None
        self._settle(len(batch), gated=gated, inferred=len(answers) - gated, failed=len(errors), error=last)
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
    ) -> None:
        with self._changed:
            accounts = self._accounts
            accounts.waiting -= decided
            accounts.inferred += inferred
            accounts.gated += gated
            accounts.failed += failed
            accounts.batches += decided > 0
            accounts.extra["callback_errors"] += callback_errors
            if error is not None:
                accounts.last_error = _sentence(error)

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


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, WavesfmError) else f"{type(error).__name__}: {error}"
