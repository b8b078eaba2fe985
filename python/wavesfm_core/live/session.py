# SPDX-License-Identifier: GPL-3.0-or-later
"""A live session: a source's samples to the search of the band, the ring, the waterfall, and records on a bus."""

from __future__ import annotations

import dataclasses
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..band.options import BandOptions
from ..band.types import Event
from ..band_worker import BandAccounts, BandWorker
from ..errors import WavesfmError
from ..pipeline import Pipeline
from ..preprocess.sample_clock import SampleClock
from ..types import StreamTime
from .block import SampleBlock, Source
from .bus import Bus
from .emitter_table import EmitterTable
from .iq_ring import IQRing
from .spectra import Spectra, SpectrumRow

log = logging.getLogger(__name__)

HANG_S = 10.0  # after which an engine that does not return is given up
OPENER_WAIT_S = (1.0, 30.0)  # first and longest wait until a pipeline is opened again after it could not be
CLOSE_WAIT_S = 2.0

PipelineOpener = Callable[[], Pipeline]


@dataclass
class SessionAccounts:
    """Where the samples of a session went; samples_in = searched + missed + waiting."""

    samples_in: int = 0
    """Samples from the source, with those that were lost."""
    samples_searched: int = 0
    """Samples that the detector saw."""
    samples_missed: int = 0
    """Samples that were not searched: lost, or the search was slower than the stream."""
    samples_lost: int = 0
    """The part of samples_missed that never came from the source."""
    samples_waiting: int = 0
    """Samples in the queue of the search."""
    looks_left: int = 0
    """Emitters that were due for a look of the model and had to wait."""
    events: int = 0
    """Events of emitters."""
    retunes: int = 0
    """Changes of rate or centre frequency."""
    gaps: int = 0
    """Places at which samples were lost."""
    failures: int = 0
    """Exceptions of the search or of the engine."""
    hangs: int = 0
    """Engines that did not return and were given up."""
    reloads: int = 0
    """Models that replaced another one while the session ran."""

    def closes(self) -> bool:
        """Whether every sample is accounted for."""
        return self.samples_in == self.samples_searched + self.samples_missed + self.samples_waiting


class LiveSession:
    """Run a source through the search of the band.

    Parameters
    ----------
    source : Source
        Read by `run` and closed at its end.
    open_pipeline : callable
        Opens the pipeline, at the start and again after a fault; with `shared=True` where other sessions use it too.
    options : BandOptions or None
        Of the search; None for the defaults.
    ring_s : float
        Seconds of samples that the ring keeps; 0 for none.
    hang_s : float
        Seconds after which an engine that does not return is given up and another one is opened.
    """

    def __init__(
        self,
        source: Source,
        open_pipeline: PipelineOpener,
        options: BandOptions | None = None,
        ring_s: float = 0.0,
        hang_s: float = HANG_S,
    ) -> None:
        self.source = source
        self.bus = Bus(secrets.token_hex(8))
        self.ring = IQRing(ring_s) if ring_s > 0 else None
        self.emitters = EmitterTable()
        self.spectra = Spectra()
        self.on_rows: list[Callable[[SpectrumRow], object]] = []
        self.on_events: list[Callable[[list[Event]], object]] = []
        self._open_pipeline, self._options, self._hang_s = open_pipeline, options, hang_s
        self._lock = threading.Lock()  # guards what several threads change, all below
        self._finished = BandAccounts()  # of workers that were given up
        self._counts = SessionAccounts()
        self._next_pipeline: Pipeline | None = None
        self._next_worker_pipeline: Pipeline | None = None
        self._reopening = self._ended = False
        self._stopped = threading.Event()
        self._position = self._generation = 0
        self._rate_hz, self._centre_hz = 0.0, None  # type: tuple[float, float | None]
        self._clock: SampleClock | None = None
        self.last_block_s = time.monotonic()
        self.pipeline = open_pipeline()
        _ = self.pipeline.stream_spec  # a bundle that takes no IQ is refused here
        self._worker = self._new_worker(self.pipeline, 0)

    @property
    def rate_hz(self) -> float:
        """Present sample rate in Hz; 0.0 before the first block."""
        return self._rate_hz

    @property
    def centre_hz(self) -> float | None:
        """Present centre frequency in Hz; None when unknown."""
        return self._centre_hz

    @property
    def position(self) -> int:
        """Number of the next sample."""
        return self._position

    @property
    def accounts(self) -> SessionAccounts:
        """A consistent copy."""
        with self._lock:
            now, past, counts = self._worker.accounts, self._finished, self._counts
            return dataclasses.replace(
                counts,
                samples_in=now.samples_in + past.samples_in,
                samples_searched=now.samples_searched + past.samples_searched,
                samples_missed=now.samples_missed + past.samples_missed,
                samples_waiting=now.samples_waiting,
                looks_left=now.looks_left + past.looks_left,
                events=now.events + past.events,
                failures=now.failures + past.failures + counts.failures,
            )

    @property
    def lag_s(self) -> float:
        """Seconds of samples that wait for the search."""
        return self._worker.accounts.samples_waiting / self._rate_hz if self._rate_hz else 0.0

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def run(self) -> None:
        """Read the source to its end or until `stop`; on the calling thread. Raises as the source does."""
        try:
            for block in self.source.blocks():
                self._take(block)
                if self._stopped.is_set():
                    break
        finally:
            self._end()

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._stopped.set()
        self.source.stop()

    def reload(self, open_pipeline: PipelineOpener) -> None:
        """Open another pipeline beside the running one and go over to it between two samples.

        Blocks while the pipeline is opened. Raises WavesfmError where that fails; the old one goes on then.
        """
        pipeline = open_pipeline()
        try:
            _ = pipeline.stream_spec
        except WavesfmError:
            pipeline.close()
            raise
        with self._lock:
            self._open_pipeline = open_pipeline
            replaced, self._next_pipeline = self._next_pipeline, pipeline
        if replaced is not None:
            replaced.close()

    def watch(self) -> None:
        """Give up an engine that hangs; called now and then from a thread other than that of `run`."""
        with self._lock:
            worker, busy_s = self._worker, self._worker.busy_s
            if busy_s < self._hang_s or self._reopening:
                return
            self._reopening = True
            self._counts.hangs += 1
            old = self.pipeline
        self.warn(f"the search has not returned for {busy_s:.0f} s: its engine is given up")
        worker.close(0.0)
        old.abandon()
        threading.Thread(target=self._reopen, name="wavesfm-reopen", daemon=True).start()

    def warn(self, text: str) -> None:
        """Log a sentence and publish it."""
        log.warning("%s", text)
        self.bus.publish("warning", {"text": text})

    def _reopen(self) -> None:
        wait_s = OPENER_WAIT_S[0]
        while not self._stopped.is_set():
            try:
                pipeline = self._open_pipeline()
            except Exception as error:
                with self._lock:
                    self._counts.failures += 1
                self.warn(f"the model cannot be opened again: {error}")
                self._stopped.wait(wait_s)
                wait_s = min(2 * wait_s, OPENER_WAIT_S[1])
                continue
            with self._lock:
                self._next_worker_pipeline = pipeline
            return

    def _new_worker(self, pipeline: Pipeline, numbered: int) -> BandWorker:
        self._generation += 1
        generation = self._generation  # what a worker that was given up still reports is not heard

        def publish(events: list[Event]) -> None:
            if generation == self._generation:
                self._publish(events)

        return BandWorker(
            pipeline,
            publish,
            self._search_failed,
            self._rate_hz,
            self._centre_hz,
            self._position,
            self._options,
            numbered,
        )

    def _take(self, block: SampleBlock) -> None:
        self.last_block_s = time.monotonic()
        self._exchange()
        if block.lost:
            self._lose(block.lost)
        time_of_block = self._retune(block)
        samples = block.complex64()
        self._worker.push(samples, block=not self.source.is_live, cancelled=self._stopped.is_set)
        if self.ring is not None:
            self.ring.push(self._position, block, time_of_block)
        if self.on_rows:
            for row in self.spectra.push(self._position, samples, self._rate_hz, self._centre_hz, time_of_block):
                for taker in list(self.on_rows):
                    taker(row)
        self._position += block.n_samples

    def _lose(self, count: int) -> None:
        """Count samples that are missing before the next one."""
        self._worker.lose(count)
        self._position += count
        with self._lock:
            self._counts.gaps += 1
            self._counts.samples_lost += count

    def _retune(self, block: SampleBlock) -> StreamTime | None:
        """Pass on what has changed; returns the time of the block's first sample. A jump in time shows a gap."""
        changed = (block.rate_hz, block.centre_hz) != (self._rate_hz, self._centre_hz)
        if changed:
            with self._lock:
                self._counts.retunes += self._clock is not None
        if self._clock is None:
            self._clock = SampleClock(block.rate_hz, block.time, self._position)
        elif block.rate_hz != self._rate_hz:
            self._clock.set_rate(block.rate_hz, self._position)
        if block.time is not None:
            jump_s = self._clock.jump_s(block.time, self._position)
            if jump_s and not changed and (lost := round(jump_s * block.rate_hz)) > 0:
                self._lose(lost)
            if jump_s != 0.0:
                self._clock.set_time(block.time, self._position)
        self._rate_hz, self._centre_hz = block.rate_hz, block.centre_hz
        known_time = self._clock.time_of(self._position)
        if changed or block.time is not None:
            self._worker.retune(block.rate_hz, block.centre_hz, block.time or (known_time if changed else None))
        return known_time

    def _exchange(self) -> None:
        """Go over to a reloaded pipeline, or to a new worker after the old one was given up."""
        with self._lock:
            swapped, self._next_pipeline = self._next_pipeline, None
            reopened, self._next_worker_pipeline = self._next_worker_pipeline, None
            if reopened is not None and swapped is not None:
                reopened.close()
                reopened, swapped = swapped, None
                self._counts.reloads += 1
            if reopened is not None:
                self._replace_worker(reopened)
            elif swapped is not None and not self._reopening:
                self._counts.reloads += 1
                self.pipeline = swapped
                self._worker.swap(swapped, lambda old: old.close())
            elif swapped is not None:
                self._next_pipeline = swapped  # until the worker is replaced

    def _replace_worker(self, pipeline: Pipeline) -> None:
        """Start another worker at the present position; called with the lock held."""
        old, number = self._worker, self._worker.largest_number
        self._finished = _sum(self._finished, old.accounts)
        self.pipeline = pipeline
        self.emitters.forget_active()
        self._worker = self._new_worker(pipeline, number)
        self._worker.retune(
            self._rate_hz, self._centre_hz, None if self._clock is None else self._clock.time_of(self._position)
        )
        self._reopening = False

    def _publish(self, events: list[Event]) -> None:
        self.emitters.take(events)
        for event in events:
            self.bus.publish("event", event.as_dict())
        for taker in list(self.on_events):
            taker(events)

    def refresh(self) -> None:
        """Bring the table of emitters up to date."""
        self.emitters.refresh(self._worker.emitters)

    def _search_failed(self, error: WavesfmError) -> None:
        self.emitters.forget_active()
        self.warn(str(error))

    def close(self) -> None:
        """Free everything where `run` was never called or has failed; a second call does nothing."""
        self.stop()
        self._end()

    def _end(self) -> None:
        """Search what waits, end the worker, close the source and the pipelines."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        worker = self._worker
        if self._stopped.is_set() and self.source.is_live:
            began_s = time.monotonic()
            worker.finish(lambda: time.monotonic() - began_s > CLOSE_WAIT_S)
        else:
            worker.finish(lambda: self._stopped.is_set() or worker.busy_s > self._hang_s)
        self._stopped.set()
        if worker.close(CLOSE_WAIT_S) and self._is_idle(worker):
            self.pipeline.close()
        else:
            self.pipeline.abandon()
        with self._lock:
            unused = [each for each in (self._next_pipeline, self._next_worker_pipeline) if each is not None]
            self._next_pipeline = self._next_worker_pipeline = None
        for pipeline in unused:
            pipeline.close()
        self.source.close()

    @staticmethod
    def _is_idle(worker: BandWorker) -> bool:
        """Whether a closed worker's last look ends within CLOSE_WAIT_S."""
        end_s = time.monotonic() + CLOSE_WAIT_S
        while worker.busy_s > 0 and time.monotonic() < end_s:
            time.sleep(0.01)
        return worker.busy_s == 0


def _sum(one: BandAccounts, other: BandAccounts) -> BandAccounts:
    names = [field.name for field in dataclasses.fields(BandAccounts)]
    return BandAccounts(**{name: getattr(one, name) + getattr(other, name) for name in names})
