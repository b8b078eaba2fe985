# SPDX-License-Identifier: GPL-3.0-or-later
"""What the signal display shows, fed by the stream and by messages, read by the window; no Qt."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError, InputError

from .capture import SampleRing, save_box
from .emitters import EmitterTable, LoggedEvent, ShownEmitter
from .health import Health
from .spectrum import RowMaker
from .waterfall import WaterfallRing

BOX_MARGIN = 0.1  # of a box's length, kept before and behind it in a file


@dataclass(frozen=True)
class DisplayOptions:
    """How much the display keeps."""

    rows: int = 450
    """Rows of the waterfall."""
    columns: int = 1024
    """Bins of the waterfall."""
    history_s: float = 15.0
    """Seconds of stream in the waterfall."""
    keep_mb: float = 64.0
    """Memory of the samples that can be saved, in MB."""
    save_dir: str = "recordings"
    """Directory of saved signals."""
    teach_dir: str = "teaching"
    """Directory of signals that the user named."""

    def __post_init__(self) -> None:
        require_rules(
            "display",
            self,
            {
                "rows": (self.rows >= 16, "16 or more"),
                "columns": (self.columns >= 64, "64 or more"),
                "history_s": (0 < self.history_s <= 3600, "more than 0, up to 3600"),
                "keep_mb": (0 <= self.keep_mb <= 16384, "0 to 16384"),
            },
        )


@dataclass(frozen=True)
class Snapshot:
    """What the window draws at one moment."""

    image: NDArray[np.uint8]
    """[rows, columns], newest first."""
    levels_db: tuple[float, float]
    """Ends of the colour scale."""
    centre_hz: float
    """Middle of the band; 0 when unknown."""
    rate_hz: float
    """Width of the band; 0 when unknown."""
    now_sample: int
    """The sample after the newest row."""
    row_samples: int
    """Samples of one row."""
    emitters: list[ShownEmitter]
    """Those with a box."""
    events: list[LoggedEvent]
    """Newest first."""
    whole: Mapping[str, Any]
    """The last prediction of the whole band; empty before."""

    def seconds_ago(self, sample: int) -> float:
        """Place of a sample on the time axis; in rows when the rate is unknown."""
        return (self.now_sample - sample) / (self.rate_hz or self.row_samples)

    @property
    def history(self) -> float:
        """Length of the time axis, in the unit of `seconds_ago`."""
        return len(self.image) * self.row_samples / (self.rate_hz or self.row_samples)


class SignalModel:
    """Waterfall, emitters, events and health of one stream; each method may be called on any thread.

    Parameters
    ----------
    options : DisplayOptions
        How much is kept.
    rate_hz : float
        0 when unknown; a tag replaces it.
    centre_hz : float
        0 when unknown; a tag or a message replaces it.
    """

    def __init__(self, options: DisplayOptions, rate_hz: float = 0.0, centre_hz: float = 0.0) -> None:
        self.options = options
        self._lock = threading.RLock()
        self._maker = RowMaker(options.columns, options.rows / options.history_s)
        self._ring = WaterfallRing(options.rows, options.columns)
        self._samples = SampleRing(int(options.keep_mb * 1e6) // 8)
        self._table, self.health = EmitterTable(), Health()
        self._whole: Mapping[str, Any] = {}
        self._next_sample = self._row_end = 0
        self._tune(rate_hz, centre_hz)

    def restart(self, sample: int = 0) -> None:
        """Begin a run: the next sample of the stream has this number."""
        with self._lock:
            self._next_sample = self._row_end = sample
            self._maker.restart()
            self._ring.clear()
            self._table.clear()
            self._samples.restart(sample)

    def retune(self, rate_hz: float | None = None, centre_hz: float | None = None, **_: Any) -> None:
        """Note rate and frequency of the next sample; None: as before."""
        with self._lock:
            self._tune(
                self._ring.rate_hz if rate_hz is None else rate_hz,
                self._ring.centre_hz if centre_hz is None else centre_hz,
            )

    def take(self, samples: NDArray[np.complex64]) -> None:
        """Take the next samples in; the cost hardly depends on the rate."""
        self._samples.push(samples)
        rows = self._maker.push(samples)
        with self._lock:
            self._next_sample += len(samples)
            for row in rows:
                self._ring.add(row)
                self._row_end += self._maker.row_samples

    def take_prediction(self, record: Mapping[str, Any]) -> None:
        """Take in a prediction of the whole band."""
        with self._lock:
            self._whole = {**record, "probabilities": record.get("probabilities") or {}}
            self.health.take_lag(record.get("latency_s"))

    def take_event(self, record: Mapping[str, Any]) -> None:
        """Take in an event; raises KeyError, TypeError or ValueError for another message."""
        with self._lock:
            self._table.take_event(record)

    def take_detections(self, record: Mapping[str, Any]) -> None:
        """Take in the emitters that are known; raises as `take_event`."""
        with self._lock:
            self._table.take_detections(record)

    def take_status(self, record: Mapping[str, Any]) -> None:
        """Take in a status message."""
        with self._lock:
            self.health.take_status(record)
            if record.get("kind") == "finished":
                self._table.finish()

    @property
    def samples_in(self) -> int:
        """Samples that came."""
        return self._maker.samples_in

    @property
    def samples_skipped(self) -> int:
        """Samples that no row of the waterfall has seen."""
        return self._maker.samples_skipped

    def snapshot(self) -> Snapshot:
        """What is to be drawn now."""
        with self._lock:
            ring = self._ring
            facts = (ring.levels_db, ring.centre_hz, ring.rate_hz, self._row_end, self._maker.row_samples)
            emitters, events = self._table.shown(), list(self._table.events)[::-1]
            return Snapshot(ring.image().copy(), *facts, emitters, events, self._whole)

    def emitter(self, number: int) -> ShownEmitter | None:
        """An emitter by its number."""
        with self._lock:
            return self._table.get(number)

    def save(self, number: int, label: str = "") -> Path:
        """Write the samples of an emitter's box, with its annotation, as SigMF.

        Parameters
        ----------
        number : int
            Of the emitter.
        label : str
            The right label: the files go to the teaching directory. "": as found, to the directory of saved signals.

        Returns
        -------
        Path
            Of the metadata.

        Raises
        ------
        InputError
            The emitter is not known, or its samples are no longer in memory.
        ConfigurationError
            The files cannot be written.
        """
        with self._lock:
            emitter, rate_hz = self._table.get(number), self._ring.rate_hz
            now = self._next_sample
            if emitter is None:
                raise InputError("display", "emitter", number, "an emitter that is known")
            if rate_hz <= 0:
                raise ConfigurationError("display", "sample rate", "none", "a known rate")
            start, stop = emitter.start_sample, emitter.end_sample(now)
            low, high = emitter.edges_hz
            centre_hz = emitter.record.get("centre_hz")
            comment = f"found as {emitter.caption()}, {emitter.record.get('snr_db', 0.0):.1f} dB over the noise"
            label, directory = (label, self.options.teach_dir) if label else (emitter.label, self.options.save_dir)
        margin = int(BOX_MARGIN * (stop - start))
        first, samples = self._samples.cut(start - margin, stop + margin)
        begin, end = max(start, first), min(stop, first + len(samples))
        if end <= begin:
            raise InputError("display", "samples", "none of this box", "a box whose samples are still in memory")
        box = {
            "core:sample_start": begin - first,
            "core:sample_count": end - begin,
            "core:freq_lower_edge": low,
            "core:freq_upper_edge": high,
            "core:label": label or "unknown",
            "core:comment": comment,
        }
        return save_box(directory, samples, rate_hz, centre_hz, box)

    def _tune(self, rate_hz: float, centre_hz: float) -> None:
        if rate_hz != self._ring.rate_hz:
            self._maker.set_rate(rate_hz)
        elif centre_hz != self._ring.centre_hz:
            self._maker.restart()
        self._row_end = self._next_sample
        self._ring.retune(centre_hz, rate_hz)
