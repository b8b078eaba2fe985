# SPDX-License-Identifier: GPL-3.0-or-later
"""One emitter while it is followed: its bursts, its spectrum, and what has been said of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .extent import ExcessSum, extent
from .pieces import Piece

BURSTS_KEPT = 256
PAUSES_KEPT = 16
PIECES_KEPT = 16
FRAGMENT = 0.03  # of the energy of the strongest piece, under which a piece says nothing of the edges
PART_BEFORE = 0.3  # of the present power, that a part had before it was told from the whole
JOIN_ROWS = 6  # pieces no further apart are one burst


@dataclass(eq=False)
class Track:
    """An emitter in rows and bins; `Tracker` keeps it.

    Attributes
    ----------
    number : int
        Of the emitter.
    first_row, last_row : int
        Of this stay on the air: start of the first burst, end of the last.
    low, high : float
        Edges, in bins.
    raw_low, raw_high : int
        Bins that its pieces covered, skirts included.
    reach_low, reach_high : int
        Bins that a quarter of its last long pieces covered, so that one splash does not count.
    bursts : deque of [start, stop]
        The last ones, in rows.
    n_bursts, rows_on : int
        Of this stay: bursts, and rows on the air.
    told : bool
        Whether it has been said to have appeared.
    silent : bool
        Whether it has been off the air for so long that it is about to end.
    pending : int
        Looks that have not been answered yet.
    label, rival : str
        Label that goes out, and another one that the last look alone speaks for.
    kind : str
        See `Emitter`.
    """

    number: int
    first_row: int
    last_row: int
    low: float
    high: float
    raw_low: int
    raw_high: int
    bursts: deque[list[int]] = field(default_factory=lambda: deque(maxlen=BURSTS_KEPT))
    recent: deque[Piece] = field(default_factory=lambda: deque(maxlen=PIECES_KEPT))
    pauses: deque[int] = field(default_factory=lambda: deque(maxlen=PAUSES_KEPT))
    n_bursts: int = 0
    rows_on: int = 0
    cells: int = 0
    total: ExcessSum = field(default_factory=ExcessSum)
    reach_low: int = 0
    reach_high: int = 0
    told: bool = False
    ended: bool = False
    kind: str = "signal"
    log_mean: NDArray[np.float64] | None = None
    looked_samples: float = 0.0
    strong_width: float = 0.0
    n_looks: int = 0
    looked_row: int = -1
    silent: bool = False
    pending: int = 0
    label: str = ""
    rival: str = ""
    split_votes: int = 0
    told_row: int = 0
    told_label: str = ""
    told_width: float = 0.0
    told_db: float = 0.0
    refined: tuple[float, float] | None = None

    @classmethod
    def of(cls, number: int, piece: Piece) -> Track:
        """A new one, of its first piece."""
        track = cls(number, piece.start, piece.start, piece.low, piece.high, piece.raw_low, piece.raw_high)
        track.reach_low, track.reach_high = piece.raw_low, piece.raw_high
        track.add(piece)
        return track

    @property
    def width(self) -> float:
        """In bins."""
        return self.high - self.low

    def add(self, piece: Piece) -> None:
        """One more piece: time on the air, spectrum."""
        self.silent = False
        self.hear(piece.start, piece.stop)
        if piece.total >= FRAGMENT * max((other.total for other in self.recent), default=0.0):
            self.recent.append(piece)
        self.cells += piece.cells
        self.raw_low, self.raw_high = min(self.raw_low, piece.raw_low), max(self.raw_high, piece.raw_high)
        self.total.add(piece.raw_low, piece.energy, piece.floor)

    def absorb(self, other: Track) -> None:
        """All of another one, which was a part of this."""
        for start, stop in other.bursts:
            self.hear(start, stop)
        self.cells += other.cells
        self.raw_low, self.raw_high = min(self.raw_low, other.raw_low), max(self.raw_high, other.raw_high)
        self.total.add(other.total.low, other.total.energy, other.total.floor)

    def part(self, number: int, own: Piece, other: Piece) -> Track:
        """A new one of `other`, which was taken for a part of this; this one keeps what is around `own`."""
        new = Track.of(number, other)
        at = slice(other.raw_low - self.total.low, other.raw_high - self.total.low)
        before = float(self.total.energy[at].sum()) - other.total
        if before > PART_BEFORE * other.total / other.rows * (self.rows_on - other.rows):
            new.first_row = self.first_row
            new.bursts[0][0] = self.bursts[-1][0]
            new.rows_on = other.stop - self.bursts[-1][0]
        self.total.energy[at] = 0
        self.recent.clear()
        self.recent.append(own)
        return new

    def hear(self, start: int, stop: int) -> None:
        """Time on the air; what overlaps or nearly touches the last burst makes that longer."""
        self.first_row = min(self.first_row, start)
        self.last_row = max(self.last_row, stop)
        if self.bursts and start <= self.bursts[-1][1] + JOIN_ROWS:
            self._join(start, stop)
            return
        if self.bursts:
            self.pauses.append(start - self.bursts[-1][1])
        self.bursts.append([start, stop])
        self.n_bursts += 1
        self.rows_on += stop - start

    def _join(self, start: int, stop: int) -> None:
        merged = [start, stop]
        rows = 0
        joined = 0
        while self.bursts and self.bursts[-1][1] + JOIN_ROWS >= merged[0]:
            last = self.bursts[-1]
            if last[0] > merged[1] + JOIN_ROWS:
                break
            merged = [min(last[0], merged[0]), max(last[1], merged[1])]
            rows += last[1] - last[0]
            joined += 1
            self.bursts.pop()
        self.bursts.append(merged)
        self.rows_on += merged[1] - merged[0] - rows
        self.n_bursts -= joined - 1

    def settle(self, middle: int) -> None:
        """Edges anew: of what a quarter of the last pieces reach, so that one passing burst does not count.

        middle: bin of the band's middle.
        """
        longest, most = max(piece.rows for piece in self.recent), max(piece.total for piece in self.recent)
        pieces = [p for p in self.recent if 2 * p.rows >= longest and p.total >= FRAGMENT * most] or [
            max(self.recent, key=lambda piece: piece.total)
        ]
        low, high = min(p.raw_low for p in pieces), max(p.raw_high for p in pieces)
        self.reach_low = sorted(p.raw_low for p in pieces)[len(pieces) // 4]
        self.reach_high = sorted(p.raw_high for p in pieces)[-1 - len(pieces) // 4]
        spectra = np.zeros((len(pieces), high - low), np.float32)
        for spectrum, piece in zip(spectra, pieces, strict=True):
            spectrum[piece.raw_low - low : piece.raw_high - low] = piece.energy / piece.rows
        usual = (
            spectra.mean(0)
            if len(pieces) < 4
            else np.partition(spectra, -(len(pieces) // 4) - 1, 0)[-(len(pieces) // 4) - 1]
        )
        floor = self.total.floor[low - self.total.low : high - self.total.low]
        a, b = extent(usual, floor, longest * max(1, len(pieces) // 4), middle - low)
        self.low, self.high = low + a, low + b
        mean = (self.total.energy / max(self.rows_on, 1)).astype(np.float32)
        c, d = extent(mean, self.total.floor, self.rows_on, middle - self.total.low)
        self.strong_width = d - c

    def levels(self) -> tuple[float, float]:
        """(power over noise, power relative to full scale) within the edges while on the air, as ratios."""
        a, b = int(np.floor(self.low)) - self.total.low, int(np.ceil(self.high)) - self.total.low
        excess = self.total.energy[a:b].sum() / max(self.rows_on, 1)
        noise = float(self.total.floor[a:b].sum())
        return float(excess / max(noise, 1e-30)), float(excess)

    @property
    def energy(self) -> float:
        """Over the floor, of all bins and rows."""
        return float(self.total.energy.sum())

    @property
    def density(self) -> float:
        """Of its strongest bin, over the floor and relative to full scale, while on the air."""
        return float(self.total.energy.max(initial=0.0)) / max(self.rows_on, 1)

    @property
    def power(self) -> float:
        """Over the floor, of all its bins, while on the air."""
        return self.energy / max(self.rows_on, 1)

    @property
    def burst_rows(self) -> float:
        """Mean length of a burst."""
        return self.rows_on / max(self.n_bursts, 1)

    @property
    def is_bursty(self) -> bool:
        """Whether it is off the air most of the time between its first burst and its last."""
        return self.n_bursts > 1 and self.rows_on < 0.5 * (self.last_row - self.first_row)

    def active(self, start: int, stop: int, within: int) -> bool:
        """Whether it is on the air, or was within so many rows, at these rows."""
        return any(a - within < stop and start < b + within for a, b in self._latest(start - within))

    def share_active(self, start: int, stop: int, within: int) -> float:
        """Share of these rows on which it is on the air, or was within so many rows."""
        spans = [(max(start, a - within), min(stop, b + within)) for a, b in self._latest(start - within)]
        return min(1.0, sum(max(0, b - a) for a, b in spans) / max(stop - start, 1))

    def _latest(self, since: int) -> Iterator[list[int]]:
        for burst in reversed(self.bursts):
            if burst[1] < since:
                return
            yield burst
