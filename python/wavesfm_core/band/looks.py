# SPDX-License-Identifier: GPL-3.0-or-later
"""Which emitters are looked at next, over which span, and the tiles that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..preprocess.tile_stream import TileStream
from ..types import Tile
from .options import BandOptions
from .refine import BINS, Edges, refine
from .ring import SampleRing
from .track import Track
from .views import View, Zoomed, zoom

Namer = Callable[[Sequence[Tile]], NDArray[np.floating]]
"""Tiles -> probabilities [n, labels]."""

READY_SAMPLES = 16384  # of a view, from which on a first look need not wait
VIEW_STEPS = (1.0, 1.6)  # times view_width, one look after the other: no single view shows everything best
LEAST_REFINED = 1024  # samples of a view whose edges are refined
KNOWN_S = 0.5  # of signal, at most, for a look at what is known
LEAST_DUTY = 0.05  # of a view that spans several bursts
SKIRT_VIEW = 2.0  # of the first view, in widths of all that stood over the floor
NARROW_BINS = 48
NARROW_RAW_HZ = 500e3
MARGIN = 0.1  # before and after a burst, of its length


@dataclass(frozen=True, eq=False)
class Look:
    """A tile of one emitter for the engine.

    Attributes
    ----------
    tile : Tile
        Its start_sample and n_samples count the stream's samples, its rate_hz is the view's.
    track : Track
        What it is of.
    """

    tile: Tile
    track: Track


class Looker:
    """Makes tiles of emitters from the last samples of one stream."""

    def __init__(self, spec: SpectrogramSpec, rate_hz: float, fft_size: int, options: BandOptions) -> None:
        """spec: of the tiles; rate_hz, fft_size: of the stream and its detector."""
        self._spec = spec
        self._rate = rate_hz
        self._fft = fft_size
        self._options = options

    def hertz(self, at: float) -> float:
        """Of an edge in bins, from the middle of the band."""
        return (at / self._fft - 0.5) * self._rate

    def edges(self, track: Track) -> tuple[float, float]:
        """Hz from the middle of the band: as refined, or as the detector has them."""
        return (
            track.refined
            if track.refined and self._is_narrow(track)
            else (self.hertz(track.low), self.hertz(track.high))
        )

    def is_whole(self, track: Track) -> bool:
        """Whether it is wide enough to be seen as the whole band."""
        return track.kind == "whole" or track.width >= self._options.whole_share * self._fft

    def _is_narrow(self, track: Track) -> bool:
        """Whether its edges are refined: of wider ones the detector's bins say enough."""
        raw_hz = (track.reach_high - track.reach_low) * self._rate / self._fft
        return track.strong_width < NARROW_BINS or raw_hz < NARROW_RAW_HZ

    def view_rate(self, track: Track) -> float:
        """Sample rate at which this emitter is looked at."""
        if self.is_whole(track):
            return self._rate
        low, high = self.edges(track)
        width = self._options.view_width * VIEW_STEPS[track.n_looks % len(VIEW_STEPS)]
        return min(self._rate, max(width * (high - low), self._options.least_rate_hz))

    def samples_ready(self, track: Track, row: int) -> int:
        """Samples of a view from the start of this stay on the air to a row."""
        return int((row - track.first_row) * self._fft * self.view_rate(track) / self._rate)

    def looks(self, ring: SampleRing, tracks: Sequence[Track], stop: int, others: Sequence[Track] = ()) -> list[Look]:
        """A tile of each track for which the samples up to `stop` suffice; others: emitters that may be beside them."""
        found: list[Look] = []
        for group in _groups([(track, self._view(ring, track, stop)) for track in tracks]):
            start, end = min(v.start for _, v in group), max(v.stop for _, v in group)
            zoomed = zoom(ring.span(start, end), max(start, ring.start), self._rate, [v for _, v in group])
            for (track, _), view in zip(group, zoomed, strict=True):
                tile = self._tile(self._close(track, view, self._clear(track, others)))
                if tile is not None:
                    found.append(Look(tile, track))
        return found

    def _view(self, ring: SampleRing, track: Track, stop: int) -> View:
        rate = self.view_rate(track)
        per_sample = self._rate / rate
        most = int(self._spec.tile_samples * per_sample)
        if track.n_looks >= self._options.looks_per_emitter:
            most = min(most, int(KNOWN_S * self._rate))
        start, end = self._span(track, ring.start, stop, most)
        least = int(self._spec.min_samples * per_sample * 1.02) + 1
        if end - start < least:
            end = min(stop, end + (least - (end - start)) // 2 + 1)
            start = max(ring.start, end - least)
            end = min(stop, max(end, start + least))
        if end - start < least:  # the stream is too short: see more of the band
            rate = min(self._rate, rate * least / max(1, end - start))
        low, high = self.edges(track)
        if self._is_narrow(track):
            raw = self.hertz(track.reach_high) - self.hertz(track.reach_low)
            rate = min(self._rate, max(rate, SKIRT_VIEW * raw))
            low, high = self.hertz(track.reach_low), self.hertz(track.reach_high)
        return View(start, end, (low + high) / 2, rate)

    def _span(self, track: Track, first: int, stop: int, most: int) -> tuple[int, int]:
        """The last bursts, as long as they fill LEAST_DUTY of the span, within a full tile."""
        quarter = self._fft // 4
        bursts = [(a * self._fft + quarter, b * self._fft + quarter) for a, b in track.bursts]
        end = min(stop, bursts[-1][1])
        start, on = end, 0
        for a, b in reversed(bursts):
            on += b - a
            if b <= end - most or b <= first or (start < end and on < LEAST_DUTY * (end - a)):
                break
            start = a
        margin = int(MARGIN * (end - start))
        end = min(stop, end + margin)
        return max(start - margin, end - most, first), end

    def _close(self, track: Track, view: Zoomed, clear_hz: tuple[float, float]) -> Zoomed:
        """The view as it is to be named: around the refined edges."""
        if self.is_whole(track) or view.samples.size == 0:
            return view
        edges = self._refined(track, view, clear_hz) if self._is_narrow(track) else None
        if edges is not None:
            track.refined = (edges.low_hz, edges.high_hz)
            track.kind = "line" if edges.is_line and track.n_bursts == 1 else "signal"
        low, high = self.edges(track)
        rate = max(self.view_rate(track), view.rate_hz * self._spec.min_samples * 1.02 / view.samples.size)
        if rate > 0.8 * view.rate_hz:
            return view
        inner = View(0, view.samples.size, (low + high) / 2 - view.centre_hz, rate)
        (closer,) = zoom(view.samples, 0, view.rate_hz, [inner])
        start = view.start + round(closer.start * self._rate / view.rate_hz)
        return Zoomed(closer.samples, start, view.centre_hz + closer.centre_hz, closer.rate_hz)

    def _clear(self, track: Track, others: Sequence[Track]) -> tuple[float, float]:
        """Half way to the neighbours, from the middle of the band."""
        low, high = -math.inf, math.inf
        for other in others:
            if other is track or other.last_row < track.first_row or other.first_row > track.last_row:
                continue
            if other.high <= track.low:
                low = max(low, self.hertz((other.high + track.low) / 2))
            elif other.low >= track.high:
                high = min(high, self.hertz((other.low + track.high) / 2))
        return low, high

    def _refined(self, track: Track, view: Zoomed, clear_hz: tuple[float, float]) -> Edges | None:
        low, high = self.hertz(track.reach_low), self.hertz(track.reach_high)
        rate = SKIRT_VIEW * (high - low)
        if rate < 0.7 * view.rate_hz and view.samples.size * rate / view.rate_hz >= LEAST_REFINED:
            inner = View(0, view.samples.size, (low + high) / 2 - view.centre_hz, rate)
            (closer,) = zoom(view.samples, 0, view.rate_hz, [inner])
            view = Zoomed(closer.samples, view.start, view.centre_hz + closer.centre_hz, closer.rate_hz)
        noise = float(np.mean(track.total.floor)) * self._fft * view.rate_hz / self._rate / BINS
        return refine(view, low, high, noise, clear_hz)

    def _tile(self, view: Zoomed) -> Tile | None:
        stream = TileStream(self._spec, view.rate_hz)
        tiles = stream.push(np.ascontiguousarray(view.samples[-self._spec.tile_samples :])) or stream.finish()
        if not tiles:
            return None
        per_sample = self._rate / view.rate_hz
        n_samples = round(tiles[-1].n_samples * per_sample)
        return replace(tiles[-1], start_sample=view.start, n_samples=n_samples)


def _groups(views: list[tuple[Track, View]]) -> list[list[tuple[Track, View]]]:
    """Views whose spans overlap go through one transform."""
    groups: list[list[tuple[Track, View]]] = []
    reach = 0
    for track, view in sorted(views, key=lambda pair: pair[1].start):
        if groups and view.start < reach:
            groups[-1].append((track, view))
        else:
            groups.append([(track, view)])
            reach = 0
        reach = max(reach, view.stop)
    return groups
