# SPDX-License-Identifier: GPL-3.0-or-later
"""Rounds of looks: who is looked at when, on this thread or beside it, and what the engine said."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .looks import READY_SAMPLES, Group, Look, Looker, Namer, Seen
from .naming import Budget
from .options import BandOptions
from .ring import SampleRing
from .track import Track

Job = Callable[[], None]
Submit = Callable[[Job], bool]
"""Has a job run, now or later, in order; False if it has to be left out because too many wait."""

ROUND_S = 0.2  # from one round of looks to the next, which share their transforms
PATIENCE_S = 0.3  # for READY_SAMPLES; then a tile is made of what there is
LINE_S = 0.5  # until a line is examined again
APART_S = 0.15  # between the first looks at one emitter


def run_now(job: Job) -> bool:
    """A Submit that does not wait."""
    job()
    return True


class LookRounds:
    """Chooses the emitters that are looked at, within the budget.

    Only `_work` may run on another thread; it gets copies, and hands its answers back through a queue.

    Parameters
    ----------
    looker : Looker
    ring : SampleRing
        The last samples.
    budget : Budget
    options : BandOptions
    rows : callable
        Seconds -> rows of the detector, at least 1.
    namer : callable or None
        Without one the looks are kept in `unnamed`.
    submit : callable
        See `Submit`.
    """

    def __init__(
        self,
        looker: Looker,
        ring: SampleRing,
        budget: Budget,
        options: BandOptions,
        rows: Callable[[float], int],
        namer: Namer | None,
        submit: Submit,
    ) -> None:
        self._looker, self._ring, self._budget, self._options = looker, ring, budget, options
        self._rows, self._namer, self._submit = rows, namer, submit
        self._round_row = -rows(ROUND_S)  # of the last round
        self._done: deque[list[tuple[Seen, NDArray[np.floating] | None]] | Exception] = deque()
        self.unnamed: list[Look] = []

    def is_time(self, row: int) -> bool:
        """Whether the next round is due."""
        return row - self._round_row >= self._rows(ROUND_S)

    def round(self, here: Sequence[Track], row: int, stop: int, others: Sequence[Track]) -> None:
        """Look at those of `here` that are due; they share a transform. others: see `Looker.plan`."""
        due = [track for track in here if self._is_due(track, row, 1.0)]
        if due:  # those that would be due soon cost less now
            self._round_row = row
            due = [track for track in here if self._is_due(track, row, 0.5)]
        due.sort(key=lambda track: (track.n_looks, -track.cells))
        self.look(self._budget.spend(due), row, stop, others)

    def last(self, here: Sequence[Track], row: int, stop: int) -> None:
        """Look at those whose end says something new."""
        due = sorted((track for track in here if self._wants_last_look(track)), key=lambda track: track.n_looks)
        self.look(self._budget.spend(due), row, stop, here)

    def look(self, tracks: Sequence[Track], row: int, stop: int, others: Sequence[Track]) -> None:
        """Look at these, if the thread has time for it; the samples reach up to `stop`."""
        if not tracks:
            return
        groups = self._looker.plan(self._ring, tracks, stop, others)
        for track in tracks:
            track.pending += 1
        if self._submit(lambda: self._work(groups)):
            for track in tracks:
                track.looked_row = row
            return
        for track in tracks:
            track.pending -= 1
        self._budget.refuse(len(tracks))

    def answers(self) -> list[tuple[Look, NDArray[np.floating]]]:
        """What became known since the last call; edges and kinds are entered, probabilities returned.

        Raises
        ------
        Exception
            What cutting or naming the views raised.
        """
        named = []
        while self._done:
            done = self._done.popleft()
            if isinstance(done, Exception):
                raise done
            for seen, probabilities in done:
                track = seen.track
                track.pending -= 1
                if track.kind in ("signal", "line"):
                    track.refined, track.kind = seen.refined, seen.kind
                if seen.tile is None:
                    continue
                look = Look(seen.tile, track)
                if probabilities is not None:
                    named.append((look, probabilities))
                elif track.kind != "line":
                    self.unnamed.append(look)
        return named

    def _work(self, groups: Sequence[Group]) -> None:
        try:
            seen = [each for group in groups for each in self._looker.look(group)]
            asked = [each for each in seen if each.tile is not None and each.kind != "line"]
            if self._namer is None or not asked:
                self._done.append([(each, None) for each in seen])
                return
            said = self._namer([each.tile for each in asked if each.tile is not None])
            of = {id(each): answer for each, answer in zip(asked, said, strict=True)}
            self._done.append([(each, of.get(id(each))) for each in seen])
        except Exception as error:  # it is raised on the thread that asks for the answers
            self._done.append(error)

    def _is_due(self, track: Track, row: int, share: float) -> bool:
        """Whether it is to be looked at at this row; share: of relook_s that must have gone by."""
        if track.pending:
            return False
        if track.kind == "line":  # a carrier may begin to carry something
            fresh = track.last_row > track.looked_row and not track.ended
            return fresh and row - track.looked_row > self._rows(LINE_S)
        if track.kind != "signal":
            return False
        if track.n_looks == 0:
            if track.looked_row >= track.last_row:
                return False
            ready = self._looker.samples_ready(track, row) >= READY_SAMPLES
            return ready or track.silent or row - track.first_row > self._rows(PATIENCE_S)
        if track.last_row <= track.looked_row:
            return False
        since = row - track.looked_row
        if track.n_looks < self._options.looks_per_emitter:
            return since > self._rows(APART_S * 2.0 ** (track.n_looks - 1))
        return since > self._rows(share * self._options.relook_s)

    def _wants_last_look(self, track: Track) -> bool:
        if track.pending or track.kind not in ("signal", "line") or track.n_looks >= self._options.looks_per_emitter:
            return False
        fresh = track.last_row - max(track.looked_row, track.first_row)
        return track.n_looks == 0 or fresh > (track.last_row - track.first_row) / 4
