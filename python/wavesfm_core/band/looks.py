# SPDX-License-Identifier: GPL-3.0-or-later
"""Views of emitters: over which span each is looked at, its edges in the view, and the tile that comes of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..preprocess.tile_stream import TileStream
from ..types import Samples, Tile
from .options import BandOptions
from .pieces import DC_WIDTH
from .refine import BINS, Edges, refine
from .ring import SampleRing
from .track import Track
from .views import View, Zoomed, closer, zoom

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


@dataclass(frozen=True, eq=False)
class Plan:
    """One emitter that is to be looked at, as it was when that was decided: safe to use on another thread.

    Attributes
    ----------
    track : Track
        The emitter itself, which goes on.
    seen : Track
        A copy of its figures.
    view : View
        What to cut out.
    clear_hz : tuple of float
        Frequencies between which it is alone.
    noise : float
        Power of a bin of the detector without a signal.
    """

    track: Track
    seen: Track
    view: View
    clear_hz: tuple[float, float]
    noise: float


@dataclass(frozen=True, eq=False)
class Group:
    """Plans whose spans overlap, and the samples of all of them, the first of which is the stream's sample `start`."""

    plans: list[Plan]
    parts: list[Samples]
    start: int


@dataclass(frozen=True, eq=False)
class Seen:
    """What a view shows of one emitter: edges in Hz where they were refined, kind, and a tile if it is long enough."""

    track: Track
    refined: tuple[float, float] | None
    kind: str
    tile: Tile | None


class Looker:
    """Plans views of emitters, and makes tiles of them from the last samples of one stream."""

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

    def plan(self, ring: SampleRing, tracks: Sequence[Track], stop: int, others: Sequence[Track] = ()) -> list[Group]:
        """Views of the samples up to `stop`, one of each track; others: emitters that may be beside them."""
        plans = [
            Plan(
                track,
                copy.copy(track),
                self._view(ring, track, stop),
                self._clear(track, others),
                float(np.mean(track.total.floor)),
            )
            for track in tracks
        ]
        groups = []
        for group in _groups(plans):
            start, end = min(plan.view.start for plan in group), max(plan.view.stop for plan in group)
            groups.append(Group(group, ring.span(start, end), max(start, ring.start)))
        return groups

    def look(self, group: Group) -> list[Seen]:
        """What the views of a group show. Uses nothing that changes, so that any thread may call it."""
        views = zoom(group.parts, group.start, self._rate, [plan.view for plan in group.plans])
        return [self._see(plan, view) for plan, view in zip(group.plans, views, strict=True)]

    def _is_narrow(self, track: Track) -> bool:
        """Whether its edges are refined: of wider ones the detector's bins say enough."""
        raw_hz = (track.reach_high - track.reach_low) * self._rate / self._fft
        return track.strong_width < NARROW_BINS or raw_hz < NARROW_RAW_HZ

    def _is_dc(self, track: Track) -> bool:
        """Whether it is where the receiver's DC line is, which signals over it interrupt."""
        return (
            abs(track.low - self._fft // 2) <= DC_WIDTH // 2 and abs(track.high - self._fft // 2) <= DC_WIDTH // 2 + 1
        )

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

    def _see(self, plan: Plan, view: Zoomed) -> Seen:
        """The view around the refined edges, as a tile."""
        seen = plan.seen
        if self.is_whole(seen) or view.samples.size == 0:
            return Seen(plan.track, seen.refined, seen.kind, self._tile(view))
        edges = self._refined(plan, view) if self._is_narrow(seen) else None
        if edges is not None:
            seen.refined = edges.low_hz, edges.high_hz
            seen.kind = "line" if edges.is_line and (seen.n_bursts == 1 or self._is_dc(seen)) else "signal"
        low, high = self.edges(seen)
        rate = max(self.view_rate(seen), view.rate_hz * self._spec.min_samples * 1.02 / view.samples.size)
        if rate <= 0.8 * view.rate_hz:
            view = closer(view, self._rate, (low + high) / 2, rate)
        return Seen(plan.track, seen.refined, seen.kind, self._tile(view))

    def _refined(self, plan: Plan, view: Zoomed) -> Edges | None:
        low, high = self.hertz(plan.seen.reach_low), self.hertz(plan.seen.reach_high)
        rate = SKIRT_VIEW * (high - low)
        if rate < 0.7 * view.rate_hz and view.samples.size * rate / view.rate_hz >= LEAST_REFINED:
            view = closer(view, self._rate, (low + high) / 2, rate)
        noise = plan.noise * self._fft * view.rate_hz / self._rate / BINS
        return refine(view, low, high, noise, plan.clear_hz)

    def _tile(self, view: Zoomed) -> Tile | None:
        stream = TileStream(self._spec, view.rate_hz)
        tiles = stream.push(np.ascontiguousarray(view.samples[-self._spec.tile_samples :])) or stream.finish()
        if not tiles:
            return None
        per_sample = self._rate / view.rate_hz
        n_samples = round(tiles[-1].n_samples * per_sample)
        return replace(tiles[-1], start_sample=view.start, n_samples=n_samples)


def _groups(plans: list[Plan]) -> list[list[Plan]]:
    """Plans whose spans overlap go through one transform."""
    groups: list[list[Plan]] = []
    reach = 0
    for plan in sorted(plans, key=lambda plan: plan.view.start):
        if groups and plan.view.start < reach:
            groups[-1].append(plan)
        else:
            groups.append([plan])
            reach = 0
        reach = max(reach, plan.view.stop)
    return groups
