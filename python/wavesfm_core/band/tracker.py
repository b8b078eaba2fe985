# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of one block after the other -> emitters: what belongs together over time and frequency."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .pieces import DC_WIDTH, Block, Piece
from .track import FRAGMENT, Track

SAME_IOU = 0.4  # of two spans of bins that are one emitter's
SAME_RAW_IOU = 0.75  # of all that stood over the floor with them
PART_SHARE = 0.7  # of a piece within an emitter's skirts
NEAR_SHARE = 0.7  # of its bursts
TOGETHER = 0.5  # of a burst, during which the whole is on the air
BESIDE_BINS = 8  # and within which a part lies beside
NEAR_ROWS = 3  # within which a part belongs to what it is beside
STRONGER = 2.0  # times the power (and the density, when alone) of the whole that a part may have
SKIRT = 0.1  # of the density of the whole that its skirts have, beyond its edges
SKIRT_BESIDE = 0.01  # and that they have where there is a gap; more is a neighbour
STEADY_ROWS = 32  # on the air, of an emitter whose edges are known
GAIN_STEP = 2.0  # from which on a change of the floor is one of the gain
SPLIT_BLOCKS = 2  # in which two steady pieces of one emitter lie apart, until they are two emitters
SPLIT_GAP = 0.5  # between them, of the width of the narrower
TWINS = 2.0  # ratio of power or width up to which they may be two tones of one
HOLD_PAUSES = 3.0  # pauses of usual length until silence is an end


class Tracker:
    """Emitters of one stream, in rows and bins.

    Attributes
    ----------
    tracks : list of Track
        All that are known: on the air, or remembered.
    """

    def __init__(self, fft_size: int, hold_rows: int, memory_rows: int, most: int) -> None:
        """fft_size: bins of the band; hold_rows: silence that is an end.

        memory_rows: until an emitter is forgotten; most: emitters kept.
        """
        self.tracks: list[Track] = []
        self._middle = fft_size // 2
        self._hold = hold_rows
        self._memory = memory_rows
        self._most = most
        self._next = 1
        self._level = 0.0

    def take(self, block: Block) -> list[Track]:
        """The pieces of the next block; returns those that have become a part of another."""
        self._follow_gain(block)
        touched: dict[Track, list[Piece]] = {}
        for piece in [part for whole in block.pieces for part in self._parts(whole, block.start)]:
            track = self._home(piece)
            if track is None:
                track = Track.of(self.number(), piece)
                self.tracks.append(track)
            else:
                if track.ended:
                    self._begin_again(track, piece)
                track.add(piece)
            touched.setdefault(track, []).append(piece)
        for track, pieces in list(touched.items()):
            for new in self._split(track, [piece for piece in pieces if 2 * piece.rows > block.stop - block.start]):
                touched[new] = []
        for track in touched:
            track.settle(self._middle)
        return self._merge(touched)

    def silences(self, row: int) -> list[Track]:
        """Those whose silence up to this row is an end, marked as silent."""
        for track in self.tracks:
            track.silent = not track.ended and row - track.last_row > self.hold(track)
        return [track for track in self.tracks if track.silent]

    def forget(self, row: int) -> None:
        """Drop what is long gone, and the weakest of too many."""
        self.tracks = [track for track in self.tracks if not track.ended or row - track.last_row <= self._memory]
        if len(self.tracks) > self._most:
            self.tracks.sort(key=lambda track: (not track.told, track.ended, -track.cells))
            del self.tracks[self._most :]

    def hold(self, track: Track) -> float:
        """Rows of silence after which this one has ended."""
        pauses = sorted(track.pauses)
        usual = pauses[len(pauses) // 2] if len(pauses) >= 2 else 0
        return min(max(self._hold, HOLD_PAUSES * usual), max(self._hold, self._memory / 2))

    def number(self) -> int:
        """Of the next emitter."""
        self._next += 1
        return self._next - 1

    def _follow_gain(self, block: Block) -> None:
        """Keep the emitters' levels comparable over a step of the receiver's gain."""
        level = float(np.median(block.floor))
        ratio = level / self._level if self._level > 0 else 1.0
        self._level = level
        if not 1 / GAIN_STEP < ratio < GAIN_STEP:
            for track in self.tracks:
                track.total.energy *= ratio

    def _split(self, track: Track, steady: list[Piece]) -> list[Track]:
        """Two that ran into one another when they were first seen, and are apart ever since."""
        if len(steady) != 2 or not _are_apart(*sorted(steady, key=lambda piece: piece.raw_low)):
            track.split_votes = 0
            return []
        track.split_votes += 1
        if track.split_votes < SPLIT_BLOCKS:
            return []
        track.split_votes = 0
        own, other = sorted(steady, key=lambda piece: piece.total, reverse=True)
        new = track.part(self.number(), own, other)
        self.tracks.append(new)
        return [new]

    def _begin_again(self, track: Track, piece: Piece) -> None:
        track.ended = track.told = False
        track.first_row = piece.start
        track.bursts.clear()
        track.n_bursts = track.rows_on = 0
        track.total.energy[:] = 0

    def _parts(self, piece: Piece, start: int) -> list[Piece]:
        """A piece in which a known steady emitter and a neighbour run into one another, cut where the known ends."""
        for track in self.tracks:
            known = track.recent[-1] if track.recent else piece
            steady = track.rows_on >= STEADY_ROWS and not track.is_bursty and known.stop >= start - NEAR_ROWS
            if (
                not steady
                or known.raw_low < piece.raw_low - BESIDE_BINS
                or known.raw_high > piece.raw_high + BESIDE_BINS
            ):
                continue
            for cut in (known.raw_low, known.raw_high):
                parts = piece.cut(cut)
                if parts is not None:
                    return [smaller for part in parts for smaller in self._parts(part, start)]
        return [piece]

    def _is_dc(self, piece: Piece | Track) -> bool:
        """Whether it is nothing but the receiver's DC line, which is no part of a signal around it."""
        return piece.raw_low >= self._middle - DC_WIDTH / 2 and piece.raw_high <= self._middle + DC_WIDTH / 2 + 1

    def _home(self, piece: Piece) -> Track | None:
        best: tuple[float, Track] | None = None
        for track in self.tracks:
            score = 0.0 if self._is_dc(piece) and track.width > DC_WIDTH else _fit(piece, track)
            if score > 0 and (best is None or score > best[0]):
                best = score, track
        return None if best is None else best[1]

    def _merge(self, touched: Iterable[Track]) -> list[Track]:
        """What has grown over another takes it in."""
        gone: list[Track] = []
        for track in sorted(touched, key=lambda t: t.energy, reverse=True):
            if track in gone:
                continue
            for other in [o for o in self.tracks if o is not track and _covers(track, o)]:
                if not self._is_dc(other):  # which was there before, and says nothing of when this one began
                    track.absorb(other)
                self.tracks.remove(other)
                gone.append(other)
                track.settle(self._middle)
        return gone


def _are_apart(lower: Piece, upper: Piece) -> bool:
    """Whether two steady pieces of one block are no two tones or halves of one signal."""
    gap = upper.raw_low - lower.raw_high
    if gap < SPLIT_GAP * min(lower.raw_high - lower.raw_low, upper.raw_high - upper.raw_low):
        return False
    unequal = max(lower.total, upper.total) > TWINS * min(lower.total, upper.total)
    return unequal or max(lower.width, upper.width) > TWINS * min(lower.width, upper.width)


def overlap(low_a: float, high_a: float, low_b: float, high_b: float) -> float:
    """Of two spans."""
    return max(0.0, min(high_a, high_b) - max(low_a, low_b))


def _fit(piece: Piece, track: Track) -> float:
    """How well a piece fits an emitter; 0 for not at all."""
    if not _is_near(piece.raw_low, piece.raw_high, track):
        return 0.0
    shared = overlap(piece.low, piece.high, track.low, track.high)
    iou = shared / (piece.width + track.width - shared)
    if iou >= SAME_IOU:
        return 1.0 + iou
    both = overlap(piece.raw_low, piece.raw_high, track.reach_low, track.reach_high)
    iou = both / (piece.raw_high - piece.raw_low + track.reach_high - track.reach_low - both)
    if iou >= SAME_RAW_IOU:
        return iou
    if track.ended:
        return 0.0
    density, power = float(piece.energy.max()) / piece.rows, piece.total / piece.rows
    active = track.share_active(piece.start, piece.stop, NEAR_ROWS) >= TOGETHER
    inside = _share_inside(piece.low, piece.high, density if active else math.inf, power, track)
    if active:
        return inside
    alike = piece.rows <= 2 * track.burst_rows + NEAR_ROWS and density <= STRONGER * track.density
    counts = piece.total >= FRAGMENT * track.energy / track.n_bursts
    return inside / 2 if alike and counts else 0.0


def _is_near(low: float, high: float, track: Track) -> bool:
    """Whether a span touches an emitter with what may be beside it; the rest needs no closer look."""
    below, above = min(track.reach_low, track.low), max(track.reach_high, track.high)
    return low < above + BESIDE_BINS and high > below - BESIDE_BINS


def _share_inside(low: float, high: float, density: float, power: float, track: Track) -> float:
    """Share of a span within an emitter, if it may be a part of it: within its edges, or weaker in its skirts; or 0."""
    if power > STRONGER * track.power:
        return 0.0
    core = overlap(low, high, track.low, track.high) / (high - low)
    depth = density / track.density
    beside = BESIDE_BINS if depth < SKIRT_BESIDE else 0
    raw = overlap(low, high, track.reach_low - beside, track.reach_high + beside) / (high - low)
    share = max(core, raw if depth < SKIRT else 0.0)
    return share if share >= PART_SHARE else 0.0


def _covers(track: Track, other: Track) -> bool:
    """Whether another is a part of this one, seen only with it or as a weaker burst of it."""
    if other.ended or not _is_near(other.low, other.high, track):
        return False
    together = [track.share_active(start, stop, NEAR_ROWS) >= TOGETHER for start, stop in other.bursts]
    near = sum(together) >= NEAR_SHARE * len(together)
    density = other.density if near else math.inf
    if _share_inside(other.low, other.high, density, other.power, track) == 0.0:
        return False
    return near or (other.burst_rows <= 2 * track.burst_rows + NEAR_ROWS and other.density <= STRONGER * track.density)
