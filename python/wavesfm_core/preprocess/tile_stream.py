# SPDX-License-Identifier: GPL-3.0-or-later
"""One stream of samples cut into tiles with absolute positions and times, and an account of every sample."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .. import _kernels
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError, InputError
from ..types import StreamTime, Tile
from .spectrogram import as_samples

SAME = 1e-6  # relative difference up to which two rates or two centre frequencies are the same


@dataclass(slots=True)
class StreamAccounts:
    """Where the samples of one stream went.

    samples_in = samples that tiles cover + samples_skipped + samples_silent_cut + samples_pending.
    """

    samples_in: int = 0
    """Samples pushed."""
    samples_pending: int = 0
    """Samples of the tile under way."""
    skipped_retune: int = 0
    """Samples too few for a tile before a change of rate or centre frequency."""
    skipped_gap: int = 0
    """Samples too few for a tile before a jump in time."""
    skipped_silence: int = 0
    """Samples too few for a tile before digital silence."""
    skipped_end: int = 0
    """Samples too few for a tile at the end of the stream."""
    samples_silent: int = 0
    """Samples of digital silence: FFT frames with a run of exact zeros or of NaN of a 16th of a frame."""
    samples_silent_cut: int = 0
    """Of these, the samples between tiles; the others lie within tiles and were left out of the rows."""
    samples_nonfinite: int = 0
    """Samples that were NaN, infinite or beyond 1e15."""
    retunes: int = 0
    """Changes of rate or centre frequency."""
    gaps: int = 0
    """Jumps of the reported time."""
    samples_lost: int = 0
    """Samples that the jumps forward amount to: they never arrived."""
    tiles: int = 0
    """Tiles cut, partial ones among them."""
    partial_tiles: int = 0
    """Tiles with fewer rows than a full tile."""

    @property
    def samples_skipped(self) -> int:
        """Samples that were received and that no tile covers, for all reasons."""
        return self.skipped_retune + self.skipped_gap + self.skipped_silence + self.skipped_end

    def as_dict(self) -> dict[str, int]:
        """All fields and samples_skipped."""
        return {**dataclasses.asdict(self), "samples_skipped": self.samples_skipped}


class TileStream:
    """Cut one stream of samples into Tiles with absolute positions and times; no threads.

    Parameters
    ----------
    spec : SpectrogramSpec
        Geometry of the tiles.
    rate_hz : float
        Sample rate; 0.0 when unknown.
    centre_hz : float or None
        Centre frequency; None when unknown.
    time : StreamTime or None
        Time of the sample at `start_sample`; None when unknown.
    start_sample : int
        Absolute index of the first sample that will be pushed.
    tolerance_s : float or None
        Deviation of a reported time that is no gap; see `SampleClock`.

    Raises
    ------
    InputError
        For a rate that is negative or not finite.
    ConfigurationError
        For a tolerance that is negative or not finite.
    """

    def __init__(
        self,
        spec: SpectrogramSpec,
        rate_hz: float = 0.0,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
        start_sample: int = 0,
        tolerance_s: float | None = None,
    ) -> None:
        if tolerance_s is not None and not (math.isfinite(tolerance_s) and tolerance_s >= 0):
            raise ConfigurationError("clock", "tolerance_s", tolerance_s, "seconds, 0 or more, or None")
        self._stream = _kernels.TileStream(
            **dataclasses.asdict(spec),
            rate_hz=_checked_rate(rate_hz),
            centre_hz=centre_hz,
            time=time,
            start_sample=start_sample,
            tolerance_s=tolerance_s,
        )

    @property
    def accounts(self) -> StreamAccounts:
        """A copy of the counts up to now."""
        return StreamAccounts(**self._stream.accounts())

    @property
    def rate_hz(self) -> float:
        """Sample rate of the next sample; 0.0 when unknown."""
        return self._stream.rate_hz

    @property
    def centre_hz(self) -> float | None:
        """Centre frequency of the next sample; None when unknown."""
        return self._stream.centre_hz

    @property
    def samples_in(self) -> int:
        """Samples pushed."""
        return self.accounts.samples_in

    @property
    def samples_skipped(self) -> int:
        """Samples that were received and that no tile covers."""
        return self.accounts.samples_skipped

    @property
    def pending_samples(self) -> int:
        """Samples pushed that no tile covers yet."""
        return self.accounts.samples_pending

    def push(self, samples: NDArray[Any], arrived_s: float | None = None) -> list[Tile]:
        """Take samples in and return the tiles that they complete.

        Parameters
        ----------
        samples : ndarray of complex64 [n]
            complex128 is rounded.
        arrived_s : float or None
            time.monotonic() at the arrival of the samples; None offline.

        Raises
        ------
        InputError
            For another type or shape.
        """
        return _tiles(self._stream.push(as_samples(samples, "stream"), arrived_s))

    def retune(
        self,
        rate_hz: float | None = None,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
    ) -> list[Tile]:
        """Take in what is reported of the next sample; start a new tile there if anything changed.

        Rates and centre frequencies that differ by no more than 1e-6 of themselves are the same. A time within the
        tolerance of the tracked clock corrects the clock and is no change.

        Parameters
        ----------
        rate_hz, centre_hz, time
            Of the next sample; None: as before (time: continues).

        Returns
        -------
        list of Tile
            The partial tile that ends here, if it has min_rows rows; else none.

        Raises
        ------
        InputError
            For a rate that is negative or not finite; nothing has changed then.
        """
        rate_hz = None if rate_hz is None else _checked_rate(rate_hz)
        return _tiles(self._stream.retune(rate_hz, centre_hz, time))

    def gap(self) -> list[Tile]:
        """Start a new tile at the next sample, because an unknown number of samples is missing before it.

        Returns
        -------
        list of Tile
            As `retune` does.
        """
        return _tiles(self._stream.gap())

    def finish(self) -> list[Tile]:
        """The last partial tile if it has min_rows, else none; a further push starts a new tile."""
        return _tiles(self._stream.finish())


def _tiles(made: list[tuple[Any, ...]]) -> list[Tile]:
    """Tiles of the C++ stream, whose fields are those of `Tile` in order."""
    tiles = []
    for data, start, n_samples, rate_hz, centre_hz, time, *rest in made:
        known = None if time is None else StreamTime(*time)
        tiles.append(Tile(data, start, n_samples, rate_hz, centre_hz, known, *rest))
    return tiles


def same(a: float, b: float | None) -> bool:
    """Whether two rates or two frequencies differ by no more than 1e-6 of the larger; an unknown one differs."""
    return b is not None and abs(a - b) <= SAME * max(abs(a), abs(b))


def _checked_rate(rate_hz: float) -> float:
    if not (math.isfinite(rate_hz) and rate_hz >= 0.0):
        raise InputError("stream", "rate_hz", rate_hz, "a sample rate in Hz, or 0 when unknown")
    return float(rate_hz)
