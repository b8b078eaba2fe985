# SPDX-License-Identifier: GPL-3.0-or-later
"""Back-off between attempts after a fault. No GNU Radio."""

from __future__ import annotations

FIRST_S, LONGEST_S = 0.5, 30.0


class Retry:
    """When to try again: FIRST_S after a fault, and twice as long after each further one, up to LONGEST_S."""

    def __init__(self) -> None:
        self._delay_s = FIRST_S
        self._due_s = 0.0

    def failed(self, now_s: float) -> float:
        """Note a fault at a monotonic time; returns the seconds until the next attempt."""
        delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, LONGEST_S)
        self._due_s = now_s + delay_s
        return delay_s

    def due(self, now_s: float) -> bool:
        """Whether it is time for the next attempt."""
        return now_s >= self._due_s

    def succeeded(self) -> None:
        """Begin at FIRST_S again at the next fault."""
        self._delay_s = FIRST_S
