"""The only door from samples or arrays to prepared tiles, for training and for live streams."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .channel.pilots import pilot_tile
from .errors import InputError
from .image import image_tile
from .spec import ImageSpec, PilotGridSpec, Preprocess, SpectrogramSpec
from .spectrogram import make_tiler
from .types import Samples, StreamTime, Tensor, Tile


def prepare(samples: NDArray[Any], spec: Preprocess, where: str = "prepare") -> Tensor:
    """One tile, float32 [C, height, width], of samples or of an array, as the spec says.

    SpectrogramSpec: complex64 [n] (complex128 is rounded) with spec.min_samples <= n <= spec.tile_samples; C = 1. What
    is left over after the last whole frame is not used.
    ImageSpec: float32 [channels, rows, columns] (float64 is rounded), finite; C = channels; see `ImageSpec`.
    PilotGridSpec: complex64 [antennas, symbols, subcarriers], finite, with pilots that are not all zero; the tile is
    float32 spec.tile_shape; see `PilotGridSpec`.
    where: what the samples are, for errors. Raises InputError for another type, shape, count or size.
    """
    if isinstance(spec, ImageSpec):
        return image_tile(samples, spec, where)
    if isinstance(spec, PilotGridSpec):
        return pilot_tile(samples, spec, where)
    samples = _as_samples(samples, where)
    if not spec.min_samples <= samples.size <= spec.tile_samples:
        expected = f"{spec.min_samples} to {spec.tile_samples}, what one tile is made of"
        raise InputError(where, "samples", samples.size, expected)
    tiler = make_tiler(spec)
    tiles = tiler.push(samples)
    made = tiles[0] if tiles else tiler.flush()
    assert made is not None  # min_samples are min_rows rows
    return made[0]


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
        samples = _as_samples(samples, "stream")
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


def _as_samples(samples: NDArray[Any], where: str) -> Samples:
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.complex64, np.complex128):
        found = getattr(samples, "dtype", type(samples).__name__)
        raise InputError(where, "samples", found, "a numpy array of complex64")
    if samples.ndim != 1:
        raise InputError(where, "samples", f"shape {samples.shape}", "one dimension")
    return np.ascontiguousarray(samples, dtype=np.complex64)


def _checked_rate(rate_hz: float) -> float:
    if not (math.isfinite(rate_hz) and rate_hz >= 0.0):
        raise InputError("stream", "rate_hz", rate_hz, "a sample rate in Hz, or 0 when unknown")
    return float(rate_hz)
