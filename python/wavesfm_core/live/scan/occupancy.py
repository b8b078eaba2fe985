# SPDX-License-Identifier: GPL-3.0-or-later
"""Occupancy over time and frequency: a heat map as PNG and CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...atomic_file import atomic_path, write_atomically
from ...errors import ConfigurationError

MOST_SLOTS = 1440 * 7  # rows, of a minute each a week; the oldest go
MOST_BINS = 100_000


class Occupancy:
    """Share of the observed time for which each bin of a band was occupied, in each slot of time.

    Parameters
    ----------
    low_hz, high_hz : float
        The band.
    bin_hz : float
        Width of a column in Hz; wider where the band has more than 100000 of them.
    slot_s : float
        Time of a row in seconds.
    """

    def __init__(self, low_hz: float, high_hz: float, bin_hz: float, slot_s: float) -> None:
        self.low_hz, self.slot_s = low_hz, slot_s
        self.bin_hz = max(bin_hz, (high_hz - low_hz) / MOST_BINS)
        self.bins = max(1, int(np.ceil((high_hz - low_hz) / self.bin_hz - 1e-9)))
        self._rows: dict[int, NDArray[np.float32]] = {}  # [2, bins]: observed and occupied seconds

    def observe(self, at_s: float, low_hz: float, high_hz: float, seconds: float) -> None:
        """Count that the band between two frequencies was observed, at the time `at_s` since the epoch."""
        self._row(at_s)[0, self._span(low_hz, high_hz, inwards=True)] += seconds

    def occupy(self, at_s: float, low_hz: float, high_hz: float, seconds: float) -> None:
        """Count that an emitter between two frequencies was on the air for so long."""
        self._row(at_s)[1, self._span(low_hz, high_hz, inwards=False)] += seconds

    def share(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Starts of the slots, seconds since the epoch, and occupancy float32 [slots, bins], 0 to 1.

        It is NaN where nothing was observed. Slots without an observation are left out.
        """
        slots = sorted(self._rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = [np.minimum(self._rows[slot][1] / self._rows[slot][0], 1.0) for slot in slots]
        starts = np.array(slots, np.float64) * self.slot_s
        return starts, np.array(shares, np.float32).reshape(len(slots), self.bins)

    def write_csv(self, path: Path) -> None:
        """One line for each slot and each bin that was observed: UTC, edges in Hz, occupancy. Raises OSError."""
        starts, shares = self.share()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["utc", "low_hz", "high_hz", "occupancy"])
        for start_s, row in zip(starts, shares):
            utc = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for column in np.flatnonzero(~np.isnan(row)):
                low_hz = self.low_hz + column * self.bin_hz
                writer.writerow([utc, f"{low_hz:.0f}", f"{low_hz + self.bin_hz:.0f}", f"{row[column]:.4f}"])
        write_atomically(path, text.getvalue())

    def write_png(self, path: Path) -> None:
        """The heat map. Raises OSError, or ConfigurationError without matplotlib."""
        try:
            from matplotlib import colormaps
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ConfigurationError("occupancy", "library matplotlib", error, "pip install matplotlib") from error
        starts, shares = self.share()
        figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        colours = colormaps["viridis"].with_extremes(bad="#d9d9d9")
        edges_mhz = (self.low_hz / 1e6, (self.low_hz + self.bins * self.bin_hz) / 1e6)
        image = axes.imshow(
            _thinned(shares),
            aspect="auto",
            interpolation="nearest",
            vmin=0,
            vmax=1,
            cmap=colours,
            extent=(*edges_mhz, len(starts), 0),
        )
        places = np.unique(np.linspace(0, len(starts) - 1, 9).astype(int)) if len(starts) else np.zeros(0, int)
        axes.set_yticks([place + 0.5 for place in places])
        axes.set_yticklabels([datetime.fromtimestamp(starts[place], UTC).strftime("%m-%d %H:%M") for place in places])
        axes.set_xlabel("frequency, MHz")
        axes.set_ylabel("UTC")
        axes.set_title("Occupancy: share of the observed time on the air (grey: not observed)")
        figure.colorbar(image, ax=axes, pad=0.01)
        with atomic_path(path) as scratch:
            figure.savefig(scratch, format="png")

    def _row(self, at_s: float) -> NDArray[np.float32]:
        slot = int(at_s // self.slot_s)
        if slot not in self._rows:
            self._rows[slot] = np.zeros((2, self.bins), np.float32)
            if len(self._rows) > MOST_SLOTS:
                del self._rows[min(self._rows)]
        return self._rows[slot]

    def _span(self, low_hz: float, high_hz: float, inwards: bool) -> slice:
        """Columns between two frequencies: those that lie within them, or those that they touch."""
        low, high = (low_hz - self.low_hz) / self.bin_hz, (high_hz - self.low_hz) / self.bin_hz
        first = int(np.ceil(low - 1e-6) if inwards else np.floor(low))
        last = int(np.floor(high + 1e-6) if inwards else np.ceil(high))
        return slice(max(first, 0), max(last, 0))


def _thinned(shares: NDArray[np.float32], most: int = 2000) -> NDArray[np.float32]:
    """At most `most` columns: the largest of those that share one, so that narrow emitters stay visible."""
    step = -(-shares.shape[1] // most)
    padded = np.pad(shares, ((0, 0), (0, -shares.shape[1] % step)), constant_values=np.nan)
    groups = padded.reshape(len(shares), -1, step)
    known = ~np.isnan(groups).all(axis=2)
    largest = np.where(np.isnan(groups), -1.0, groups).max(axis=2)
    return np.where(known, largest, np.nan).astype(np.float32)
