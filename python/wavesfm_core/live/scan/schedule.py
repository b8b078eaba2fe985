# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a scan's visits: every tuning once, then by priority, by what was found, and by the time since."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .plan import Tuning

ACTIVE_BOOST = 2.0  # of the priority of a tuning at which there were emitters at the last visit


class Schedule:
    """Chooses the next tuning.

    Parameters
    ----------
    tunings : sequence of Tuning
        At least one.
    is_active : callable
        Whether there were emitters at the last visit of the tuning of this index.
    """

    def __init__(self, tunings: Sequence[Tuning], is_active: Callable[[int], bool]) -> None:
        self._tunings, self._is_active = tunings, is_active
        self._last_s: list[float | None] = [None] * len(tunings)
        self.visits = [0] * len(tunings)

    visits: list[int]
    """Visits of each tuning."""

    def next(self, now_s: float) -> int:
        """Index of the tuning to visit at the time `now_s` of the samples; it counts as visited."""
        index = max(range(len(self._tunings)), key=lambda i: (self._urgency(i, now_s), -i))
        self._last_s[index] = now_s
        self.visits[index] += 1
        return index

    def _urgency(self, index: int, now_s: float) -> float:
        last_s = self._last_s[index]
        if last_s is None:
            return float("inf")
        boost = ACTIVE_BOOST if self._is_active(index) else 1.0
        return self._tunings[index].priority * boost * (now_s - last_s)
