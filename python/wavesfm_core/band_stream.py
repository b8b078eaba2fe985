# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream of samples to emitters and events, named by a bundle: the band's analyser behind retunes and a pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .band.analyser import BandAnalyser
from .band.options import BandOptions
from .band.rounds import Submit, run_now
from .band.types import Emitter, Event
from .errors import ConfigurationError
from .pipeline import Pipeline
from .preprocess.sample_clock import SampleClock
from .preprocess.tile_stream import same
from .types import Samples, StreamTime, Tile

BATCH_TILES = 16
RETUNE_WAIT_S = 0.2  # for the answers to looks: meanwhile the samples of the next tuning wait


class BandStream:
    """Find, zoom in on and name the emitters of one stream.

    The band is searched anew after each change of rate or centre frequency and after each jump in time, because an
    emitter is known by its place in the band. Numbers of emitters are unique over the life of the object.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle for spectrograms. Its engine is called from `push`, `retune` and `finish`.
    rate_hz : float
        Sample rate in Hz, known.
    centre_hz : float or None
        Centre frequency in Hz; None when unknown.
    time : StreamTime or None
        Of the first sample; None when unknown.
    start_sample : int
        Number of the first sample.
    options : BandOptions or None
        None for the defaults.
    numbered : int
        Emitters get numbers above this one.
    submit : callable
        Runs a round of looks: at once, or beside the detector (`LookThread.submit`).
    settle : callable
        Waits until the rounds that were submitted are done, for so many seconds at most.

    Raises
    ------
    ConfigurationError
        The sample rate is unknown, or the bundle takes no IQ.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        rate_hz: float,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
        start_sample: int = 0,
        options: BandOptions | None = None,
        numbered: int = 0,
        submit: Submit = run_now,
        settle: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._pipeline = pipeline
        self._spec = pipeline.stream_spec
        options = options or BandOptions()
        trained_hz = pipeline.bundle.spec.rates_hz[0]
        self._options = replace(options, least_rate_hz=max(options.least_rate_hz, trained_hz))
        self._numbered = self._largest = numbered
        self._position = start_sample
        self._submit, self._settle = submit, settle
        self.samples_in = 0
        self.looks_left = self.looks_busy = 0
        self._begin(rate_hz, centre_hz, time)

    samples_in: int
    """Samples pushed."""
    looks_left: int
    """Emitters that were due for a look and had to wait, in analyses that have ended."""
    looks_busy: int
    """Of these, the ones for which the engine had no time."""

    @property
    def emitters(self) -> list[Emitter]:
        """Emitters of the present tuning, as they are known now."""
        return [self._renumbered(emitter) for emitter in self._analyser.emitters()]

    @property
    def largest_number(self) -> int:
        """Largest number of an emitter so far."""
        return self._largest

    @property
    def time_of_next(self) -> StreamTime | None:
        """Time of the next sample; None when unknown."""
        return self._clock.time_of(self._position)

    @property
    def looks_waiting(self) -> int:
        """Emitters that were due for a look and had to wait, up to now."""
        return self.looks_left + self._analyser.budget.left

    @property
    def looks_without_time(self) -> int:
        """Of these, the ones for which the engine had no time."""
        return self.looks_busy + self._analyser.budget.busy

    def push(self, samples: Samples) -> list[Event]:
        """Take in complex64 [n]; returns the events that became known."""
        self.samples_in += samples.size
        self._position += samples.size
        return self._events(self._analyser.push(samples).events)

    def retune(
        self, rate_hz: float | None = None, centre_hz: float | None = None, time: StreamTime | None = None
    ) -> list[Event]:
        """Take in what is reported of the next sample; None for what does not change.

        A new rate, another centre frequency and a jump in time begin a new search, see `TileStream.retune`. Returns
        the ends of all emitters then.
        """
        rate_hz = self._rate_hz if rate_hz is None or same(rate_hz, self._rate_hz) else rate_hz
        if centre_hz is None or same(centre_hz, self._centre_hz):
            centre_hz = self._centre_hz
        jump_s = 0.0 if time is None else self._clock.jump_s(time, self._position)
        if rate_hz == self._rate_hz and centre_hz == self._centre_hz and jump_s == 0.0:
            return []
        events = self.finish(RETUNE_WAIT_S)
        self._begin(rate_hz, centre_hz, time if jump_s != 0.0 else self._clock.time_of(self._position))
        return events

    def finish(self, wait_s: float = math.inf) -> list[Event]:
        """The rest of the stream; returns the end of every emitter. wait_s: for answers to looks, at most."""
        self._settle(wait_s)
        events = self._events(self._analyser.last_looks().events)
        self._settle(wait_s)
        events += self._events(self._analyser.finish().events)
        self.looks_left += self._analyser.budget.left
        self.looks_busy += self._analyser.budget.busy
        self._analyser.budget.left = self._analyser.budget.busy = 0
        self._numbered = self._largest
        return events

    def _begin(self, rate_hz: float, centre_hz: float | None, time: StreamTime | None) -> None:
        if not rate_hz > 0:
            raise ConfigurationError("band", "rate_hz", rate_hz, "a known sample rate, which edges are measured with")
        self._rate_hz, self._centre_hz = rate_hz, centre_hz
        self._clock = SampleClock(rate_hz, time, self._position)
        head = self._pipeline.classification_head
        self._analyser = BandAnalyser(
            self._spec,
            head.labels,
            rate_hz,
            centre_hz,
            time,
            self._position,
            self._name,
            self._options,
            head.decide,
            self._submit,
        )

    def _name(self, tiles: Sequence[Tile]) -> NDArray[np.float64]:
        batches = [tiles[first : first + BATCH_TILES] for first in range(0, len(tiles), BATCH_TILES)]
        return np.concatenate([self._pipeline.probabilities(batch) for batch in batches])

    def _events(self, events: Sequence[Event]) -> list[Event]:
        return [replace(event, emitter=self._renumbered(event.emitter)) for event in events]

    def _renumbered(self, emitter: Emitter) -> Emitter:
        number = emitter.number + self._numbered
        self._largest = max(self._largest, number)
        return replace(emitter, number=number)
