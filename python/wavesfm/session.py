# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a stream through a bundle: tiles are cut here, the worker's thread classifies them. No GNU Radio."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wavesfm_core.band_worker import BandWorker
from wavesfm_core.errors import WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.tile_stream import StreamAccounts, TileStream
from wavesfm_core.types import Prediction, Samples, StreamTime, Tile
from wavesfm_core.worker import Worker, WorkerOptions

from .rate_watch import RateWatch
from .retry import Retry

SILENT_S = 2.0  # a stream that gives no tile for so long says why


@dataclass(frozen=True)
class SessionOptions:
    """What a session is opened with."""

    rate_hz: float = 0.0
    """Sample rate in Hz, 0 when unknown."""
    centre_hz: float | None = None
    """Centre frequency in Hz, None when unknown."""
    queue_tiles: int = 64
    """See `WorkerOptions`, as the next three."""
    batch_tiles: int = 8
    batch_wait_s: float = 0.01
    max_age_s: float = 0.0
    time_tolerance_s: float = 0.0
    """See `SampleClock`; 0 is its default."""

    @property
    def worker(self) -> WorkerOptions:
        """Limits of the queue and of the batches. Raises ConfigurationError for a wrong one."""
        return WorkerOptions(self.queue_tiles, self.batch_tiles, self.batch_wait_s, self.max_age_s)


class Session:
    """A stream of samples, tags and settings, in order on one thread, cut into tiles and classified.

    All sample indices are absolute. `set_rate`, `set_centre`, `overflow`, `status` and `silence` may be called on any
    thread.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle that takes IQ.
    options : SessionOptions
        What is known of the stream, and the limits.
    policy : {"block", "drop_oldest", "drop_newest"}
        See `Worker`.
    start_sample : int
        Index of the first sample.
    on_predictions, on_error : callable
        See `Worker`; called on its thread.
    on_warning : callable
        Called with a sentence when something is lost for the first time.
    cancelled : callable, optional
        Polled where `push` and `finish` wait; returns True when the flowgraph is being stopped.
    band : BandWorker or None
        Searches the band of the same samples; None: no search.

    Raises
    ------
    ConfigurationError
        For a bundle that takes no IQ and an unknown policy.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        options: SessionOptions,
        policy: str,
        start_sample: int,
        on_predictions: Callable[[list[Prediction]], object],
        on_error: Callable[[WavesfmError, int], object],
        on_warning: Callable[[str], object],
        cancelled: Callable[[], bool] = lambda: False,
        band: BandWorker | None = None,
    ) -> None:
        self._spec = pipeline.stream_spec
        pipeline.gate.reset()
        pipeline.thinning.reset()
        self._options = options
        self._next_sample = self.start_sample = start_sample
        self._band, self._band_sample = band, start_sample
        self._stream = self._new_stream(options.rate_hz, options.centre_hz)
        self._past: list[StreamAccounts] = []  # of the streams before a fault
        self._pending = 0  # samples that no tile covers yet
        self._timed = False  # whether tags tell the time
        self._on_warning, self._cancelled = on_warning, cancelled
        self._warned: set[str] = set()
        self._overflows = self._skipped_fault = 0
        self._asked: dict[str, float | None] = {}  # settings and overflows that wait for the next samples
        self._asked_lock = threading.Lock()
        self._ended = False
        self._retry = Retry()
        self._watch = RateWatch()
        self._held_s = 0.0  # seconds that a full queue has held the stream back
        self._last_tile_s = clock.monotonic()
        self._at_tile = StreamAccounts()  # when the last tile was cut
        self.fault = ""
        self.worker = Worker(pipeline, on_predictions, options.worker, policy, on_error)

    @property
    def rate_hz(self) -> float:
        """The sample rate in force, 0.0 when unknown."""
        return self._stream.rate_hz

    @property
    def tuning(self) -> tuple[float, float | None]:
        """Sample rate and centre frequency in Hz from the next samples on; 0.0 and None when unknown."""
        with self._asked_lock:
            rate_hz, centre_hz = self._asked.get("rate_hz"), self._asked.get("centre_hz", self._stream.centre_hz)
        return self.rate_hz if rate_hz is None else rate_hz, centre_hz

    def push(self, samples: Samples, arrived_s: float | None = None) -> None:
        """Take samples in, waiting while the queue is full if the policy is "block".

        After a fault samples are skipped until it is time to try again.
        """
        arrived_s = clock.monotonic() if arrived_s is None else arrived_s
        self._search(samples)
        if self.fault and not self._resumed(arrived_s):
            self.skip_to(self._next_sample + len(samples))
            return
        self._watch_rate(len(samples), arrived_s)
        self._apply_asked()
        tiles = self._stream.push(samples, arrived_s)
        self._next_sample += len(samples)
        self._pending = self._stream.pending_samples
        self._submit(tiles)

    def retune(
        self, rate_hz: float | None = None, centre_hz: float | None = None, time: StreamTime | None = None
    ) -> None:
        """Start a new tile at the next sample if rate, frequency or time changed.

        Parameters
        ----------
        rate_hz, centre_hz : float, optional
            In Hz; None leaves the value as it was.
        time : StreamTime, optional
            Time of the next sample; one that does not follow from the tracked clock is a gap.
        """
        if self._band is not None:
            self._band.retune(rate_hz, centre_hz, time)
        if self.fault:
            self._asked.update({k: v for k, v in (("rate_hz", rate_hz), ("centre_hz", centre_hz)) if v is not None})
            return
        before = self._stream.accounts.gaps
        tiles = self._stream.retune(rate_hz, centre_hz, time)
        self._timed |= time is not None
        self._pending = self._stream.pending_samples
        self._submit(tiles)
        if self._stream.accounts.gaps > before:
            text = f"the time jumps at sample {self._next_sample}: samples are missing"
            self._warn("gap", text)

    def set_rate(self, rate_hz: float) -> None:
        """Set the sample rate from the next samples on, in Hz, 0 when unknown."""
        self._ask(rate_hz=rate_hz)

    def set_centre(self, centre_hz: float | None) -> None:
        """Set the centre frequency from the next samples on, in Hz, None when unknown."""
        self._ask(centre_hz=centre_hz)

    def overflow(self, count: int = 1) -> None:
        """Count overflows of the receiver; without time tags, which show where, a tile ends at the next samples."""
        self._overflows += count
        self._warn("overflow", "the receiver reports overflows: samples are lost")
        if not self._timed:
            self._ask(overflow=None)

    def finish(self) -> bool:
        """Cut the last partial tile and wait until all predictions were handed over; False if cancelled."""
        if not self.fault:
            tiles = self._stream.finish()
            self._pending = 0
            self._submit(tiles)
        self._ended = True
        if self._band is not None:
            self._band.finish(self._cancelled)
        if self.status()["tiles_in"] == 0:
            self._on_warning(f"no tile was cut: {self._silence()}")
        return self.worker.drain(cancelled=self._cancelled)

    def fail(self, error: BaseException, next_sample: int) -> float:
        """Skip samples for a while after an exception; waiting tiles are still classified.

        Parameters
        ----------
        error : BaseException
            The reason.
        next_sample : int
            First sample that the caller has not yet pushed; those before it are skipped.

        Returns
        -------
        float
            Seconds until classification is tried again; they double at each fault up to a limit.
        """
        self.fault = f"{type(error).__name__}: {error}"
        self._skipped_fault += self._pending
        self._pending = 0
        self.skip_to(next_sample)
        return self._retry.failed(clock.monotonic())

    def skip_to(self, sample: int) -> None:
        """Take the samples before this absolute index as come and skipped because of a fault."""
        self._skipped_fault += sample - self._next_sample
        self._next_sample = sample

    def may_retry(self, now_s: float) -> bool:
        """Whether the time of the back-off after a fault is over; now_s: monotonic."""
        return self._retry.due(now_s)

    def status(self) -> dict[str, Any]:
        """Return the accounts; tiles_in = inferred + gated + dropped + failed + waiting.

        samples_in : samples that came. samples_skipped : of these in no tile, and samples_skipped_by the same by reason
        (retune, gap, silence, end, fault). samples_pending : not yet in a tile. samples_silent : digital silence, and
        samples_silent_cut the part of it between tiles. samples_lost : missing at time tags. samples_short : fewer than
        the rate says by this machine's clock. gaps, retunes, overflows : how often. partial : tiles shorter than the
        bundle's. too_old : the part of `dropped` that `max_age_s` dropped. fault : why classification is interrupted,
        or "". band : with a search of the band, its `BandAccounts`.
        """
        accounts, stream = self.worker.accounts, self._accounts()
        skipped = {
            "retune": stream.skipped_retune,
            "gap": stream.skipped_gap,
            "silence": stream.skipped_silence,
            "end": stream.skipped_end,
            "fault": self._skipped_fault,
        }
        return {
            "samples_in": self._next_sample - self.start_sample,
            "samples_skipped": sum(skipped.values()),
            "samples_skipped_by": skipped,
            "samples_pending": self._pending,
            "samples_silent": stream.samples_silent,
            "samples_silent_cut": stream.samples_silent_cut,
            "samples_lost": stream.samples_lost,
            "samples_short": self._watch.missing,
            "nonfinite_samples": stream.samples_nonfinite,
            "gaps": stream.gaps,
            "retunes": stream.retunes,
            "overflows": self._overflows,
            "partial": stream.partial_tiles,
            "tiles_in": accounts.tiles_in,
            "inferred": accounts.inferred,
            "gated": accounts.gated,
            "dropped": accounts.dropped,
            "too_old": int(accounts.extra["too_old"]),
            "failed": accounts.failed,
            "waiting": accounts.waiting,
            "batches": accounts.batches,
            "last_error": accounts.last_error,
            "fault": self.fault,
            **({} if self._band is None else {"band": vars(self._band.accounts)}),
        }

    def silence(self, now_s: float) -> str:
        """Say why no tile was cut for SILENT_S; "" if one was, or the stream has ended. now_s: monotonic."""
        silent_s = now_s - self._last_tile_s
        if silent_s < SILENT_S or self._ended:
            return ""
        reason = self._silence()
        slow = reason.startswith("only") and self.rate_hz and silent_s < 1.5 * self._spec.tile_samples / self.rate_hz
        return "" if slow else f"no tile for {silent_s:.0f} s: {reason}"

    def _silence(self) -> str:
        now, before = self._stream.accounts, self._at_tile
        came = now.samples_in - before.samples_in
        cuts = {name: getattr(now, name) - getattr(before, name) for name in ("retunes", "gaps")}
        if self.fault:
            return f"classification is interrupted ({self.fault})"
        if self.worker.policy == "block" and self.worker.accounts.waiting >= self._options.queue_tiles:
            return "the queue is full, and the engine holds the stream back"
        if any(cuts.values()):
            listed = " and ".join(f"{count} {name}" for name, count in cuts.items() if count)
            return f"{listed} left stretches that are shorter than the shortest tile, {self._spec.min_samples} samples"
        if now.samples_silent_cut > before.samples_silent_cut:
            return f"digital silence in {now.samples_silent - before.samples_silent} of {came} samples"
        if came:
            return f"only {came} samples came, and a tile has {self._spec.tile_samples}"
        return "no samples come"

    def close(self, timeout_s: float | None = None) -> bool:
        """End the threads, see `Worker.close`; waiting tiles are counted as dropped."""
        searched = self._band is None or self._band.close(timeout_s)
        return self.worker.close(timeout_s) and searched

    def _search(self, samples: Samples) -> None:
        """Hand the next samples to the search of the band."""
        if self._band is None:
            return
        if (skipped := self._next_sample - self._band_sample) > 0:
            self._band.lose(skipped)
        self._band.push(samples, self.worker.policy == "block", self._cancelled)
        self._band_sample = self._next_sample + len(samples)

    def _new_stream(self, rate_hz: float, centre_hz: float | None) -> TileStream:
        tolerance_s = self._options.time_tolerance_s or None
        return TileStream(self._spec, rate_hz, centre_hz, None, self._next_sample, tolerance_s)

    def _restart(self, centre_hz: float | None) -> None:
        """Go on with a new stream of tiles at the next sample."""
        self._past.append(self._stream.accounts)
        self._stream = self._new_stream(self.rate_hz, centre_hz)
        self._timed, self._at_tile = False, StreamAccounts()

    def _resumed(self, now_s: float) -> bool:
        """Begin anew after a fault, if it is time."""
        if not self._retry.due(now_s):
            return False
        self._restart(self._stream.centre_hz)
        self.fault = ""
        self._on_warning(f"classification is tried again from sample {self._next_sample} on")
        return True

    def _accounts(self) -> StreamAccounts:
        """The sums over all streams of tiles of this session."""
        total = self._stream.accounts
        for past in self._past:
            for name in StreamAccounts.__dataclass_fields__:
                setattr(total, name, getattr(total, name) + getattr(past, name))
        return total

    def _watch_rate(self, n_samples: int, arrived_s: float) -> None:
        if self._timed:  # time tags show what is lost
            return
        self._watch.take(n_samples, self.rate_hz, arrived_s, self._held_s)
        if share := self._watch.share:
            text = f"{share:.1%} fewer samples than the sample rate: the receiver loses some, or the flowgraph is slow"
            self._warn("short", text)

    def _ask(self, **settings: float | None) -> None:
        with self._asked_lock:
            self._asked.update(settings)

    def _apply_asked(self) -> None:
        if not self._asked:
            return
        with self._asked_lock:
            asked, self._asked = self._asked, {}
        if "overflow" in asked:
            tiles = self._stream.gap()
            self._pending = 0
            self._submit(tiles)
        if "centre_hz" in asked and asked["centre_hz"] is None and self._stream.centre_hz is not None:
            tiles = self._stream.finish()
            self._pending = 0
            self._submit(tiles)
            self._restart(None)
        self.retune(asked.get("rate_hz"), asked.get("centre_hz"))

    def _submit(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            began_s = clock.monotonic()
            self.worker.submit(tile, self._cancelled)
            self._held_s += clock.monotonic() - began_s
        if not tiles:
            return
        self._retry.succeeded()
        self._last_tile_s = clock.monotonic()
        self._at_tile = accounts = self._stream.accounts
        if accounts.samples_nonfinite:
            self._warn("nonfinite", "NaN or infinite samples are in the stream and were taken as zero")
        if self.worker.accounts.dropped and not self._cancelled():
            self._warn(
                "dropped", f"tiles are dropped (policy {self.worker.policy}): the engine is slower than the stream"
            )

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._on_warning(text)
