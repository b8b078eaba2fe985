# SPDX-License-Identifier: GPL-3.0-or-later
"""One stream of samples cut into tiles with absolute positions and times."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import InputError
from ..types import StreamTime, Tile
from .spectrogram import as_samples, make_tiler


class TileStream:
    """One stream of samples -> Tiles with absolute positions and times; no threads.

    rate_hz: 0.0 when unknown; centre_hz: None when unknown; time: of the sample at start_sample; start_sample:
    absolute index of the first sample that will be pushed.
    samples_in: samples pushed so far. samples_skipped: of those, the ones that no tile covers and none will, because
    too few were left before a retune or the end. samples_in == covered by tiles + samples_skipped + pending_samples.
    """

    def __init__(
        self,
        spec: SpectrogramSpec,
        rate_hz: float = 0.0,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
        start_sample: int = 0,
    ) -> None:
        self.samples_in = 0
        self.samples_skipped = 0
        self._first_sample = start_sample
        self._tiler = make_tiler(spec)
        self._rate_hz = _checked_rate(rate_hz)
        self._centre_hz = centre_hz
        self._segment_start = start_sample  # where the tiler's counting began
        self._segment_time = time
        self._covered_to = start_sample  # end of the last tile
        self._arrived_s: float | None = None

    @property
    def pending_samples(self) -> int:
        """Samples pushed that no tile covers yet."""
        return self._position - self._covered_to

    def push(self, samples: NDArray[Any], arrived_s: float | None = None) -> list[Tile]:
        """Takes complex64 [n] in (complex128 is rounded) and returns the tiles that it completes.

        arrived_s: time.monotonic() at which the samples were there. Raises InputError for another type or shape.
        """
        samples = as_samples(samples, "stream")
        self.samples_in += samples.size
        self._arrived_s = arrived_s
        return [self._tile(made) for made in self._tiler.push(samples)]

    def retune(
        self,
        rate_hz: float | None = None,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
    ) -> list[Tile]:
        """Ends the current tile and starts a new one at the next sample; None leaves a value as it was.

        time: of the next sample; None goes on from the time before. Returns the partial tile if it has min_rows.
        Raises InputError for a rate that is negative or not finite, and then nothing has changed.
        """
        new_rate = self._rate_hz if rate_hz is None else _checked_rate(rate_hz)
        tiles = self.finish()
        self._segment_time = self._time_of(self._position) if time is None else time
        self._segment_start = self._position
        self._rate_hz = new_rate
        self._centre_hz = self._centre_hz if centre_hz is None else centre_hz
        return tiles

    def finish(self) -> list[Tile]:
        """The last partial tile if it has min_rows, else none; a further push starts a new tile."""
        made = self._tiler.flush()
        tiles = [] if made is None else [self._tile(made)]
        self.samples_skipped += self.pending_samples
        self._segment_time = self._time_of(self._position)
        self._segment_start = self._covered_to = self._position
        return tiles

    @property
    def _position(self) -> int:
        return self._first_sample + self.samples_in

    def _time_of(self, sample: int) -> StreamTime | None:
        if self._segment_time is None or sample == self._segment_start:
            return self._segment_time
        if self._rate_hz == 0.0:
            return None
        return self._segment_time.advanced((sample - self._segment_start) / self._rate_hz)

    def _tile(self, made: tuple[Any, ...]) -> Tile:
        data, start, n_samples, partial, floor_db, peak_db, n_nonfinite = made
        start += self._segment_start
        self._covered_to = start + n_samples
        return Tile(
            data=data,
            start_sample=start,
            n_samples=n_samples,
            rate_hz=self._rate_hz,
            centre_hz=self._centre_hz,
            time=self._time_of(start),
            partial=partial,
            floor_db=floor_db,
            peak_db=peak_db,
            n_nonfinite=n_nonfinite,
            arrived_s=self._arrived_s,
        )


def _checked_rate(rate_hz: float) -> float:
    if not (math.isfinite(rate_hz) and rate_hz >= 0.0):
        raise InputError("stream", "rate_hz", rate_hz, "a sample rate in Hz, or 0 when unknown")
    return float(rate_hz)
