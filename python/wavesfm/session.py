# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a stream through a bundle: tiles are cut here, the worker's thread classifies them."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wavesfm_core.errors import WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.types import Prediction, Samples, StreamTime, Tile
from wavesfm_core.worker import Worker

from .stream_clock import StreamClock


@dataclass(frozen=True)
class SessionOptions:
    """What a session is opened with: rate_hz 0 and centre_hz None for unknown; the rest as in `Worker`."""

    rate_hz: float = 0.0
    centre_hz: float | None = None
    queue_tiles: int = 64
    batch_tiles: int = 8
    batch_wait_s: float = 0.01


class Session:
    """Samples and retunes in order on one thread; predictions come on the worker's. All sample indices are absolute.

    on_predictions, on_error: as in `Worker`; on_warning(str): non-finite samples or dropped tiles, at their first time.
    Raises ConfigurationError for a pipeline whose bundle takes no IQ.
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
    ) -> None:
        spec = pipeline.stream_spec
        pipeline.gate.reset()
        self._clock, self._centre_hz = StreamClock(options.rate_hz), options.centre_hz
        self._next_sample = start_sample
        self._stream = TileStream(spec, options.rate_hz, options.centre_hz, start_sample=start_sample)
        self._on_warning = on_warning
        self._warned: set[str] = set()
        self._n_nonfinite = 0
        self._n_skipped = 0
        self.fault = ""
        self.worker = Worker(
            pipeline,
            on_predictions,
            options.queue_tiles,
            options.batch_tiles,
            options.batch_wait_s,
            policy,
            on_error,
        )

    def push(self, samples: Samples, arrived_s: float | None = None) -> None:
        """Take samples in, waiting while the queue is full if the policy is `block`; after a fault skip them."""
        if self.fault:
            self._skip_to(self._next_sample + len(samples))
            return
        arrived_s = clock.monotonic() if arrived_s is None else arrived_s
        tiles = self._stream.push(samples, arrived_s)
        self._next_sample += len(samples)
        self._submit(tiles)

    def retune(
        self, rate_hz: float | None = None, centre_hz: float | None = None, time: StreamTime | None = None
    ) -> None:
        """Begin a new tile at the next sample if what is said of it (None: nothing) differs from what was known."""
        if time is not None and self._clock.follows(time, self._next_sample):
            time = None
        if rate_hz == self._clock.rate_hz:
            rate_hz = None
        if centre_hz == self._centre_hz:
            centre_hz = None
        if self.fault or (rate_hz, centre_hz, time) == (None, None, None):
            return
        if rate_hz is not None:
            self._clock.set_rate(rate_hz, self._next_sample)
        if time is not None:
            self._clock.set_time(time, self._next_sample)
        self._centre_hz = self._centre_hz if centre_hz is None else centre_hz
        self._submit(self._stream.retune(rate_hz, centre_hz, time))

    def finish(self) -> None:
        """Cut the last partial tile and wait until all predictions were handed over."""
        if not self.fault:
            self._submit(self._stream.finish())
        self.worker.drain()

    def fail(self, error: BaseException, next_sample: int) -> None:
        """Enter the faulted state: samples are counted as skipped, also those not taken in before `next_sample`; tiles
        that wait are still classified.
        """
        self.fault = self.fault or f"{type(error).__name__}: {error}"
        self._skip_to(next_sample)

    def status(self) -> dict[str, Any]:
        """The accounts: tiles_in = inferred + gated + dropped + failed + waiting.

        samples_in: all that came; samples_skipped: of these in no tile, for being too few before a retune or the end,
        or after a fault; samples_pending: not yet in a tile; fault: why classification stopped, or "".
        """
        accounts = self.worker.accounts
        return {
            "samples_in": self._stream.samples_in + self._n_skipped,
            "samples_skipped": self._stream.samples_skipped + self._n_skipped,
            "samples_pending": self._stream.pending_samples,
            "nonfinite_samples": self._n_nonfinite,
            "tiles_in": accounts.tiles_in,
            "inferred": accounts.inferred,
            "gated": accounts.gated,
            "dropped": accounts.dropped,
            "failed": accounts.failed,
            "waiting": accounts.waiting,
            "batches": accounts.batches,
            "last_error": accounts.last_error,
            "fault": self.fault,
        }

    def close(self) -> None:
        """End the worker's thread; what waits is counted as dropped."""
        self.worker.close()

    def _submit(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            self._n_nonfinite += tile.n_nonfinite
            self.worker.submit(tile)
        if not tiles:
            return
        if self._n_nonfinite:
            self._warn("nonfinite", "NaN or infinite samples are in the stream and were taken as zero")
        if self.worker.accounts.dropped:
            self._warn(
                "dropped", f"tiles are dropped (policy {self.worker.policy}): the engine is slower than the stream"
            )

    def _skip_to(self, sample: int) -> None:
        self._n_skipped += sample - self._next_sample
        self._next_sample = sample

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._on_warning(text)
