# SPDX-License-Identifier: GPL-3.0-or-later
"""The search of the band beside a live stream, on its own thread: a bounded queue of samples, closing accounts."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from .band.look_thread import LookThread
from .band.options import BandOptions
from .band.types import Emitter, Event
from .band_stream import BandStream
from .errors import EngineError, WavesfmError
from .pipeline import Pipeline
from .types import Samples, StreamTime

log = logging.getLogger(__name__)
POLL_S = 0.05  # how often a wait looks whether it was cancelled
QUEUE_S = 1.0  # of samples that wait, at most; planning the transforms takes a part of it once
QUEUE_SAMPLES = 1 << 25  # 256 MiB
UNKNOWN_RATE_SAMPLES = 1 << 20


@dataclass
class BandAccounts:
    """Where the samples of a searched stream went; samples_in = searched + missed + waiting."""

    samples_in: int = 0
    """Samples that came."""
    samples_searched: int = 0
    """Samples that the detector saw."""
    samples_missed: int = 0
    """Samples dropped because the search was slower than the stream, or because the rate is unknown."""
    samples_waiting: int = 0
    """Samples in the queue."""
    looks_left: int = 0
    """Emitters that were due for a look and had to wait for the budget or the engine."""
    looks_busy: int = 0
    """Of these, the ones for which the engine had no time."""
    events: int = 0
    """Events that were handed over."""
    failures: int = 0
    """Exceptions of the search; each begins the search anew."""


@dataclass(frozen=True)
class _Retune:
    """What is reported of the next sample; None: as before."""

    rate_hz: float | None = None
    centre_hz: float | None = None
    time: StreamTime | None = None


@dataclass(frozen=True)
class _Lost:
    """Samples that were dropped; the search begins anew behind them."""

    count: int


@dataclass(frozen=True)
class _Swap:
    """Another pipeline from the next sample on."""

    pipeline: Pipeline
    on_swapped: Callable[[Pipeline], object]


class BandWorker:
    """Search one stream for emitters on a thread that no exception ends.

    A second thread cuts the views of the emitters and calls the engine, so that the detector does not wait for it.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle for spectrograms; its engine is called on the second thread, so it is one of `engines.shared`.
    on_events : callable
        Called on the worker's thread with a list of events, in order.
    on_error : callable
        Called on the worker's thread with a WavesfmError.
    rate_hz, centre_hz
        As known at the start: 0.0 and None when unknown.
    start_sample : int
        Index of the first sample.
    options : BandOptions or None
        None for the defaults.
    numbered : int
        Emitters get numbers above this one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        on_events: Callable[[list[Event]], object],
        on_error: Callable[[WavesfmError], object],
        rate_hz: float = 0.0,
        centre_hz: float | None = None,
        start_sample: int = 0,
        options: BandOptions | None = None,
        numbered: int = 0,
    ) -> None:
        self._pipeline, self._on_events, self._on_error = pipeline, on_events, on_error
        self._options = options
        self._rate_hz, self._centre_hz = rate_hz, centre_hz  # as the thread knows them
        self._limit_rate_hz = rate_hz  # as the sender knows it
        self._position = start_sample  # of the next sample that the thread takes
        self._time: StreamTime | None = None  # of that sample, as known while there is no stream
        self._stream: BandStream | None = None
        self._numbered = numbered  # largest number of an emitter so far
        self._emitters: list[Emitter] = []
        self._changed = threading.Condition()  # its lock guards the queue and the accounts
        self._queue: deque[Samples | _Retune | _Lost | _Swap] = deque()
        self._full = False  # since when samples are dropped, until half of the queue is done
        self._accounts = BandAccounts()
        self._busy_since_s: float | None = None  # monotonic time at which the thread took its present item
        self._closed = False
        self._cancelled: Callable[[], bool] = lambda: False
        self._looks = LookThread()
        self._thread = threading.Thread(target=self._work, name="wavesfm-band", daemon=True)
        self._thread.start()

    @property
    def accounts(self) -> BandAccounts:
        """A consistent copy."""
        with self._changed:
            return replace(self._accounts)

    @property
    def emitters(self) -> list[Emitter]:
        """Emitters of the present tuning, as they were known after the last samples."""
        with self._changed:
            return list(self._emitters)

    @property
    def busy_s(self) -> float:
        """Seconds since the search took its present item, or since its running look began; 0.0 while both wait."""
        with self._changed:
            search_s = 0.0 if self._busy_since_s is None else time.monotonic() - self._busy_since_s
        return max(search_s, self._looks.busy_s)

    @property
    def largest_number(self) -> int:
        """Largest number of an emitter so far."""
        with self._changed:
            stream = self._stream
            return self._numbered if stream is None else max(self._numbered, stream.largest_number)

    def push(self, samples: Samples, block: bool, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Take samples in; they are copied.

        Parameters
        ----------
        samples : ndarray of complex64 [n]
        block : bool
            With a full queue: wait, or drop and count.
        cancelled : callable
            Polled while this waits; True ends the wait.
        """
        count = int(samples.size)
        if not count:
            return
        with self._changed:
            self._accounts.samples_in += count
            limit = min(int(QUEUE_S * self._limit_rate_hz) or UNKNOWN_RATE_SAMPLES, QUEUE_SAMPLES)
            limit = max(count, limit)
            while block and self._is_full(count, limit) and not (self._closed or cancelled()):
                self._changed.wait(POLL_S)
            # One long gap costs the search less than many short ones: what is full takes in again when half is done.
            still = self._full and not block and self._accounts.samples_waiting > limit // 2
            self._full = still or self._is_full(count, limit)
            if self._closed:
                self._accounts.samples_missed += count
            elif self._full:
                self._accounts.samples_missed += count
                self._append_lost(count)
            else:
                self._accounts.samples_waiting += count
                self._queue.append(samples.copy())
            self._changed.notify_all()

    def lose(self, count: int) -> None:
        """Count samples that never came here; the search begins anew behind them."""
        with self._changed:
            self._accounts.samples_in += count
            self._accounts.samples_missed += count
            if not self._closed:
                self._append_lost(count)
            self._changed.notify_all()

    def swap(self, pipeline: Pipeline, on_swapped: Callable[[Pipeline], object]) -> None:
        """Search with another pipeline from the next sample on; no sample is lost, and the emitters begin anew.

        Parameters
        ----------
        pipeline : Pipeline
            The new one.
        on_swapped : callable
            Called with the old pipeline on the worker's thread when it is no longer used.
        """
        with self._changed:
            self._queue.append(_Swap(pipeline, on_swapped))
            self._changed.notify_all()

    def retune(
        self, rate_hz: float | None = None, centre_hz: float | None = None, time: StreamTime | None = None
    ) -> None:
        """Take in what is reported of the next sample; None for what does not change."""
        with self._changed:
            if rate_hz is not None:
                self._limit_rate_hz = rate_hz
            self._queue.append(_Retune(rate_hz, centre_hz, time))
            self._changed.notify_all()

    def finish(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Search what waits, end every emitter, and end the thread; False if cancelled."""
        self._cancelled = cancelled
        with self._changed:
            while self._is_busy() and not (self._closed or cancelled()):
                self._changed.wait(POLL_S)
            done = not self._is_busy()
        if done and self._stream is not None:
            self._run(self._stream.finish)
        self.close(None if done else POLL_S)  # a search that hangs is not waited for
        return done

    def close(self, timeout_s: float | None = None) -> bool:
        """End the thread; samples that wait are counted as missed. False if it has not ended in time."""
        with self._changed:
            self._closed = True
            self._accounts.samples_missed += self._accounts.samples_waiting
            self._accounts.samples_waiting = 0
            self._queue.clear()
            self._changed.notify_all()
        self._looks.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _is_busy(self) -> bool:
        return bool(self._queue) or self._busy_since_s is not None

    def _append_lost(self, count: int) -> None:
        """A gap, or a longer one if one waits already."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Lost):
            self._queue.pop()
            count += last.count
        self._queue.append(_Lost(count))

    def _is_full(self, count: int, limit: int) -> bool:
        return self._accounts.samples_waiting + count > limit

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                item = self._queue.popleft()
                self._busy_since_s = time.monotonic()
            self._take(item)
            with self._changed:
                self._busy_since_s = None
                self._changed.notify_all()

    def _take(self, item: Samples | _Retune | _Lost | _Swap) -> None:
        if isinstance(item, _Retune):
            self._retune(item)
        elif isinstance(item, _Swap):
            self._swap(item)
        elif isinstance(item, _Lost):
            self._end()
            self._position += item.count
            if self._time is not None and self._rate_hz > 0:
                self._time = self._time.advanced(item.count / self._rate_hz)
        else:
            searched = self._search(item)
            with self._changed:
                if not self._closed:
                    self._accounts.samples_waiting -= item.size
                    self._accounts.samples_searched += item.size if searched else 0
                    self._accounts.samples_missed += 0 if searched else item.size
            self._position += item.size

    def _retune(self, item: _Retune) -> None:
        self._rate_hz = self._rate_hz if item.rate_hz is None else item.rate_hz
        self._centre_hz = self._centre_hz if item.centre_hz is None else item.centre_hz
        if self._rate_hz <= 0:
            self._end()
        elif self._stream is None:
            self._begin(item.time or self._time)
        else:
            stream = self._stream
            self._run(lambda: stream.retune(item.rate_hz, item.centre_hz, item.time))

    def _swap(self, item: _Swap) -> None:
        self._end()  # the next samples begin anew
        old, self._pipeline = self._pipeline, item.pipeline
        item.on_swapped(old)

    def _search(self, samples: Samples) -> bool:
        if self._stream is None:
            if self._rate_hz <= 0:
                return False
            self._begin(self._time)
        stream = self._stream
        return stream is not None and self._run(lambda: stream.push(samples))

    def _begin(self, stream_time: StreamTime | None) -> None:
        self._stream = BandStream(
            self._pipeline,
            self._rate_hz,
            self._centre_hz,
            stream_time,
            self._position,
            self._options,
            self._numbered,
            self._looks.submit,
            self._settle,
        )

    def _settle(self, wait_s: float) -> None:
        """Wait for the looks that were submitted."""
        end = time.monotonic() + wait_s
        while not (self._closed or self._cancelled()) and time.monotonic() < end:
            if self._looks.wait(min(POLL_S, wait_s)):
                return

    def _end(self) -> None:
        """End every emitter; the search begins anew with the next samples."""
        if self._stream is not None:
            self._run(self._stream.finish)
            self._forget()

    def _forget(self) -> None:
        if self._stream is not None:
            self._numbered = self._stream.largest_number
            self._time = self._stream.time_of_next
        self._stream = None

    def _run(self, call: Callable[[], list[Event]]) -> bool:
        """Hand over the events of a call; after an exception the search begins anew. Returns whether it went well."""
        try:
            events = call()
            with self._changed:
                self._emitters = [] if self._stream is None else self._stream.emitters
            if events:
                self._on_events(events)
        except Exception as error:
            log.exception("the search of the band failed")
            known = error if isinstance(error, WavesfmError) else EngineError("band", "search", error, "no exception")
            self._forget()
            with self._changed:
                self._accounts.failures += 1
            self._on_error(known)
            return False
        with self._changed:
            self._accounts.events += len(events)
            if self._stream is not None:
                self._accounts.looks_left = self._stream.looks_waiting
                self._accounts.looks_busy = self._stream.looks_without_time
        return True
