# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a stream through a bundle: tiles are cut here, the worker's thread classifies them. No GNU Radio."""

from __future__ import annotations

import dataclasses
import math
import threading
import time as clock
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wavesfm_core.errors import WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.stream_clock import StreamClock
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.types import Prediction, Samples, StreamTime, Tile
from wavesfm_core.worker import Worker, WorkerOptions

from .rate_watch import RateWatch
from .retry import Retry

RATE_TOLERANCE = 1e-6  # relative difference up to which two sample rates are the same
FREQUENCY_TOLERANCE = 1e-10  # and two centre frequencies
SKIP_REASONS = ("retune", "gap", "overflow", "end", "fault")
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
    """See `StreamClock`."""

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
    ) -> None:
        self._spec, self._queue_tiles = pipeline.stream_spec, options.queue_tiles
        pipeline.gate.reset()
        self._clock, self._centre_hz = StreamClock(options.rate_hz, options.time_tolerance_s), options.centre_hz
        self._next_sample = start_sample
        self._stream = self._new_stream()
        self._on_warning, self._cancelled = on_warning, cancelled
        self._warned: set[str] = set()
        self._counts = Counter(gaps=0, samples_lost=0, retunes=0, partial=0, overflows=0)
        self.start_sample = start_sample
        self._pending = 0  # samples that no tile covers yet
        self._nonfinite = 0
        self._skipped = Counter(dict.fromkeys(SKIP_REASONS, 0))  # samples in no tile
        self._asked: dict[str, float | None] = {}  # settings and overflows that wait for the next samples
        self._asked_lock = threading.Lock()
        self._ended = False
        self._retry = Retry()
        self._watch = RateWatch()
        self._held_s = 0.0  # seconds that a full queue has held the stream back
        self._last_tile_s = clock.monotonic()
        self._since_tile: Counter[str] = Counter()  # what came since the last tile
        self.fault = ""
        self.worker = Worker(pipeline, on_predictions, options.worker, policy, on_error)

    @property
    def rate_hz(self) -> float:
        """The sample rate in force, 0.0 when unknown."""
        return self._clock.rate_hz

    @property
    def tuning(self) -> tuple[float, float | None]:
        """Sample rate and centre frequency in Hz from the next samples on; 0.0 and None when unknown."""
        with self._asked_lock:
            rate_hz, centre_hz = self._asked.get("rate_hz"), self._asked.get("centre_hz", self._centre_hz)
        return self.rate_hz if rate_hz is None else rate_hz, centre_hz

    def push(self, samples: Samples, arrived_s: float | None = None) -> None:
        """Take samples in, waiting while the queue is full if the policy is "block".

        After a fault samples are skipped until it is time to try again.
        """
        arrived_s = clock.monotonic() if arrived_s is None else arrived_s
        self._since_tile["samples"] += len(samples)
        if self.fault and not self._resumed(arrived_s):
            self.skip_to(self._next_sample + len(samples), "fault")
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
        rate_changed = rate_hz is not None and not math.isclose(rate_hz, self.rate_hz, rel_tol=RATE_TOLERANCE)
        centre_changed = centre_hz is not None and (
            self._centre_hz is None or not math.isclose(centre_hz, self._centre_hz, rel_tol=FREQUENCY_TOLERANCE)
        )
        jump_s = None if time is None else self._clock.jump_s(time, self._next_sample)
        time = None if jump_s == 0 else time
        if not (rate_changed or centre_changed or time is not None):
            return
        tuned = rate_changed or centre_changed
        if jump_s:
            self._note_gap(jump_s)
        if tuned and self._next_sample > self.start_sample:  # the first tags of a stream are no retune
            self._count("retunes")
        reason = "gap" if jump_s and not tuned else "retune"
        self._book(reason, [] if self.fault else self._stream.finish())
        if rate_changed and rate_hz is not None:
            self._clock.set_rate(rate_hz, self._next_sample)
            self._watch.restart()
        if time is not None:
            self._clock.set_time(time, self._next_sample)
        self._centre_hz = centre_hz if centre_changed else self._centre_hz
        if not self.fault:
            self._stream.retune(self.rate_hz, self._centre_hz, time)

    def _note_gap(self, jump_s: float) -> None:
        self._count("gaps")
        self._counts["samples_lost"] += max(0, round(jump_s * self.rate_hz))
        way = "on" if jump_s > 0 else "back"
        self._warn("gap", f"time goes {way} by {abs(jump_s):.6g} s at sample {self._next_sample}: samples are missing")

    def set_rate(self, rate_hz: float) -> None:
        """Set the sample rate from the next samples on, in Hz, 0 when unknown."""
        self._ask(rate_hz=rate_hz)

    def set_centre(self, centre_hz: float | None) -> None:
        """Set the centre frequency from the next samples on, in Hz, None when unknown."""
        self._ask(centre_hz=centre_hz)

    def overflow(self, count: int = 1) -> None:
        """Count overflows of the receiver; without time tags, which show where, a tile ends at the next samples."""
        self._counts["overflows"] += count
        self._since_tile["overflows"] += count
        self._warn("overflow", "the receiver reports overflows: samples are lost")
        if not self._clock.known:
            self._ask(overflow=None)

    def finish(self) -> bool:
        """Cut the last partial tile and wait until all predictions were handed over; False if cancelled."""
        if not self.fault:
            self._book("end", self._stream.finish())
        self._ended = True
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
        self._skipped["fault"] += self._pending
        self._pending = 0
        self.skip_to(next_sample, "fault")
        return self._retry.failed(clock.monotonic())

    def skip_to(self, sample: int, reason: str) -> None:
        """Take the samples before this absolute index as come and skipped, for one of SKIP_REASONS."""
        self._skipped[reason] += sample - self._next_sample
        self._next_sample = sample

    def may_retry(self, now_s: float) -> bool:
        """Whether the time of the back-off after a fault is over; now_s: monotonic."""
        return self._retry.due(now_s)

    def status(self) -> dict[str, Any]:
        """Return the accounts; tiles_in = inferred + gated + dropped + failed + waiting.

        samples_in : samples that came. samples_skipped : of these in no tile, and samples_skipped_by the same for each
        of SKIP_REASONS. samples_pending : not yet in a tile. samples_lost : missing at time tags.
        samples_short : fewer than the rate says against this machine's clock. gaps, retunes, overflows : how often.
        partial : tiles shorter than the bundle's. too_old : the part of `dropped` that `max_age_s` dropped.
        fault : why classification is interrupted, or "".
        """
        accounts = self.worker.accounts
        return {
            "samples_in": self._next_sample - self.start_sample,
            "samples_skipped": sum(self._skipped.values()),
            "samples_skipped_by": dict(self._skipped),
            "samples_pending": self._pending,
            "samples_lost": self._counts["samples_lost"],
            "samples_short": self._watch.missing,
            "nonfinite_samples": self._nonfinite,
            "gaps": self._counts["gaps"],
            "retunes": self._counts["retunes"],
            "overflows": self._counts["overflows"],
            "partial": self._counts["partial"],
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
        }

    def silence(self, now_s: float) -> str:
        """Say why no tile was cut for SILENT_S; "" if one was, or the stream has ended. now_s: monotonic."""
        silent_s = now_s - self._last_tile_s
        return "" if silent_s < SILENT_S or self._ended else f"no tile for {silent_s:.0f} s: {self._silence()}"

    def _silence(self) -> str:
        since = self._since_tile
        cuts = {name: since[name] for name in ("retunes", "gaps", "overflows") if since[name]}
        if self.fault:
            return f"classification is interrupted ({self.fault})"
        if self.worker.policy == "block" and self.worker.accounts.waiting >= self._queue_tiles:
            return "the queue is full, and the engine holds the stream back"
        if cuts:
            listed = " and ".join(f"{count} {name}" for name, count in cuts.items())
            return f"{listed} left stretches that are shorter than the shortest tile, {self._spec.min_samples} samples"
        if since["samples"]:
            return f"only {since['samples']} samples came, and a tile has {self._spec.tile_samples}"
        return "no samples come"

    def close(self, timeout_s: float | None = None) -> bool:
        """End the worker's thread, see `Worker.close`; waiting tiles are counted as dropped."""
        return self.worker.close(timeout_s)

    def _new_stream(self) -> TileStream:
        return TileStream(self._spec, self._clock.rate_hz, self._centre_hz, start_sample=self._next_sample)

    def _resumed(self, now_s: float) -> bool:
        """Begin anew after a fault, if it is time."""
        if not self._retry.due(now_s):
            return False
        self._stream, self.fault = self._new_stream(), ""
        self._on_warning(f"classification is tried again from sample {self._next_sample} on")
        return True

    def _watch_rate(self, n_samples: int, arrived_s: float) -> None:
        if self._clock.known:  # time tags show what is lost
            return
        self._watch.take(n_samples, self.rate_hz, arrived_s, self._held_s)
        if share := self._watch.share:
            text = f"{share:.1%} fewer samples than the sample rate: the receiver loses samples, or the flowgraph is slow"
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
            self._cut("overflow")
        if "centre_hz" in asked and asked["centre_hz"] is None and self._centre_hz is not None:
            self._centre_hz = None
            self._count("retunes")
            self._book("retune", self._stream.finish())
            self._stream = self._new_stream()
        self.retune(asked.get("rate_hz"), asked.get("centre_hz"))

    def _cut(self, reason: str, time: StreamTime | None = None) -> None:
        """Begin a new tile at the next sample with the rate and frequency in force."""
        self._book(reason, self._stream.retune(self.rate_hz, self._centre_hz, time))

    def _book(self, reason: str, tiles: list[Tile]) -> None:
        """Submit the last tiles of a stretch and count the samples at its end that no tile covers, by reason."""
        covered = sum(tile.n_samples for tile in tiles)
        if skipped := self._pending - covered:
            self._skipped[reason] += skipped
        self._pending = 0
        self._submit(tiles)

    def _submit(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            self._nonfinite += tile.n_nonfinite
            self._counts["partial"] += tile.partial
            if self._clock.known and self.rate_hz:
                tile = dataclasses.replace(tile, time=self._clock.time_of(tile.start_sample))
            began_s = clock.monotonic()
            self.worker.submit(tile, self._cancelled)
            self._held_s += clock.monotonic() - began_s
        if not tiles:
            return
        self._retry.succeeded()
        self._last_tile_s = clock.monotonic()
        self._since_tile.clear()
        if self._nonfinite:
            self._warn("nonfinite", "NaN or infinite samples are in the stream and were taken as zero")
        if self.worker.accounts.dropped and not self._cancelled():
            self._warn(
                "dropped", f"tiles are dropped (policy {self.worker.policy}): the engine is slower than the stream"
            )

    def _count(self, name: str) -> None:
        self._counts[name] += 1
        self._since_tile[name] += 1

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._on_warning(text)
