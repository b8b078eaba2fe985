# SPDX-License-Identifier: GPL-3.0-or-later
"""The last rows of a waterfall as an image that scrolls without copying and follows retunes; no Qt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_SHARE, HIGH_SHARE = 0.3, 0.999  # of the values of the last rows, at the ends of the scale
LEAST_RANGE_DB = 25.0
HEADROOM_DB = 4.0
LEVEL_ROWS = 64  # rows that the ends of the scale are taken from
LEVEL_CHANGE_DB = 3.0  # by which an end has to move before the image is scaled anew
EMPTY = 0  # image value of what was not received; the power scale begins at 1


class WaterfallRing:
    """Rows of power, newest first, on the frequency axis of the present tuning.

    Parameters
    ----------
    rows : int
        Rows that are kept.
    columns : int
        Values of a row.
    """

    centre_hz: float
    """Middle of the axis; 0 when unknown."""
    rate_hz: float
    """Width of the axis; 0 when unknown."""
    count: int
    """Rows that were added on this axis or moved to it, at most `rows`."""
    levels_db: tuple[float, float]
    """Powers at the ends of the colour scale."""

    def __init__(self, rows: int = 450, columns: int = 1024) -> None:
        self.rows, self.columns = rows, columns
        self._decibels = np.full((rows, columns), np.nan, np.float32)
        self._image = np.full((2 * rows, columns), EMPTY, np.uint8)  # each row twice, so that any window is one piece
        self._head = 0
        self.centre_hz = self.rate_hz = 0.0
        self.count = 0
        self.levels_db = (-120.0, -60.0)
        self._since_levels = LEVEL_ROWS

    def add(self, decibels: NDArray[np.float32]) -> None:
        """Add the newest row, float32 [columns] in dB."""
        self._head = (self._head - 1) % self.rows
        self._decibels[self._head] = decibels
        self.count = min(self.count + 1, self.rows)
        self._since_levels += 1
        if self._since_levels >= LEVEL_ROWS or self.count in (1, 4, 16):
            self._since_levels = 0
            if self._set_levels():
                self._scale_all()
                return
        self._image[self._head] = self._image[self._head + self.rows] = self._scaled(decibels)

    def clear(self) -> None:
        """Forget all rows."""
        self._decibels[:] = np.nan
        self._image[:] = EMPTY
        self.count, self._since_levels = 0, LEVEL_ROWS

    def retune(self, centre_hz: float, rate_hz: float) -> None:
        """Change the axis; rows move to their places on the new one, and what lies outside is empty.

        With another rate the rows are forgotten: they would be of another length.
        """
        if (centre_hz, rate_hz) == (self.centre_hz, self.rate_hz):
            return
        bins = round((centre_hz - self.centre_hz) / rate_hz * self.columns) if rate_hz > 0 else self.columns
        same = rate_hz == self.rate_hz
        self.centre_hz, self.rate_hz = centre_hz, rate_hz
        if not same or abs(bins) >= self.columns:
            if not same:
                self.clear()
            else:
                self._decibels[:] = np.nan
                self._image[:] = EMPTY
            return
        moved = np.full_like(self._decibels, np.nan)
        if bins >= 0:
            moved[:, : self.columns - bins] = self._decibels[:, bins:]
        else:
            moved[:, -bins:] = self._decibels[:, :bins]
        self._decibels = moved
        self._scale_all()

    def image(self) -> NDArray[np.uint8]:
        """uint8 [rows, columns], newest row first: EMPTY, or 1 to 255 over `levels_db`. A view, valid until `add`."""
        return self._image[self._head : self._head + self.rows]

    def _set_levels(self) -> bool:
        """Follow the last rows; returns whether an end of the scale moved."""
        places = (self._head + np.arange(min(self.count, LEVEL_ROWS))) % self.rows
        seen = self._decibels[places][:, ::4]
        seen = seen[np.isfinite(seen)]
        if not seen.size:
            return False
        low, high = (float(value) for value in np.quantile(seen, (LOW_SHARE, HIGH_SHARE)))
        wanted = low, max(high + HEADROOM_DB, low + LEAST_RANGE_DB)
        if max(abs(new - old) for new, old in zip(wanted, self.levels_db)) < LEVEL_CHANGE_DB:
            return False
        self.levels_db = wanted
        return True

    def _scaled(self, decibels: NDArray[np.float32]) -> NDArray[np.uint8]:
        low, high = self.levels_db
        share = np.clip((decibels - low) * np.float32(254 / (high - low)), 0, 254) + 1
        return np.nan_to_num(share, nan=EMPTY).astype(np.uint8)

    def _scale_all(self) -> None:
        self._image[: self.rows] = self._image[self.rows :] = self._scaled(self._decibels)
