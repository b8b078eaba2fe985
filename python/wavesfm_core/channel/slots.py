# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDM slots with absolute positions and times from sample streams of several antennas; no threads."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import OFDMDemodulator
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError, InputError
from ..types import Samples, Slot, StreamTime
from .sample_buffer import SampleBuffer, as_streams, finite_samples
from .synchronisation import CarrierOffset, PilotSearch, PilotTracker

SYNCS = ("tag", "pilots")
MISSES_ALLOWED = 8
"""Successive slots without pilots after which synchronisation is lost."""
RATE_TOLERANCE = 1e-3
"""Allowed relative difference of the sample rate from the numerology's."""
OFFSET_LIMIT = 0.01
"""Carrier frequency offset, as a share of the subcarrier spacing, from which on it is a fault unless it is corrected:
at 30 kHz the Doppler shift of 26 m/s at 3.5 GHz."""
UNMARKED_ALLOWED = 20
"""Slots of samples without a mark after which the absence of marks is a fault."""


def make_demodulator(spec: OFDMSpec) -> OFDMDemodulator:
    """Kernel from the samples of a slot, complex64 [A, slot_samples], to its grid, complex64 [A, S, F]."""
    return OFDMDemodulator(spec.fft_size, spec.prefix_samples, spec.bins.tolist(), spec.antennas)


class SlotStream:
    """Sample streams of A antennas to Slots with absolute positions and times, bit-equal for any chunking.

    A slot whose pilot symbol is zero on every antenna is dropped (`slots_zero_pilots`). If only some antennas are
    silent, the slot is emitted and counted in `slots_silent_antenna`.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.
    sync : str
        "tag": slots start at the samples of `mark`. "pilots": the start is found by correlation with the known pilots
        (PilotSearch); slots then follow without gaps and their start is tracked (PilotTracker). A slot without its
        pilots is emitted with its low metric; after MISSES_ALLOWED in a row the search begins again.
    rate_hz : float
        Sample rate, within RATE_TOLERANCE of the numerology's; 0 for unknown.
    time : StreamTime, optional
        Time of the sample at `start_sample`.
    start_sample : int
        Absolute index of the first sample that will be pushed.
    correct_cfo : bool
        Correct each slot by the carrier frequency offset measured so far (the first slot by its own), keeping the
        phase of its first sample. All slots must be of one transmitter. Without correction an offset above
        OFFSET_LIMIT is a fault, as the estimates are wrong then.

    Raises
    ------
    ConfigurationError
        An unknown sync, or too few pilots for a search.
    InputError
        A rate that is not the numerology's.
    """

    def __init__(
        self,
        spec: OFDMSpec,
        sync: str = "tag",
        rate_hz: float = 0.0,
        time: StreamTime | None = None,
        start_sample: int = 0,
        correct_cfo: bool = False,
    ) -> None:
        if sync not in SYNCS:
            raise ConfigurationError("slots", "sync", repr(sync), " or ".join(SYNCS))
        self.spec = spec
        self._rate_hz = self._checked_rate(rate_hz)
        self._demodulator = make_demodulator(spec)
        self._search = PilotSearch(spec) if sync == "pilots" else None
        self._tracker: PilotTracker | None = None  # while slots are tracked
        self._offset, self._correct_cfo = CarrierOffset(spec), correct_cfo
        self._buffer = SampleBuffer(spec.antennas, 4 * spec.slot_samples, start_sample)  # a search keeps less than 2
        self._next = start_sample  # start of the next slot or search
        self._marks: list[int] = []  # ascending
        self._covered_to = start_sample  # end of the last slot
        self._segment_start, self._segment_time = start_sample, time
        self._arrived_s: float | None = None
        self._misses = self._failed_in_row = 0
        self._metric: float | None = None
        self._marked = False  # whether a mark was ever set
        self._silence = ""  # symbol or antennas whose pilots were all zero in the last slot
        self._counts = dict.fromkeys(
            ("samples_in", "samples_skipped", "slots", "slots_missed", "slots_cut", "slots_zero_pilots",
             "slots_silent_antenna", "syncs", "lost_sync", "searches_failed", "marks_late", "n_nonfinite",
             "inputs_refused"), 0
        )  # fmt: skip

    def push(self, samples: NDArray[Any] | Sequence[NDArray[Any]], arrived_s: float | None = None) -> list[Slot]:
        """Append samples and return the slots that they complete.

        Parameters
        ----------
        samples : ndarray or sequence of ndarray
            complex64 [A, n], or A arrays complex64 [n]; complex128 is rounded. NaN, infinity and magnitudes of
            SAMPLE_LIMIT and more are taken as zero and counted in the slot.
        arrived_s : float, optional
            time.monotonic() of the arrival.

        Raises
        ------
        InputError
            Another type or number of antennas, or antennas of unequal lengths. Nothing is appended; it is counted.
        """
        try:
            streams = as_streams(samples, self.spec.antennas)
        except InputError:
            self._counts["inputs_refused"] += 1
            raise
        self._arrived_s = arrived_s
        slots: list[Slot] = []
        total = len(streams[0])
        for start in range(0, total, self.spec.slot_samples):  # bounds the buffer
            count = min(self.spec.slot_samples, total - start)
            self._counts["samples_in"] += count
            self._buffer.append(streams, start, count)
            slots += self._completed()
        return slots

    def mark(self, sample: int) -> None:
        """Mark the start of a slot at an absolute sample index that has not been pushed yet.

        A mark of a sample that was pushed is counted as late. A slot that has not ended at the next mark is dropped and
        counted (`slots_cut`). Raises ConfigurationError where sync is by pilots.
        """
        if self._search is not None:
            raise ConfigurationError("slots", "mark", "sync by pilots", "sync by tag")
        self._marked = True
        if sample < self._buffer.end:
            self._counts["marks_late"] += 1
        elif sample not in self._marks[-1:]:
            bisect.insort(self._marks, sample)

    def retune(self, rate_hz: float | None = None, time: StreamTime | None = None) -> list[Slot]:
        """Begin a new segment: samples are missing before the next one, or the radio changed.

        The open slot is dropped and counted; synchronisation by pilots begins anew.

        Parameters
        ----------
        rate_hz : float, optional
            Sample rate. Default: unchanged.
        time : StreamTime, optional
            Time of the next sample. Default: continued.

        Returns
        -------
        list of Slot
            Complete slots of the last segment that were not searched yet.

        Raises
        ------
        InputError
            A rate that is not the numerology's; nothing is changed.
        """
        new_rate = self._rate_hz if rate_hz is None else self._checked_rate(rate_hz)
        slots = self.finish()
        if time is not None:
            self._segment_time = time
        self._rate_hz = new_rate
        return slots

    def finish(self) -> list[Slot]:
        """End the segment and return its complete slots that were not searched yet.

        The open slot is dropped and counted. A further push continues at the next sample with a new synchronisation.
        """
        slots = self._last_search()
        position = self._buffer.end
        cut = [mark for mark in self._marks if mark < position]
        followed = (
            self._tracker is not None and self._next < position - 1
        )  # a difference of one sample is a step of the tracker
        self._counts["slots_cut"] += len(cut) + followed
        self._marks = self._marks[len(cut) :]
        self._segment_time, self._segment_start = self._time_of(position), position
        self._tracker, self._next = None, position
        self._misses = self._failed_in_row = 0
        if self._search is not None:
            self._search.restart()
        self._skip_to(position)
        return slots

    @property
    def searching(self) -> bool:
        """Whether sync is by pilots and the start is not known."""
        return self._search is not None and self._tracker is None

    def status(self) -> dict[str, object]:
        """Accounts of the stream in plain types.

        samples_in = samples of slots + samples_skipped + samples_pending.

        - slots: emitted; slots_missed: emitted without their pilots; slots_cut: not complete and dropped;
          slots_zero_pilots: dropped; slots_silent_antenna: emitted although an antenna's pilots, or one symbol of
          them, are all zero.
        - syncs: times that the start was found; resyncs: all but the first; lost_sync: times that it was lost;
          searches_failed: searches over the length of a slot without result.
        - sync_metric, sync_threshold: of the last slot or search, 0 to 1; None with tags.
        - cfo_hz: carrier frequency offset of the samples, None when unknown; cfo_corrected: whether it is corrected.
        - fault: present fault in one sentence, or "".
        """
        return {
            "sync": "tag" if self._search is None else "pilots",
            "searching": self.searching,
            "sync_metric": self._metric,
            "sync_threshold": self._threshold,
            "cfo_hz": self._offset.hz,
            "cfo_corrected": self._correct_cfo,
            **self._counts,
            "resyncs": max(0, self._counts["syncs"] - 1),
            "samples_pending": self._buffer.end - self._covered_to,
            "fault": self._fault(),
        }

    def _fault(self) -> str:
        if self._silence:
            return f"slots: pilots: found all zero in {self._silence}, expected a signal"
        if self.searching and self._failed_in_row:
            return (
                f"slots: sync: found no start in {self._failed_in_row} slots of samples (metric {self._metric:.3f}), "
                f"expected more than {self._threshold:.3f}"
            )
        if self._misses:
            return f"slots: pilots: found {self._misses} slots in a row without, expected them in each"
        unmarked = self._counts["samples_in"] // self.spec.slot_samples
        if self._search is None and not self._marked and unmarked >= UNMARKED_ALLOWED:
            return f"slots: sync: found no mark of a slot's start in {unmarked} slots of samples, expected some"
        hz, limit = self._offset.hz or 0.0, OFFSET_LIMIT * self.spec.spacing_hz
        if not self._correct_cfo and self._offset.settled and abs(hz) > limit:
            return f"slots: carrier offset: found {hz:.0f} Hz, expected at most {limit:.0f} Hz, or its correction"
        return ""

    @property
    def _threshold(self) -> float | None:
        source = self._tracker or self._search
        return None if source is None else source.threshold

    def _completed(self) -> list[Slot]:
        if self._search is None:
            return self._marked_slots()
        slots: list[Slot] = []
        while True:
            if self._tracker is not None:
                if self._next + self.spec.slot_samples > self._buffer.end:
                    return slots
                slots += self._tracked_slot(self._tracker)
            else:
                block = self.spec.slot_samples - 1 + self._search.span_samples
                if self._next + block > self._buffer.end:
                    return slots
                self._try_search(self._search, block)

    def _marked_slots(self) -> list[Slot]:
        n = self.spec.slot_samples
        slots: list[Slot] = []
        while self._marks and self._marks[0] < self._buffer.end:
            start = self._marks[0]
            if len(self._marks) > 1 and self._marks[1] < start + n:
                self._counts["slots_cut"] += 1
            elif start + n > self._buffer.end:
                break
            else:
                samples, bad = finite_samples(self._buffer.view(start, n))
                self._offset.take(samples)
                grid = self._grid_of(samples)
                slots += self._emitted(start, grid, self._received(grid), bad, None)
            self._marks.pop(0)
        self._skip_to(min([self._buffer.end, *self._marks[:1]]))
        return slots

    def _tracked_slot(self, tracker: PilotTracker) -> list[Slot]:
        start = self._next
        samples, bad = finite_samples(self._buffer.view(start, self.spec.slot_samples))
        if self._offset.hz is None and self._correct_cfo:
            self._offset.take(samples)
        grid = self._grid_of(samples)
        received = self._received(grid)
        hit = tracker.hit(received)
        self._metric = tracker.metric
        self._misses = 0 if hit else self._misses + 1
        slots = self._emitted(start, grid, received, bad, tracker.metric)
        self._next += self.spec.slot_samples
        if hit:
            self._offset.take(samples)
            self._next += tracker.step()
        else:
            self._counts["slots_missed"] += len(slots)
        if self._misses >= MISSES_ALLOWED:
            self._tracker, self._misses = None, 0
            self._offset = CarrierOffset(self.spec)  # the next transmitter may be another one
            self._counts["lost_sync"] += 1
        self._buffer.drop_to(self._next)
        return slots

    def _try_search(self, search: PilotSearch, n_samples: int) -> None:
        samples, _ = finite_samples(self._buffer.view(self._next, n_samples))
        start, self._metric = search.find(samples)
        if start is None:
            self._next += n_samples - search.span_samples + 1
            self._counts["searches_failed"] += 1
            self._failed_in_row += 1
        else:
            self._next += start
            self._tracker, self._failed_in_row = PilotTracker(self.spec), 0
            self._counts["syncs"] += 1
        self._skip_to(self._next)

    def _last_search(self) -> list[Slot]:
        """Slots at the end of a stream, with too few samples for a whole search."""
        n = self._buffer.end - self._next
        if self._search is None or self._tracker is not None or n < self.spec.slot_samples:
            return []
        self._try_search(self._search, n - self.spec.slot_samples + self._search.span_samples)
        return self._completed() if self._tracker is not None else []

    def _grid_of(self, samples: Samples) -> NDArray[np.complex64]:
        return self._demodulator.demodulate(self._offset.corrected(samples) if self._correct_cfo else samples)

    def _received(self, grid: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Received pilots, [A, P, Fp]."""
        return grid[:, self.spec.pilot_symbols, self.spec.pilot_offset :: self.spec.pilot_step]

    def _emitted(
        self, start: int, grid: NDArray[np.complex64], received: NDArray[np.complex64], bad: int, metric: float | None
    ) -> list[Slot]:
        n = self.spec.slot_samples
        self._counts["n_nonfinite"] += bad
        heard: NDArray[np.bool_] = np.any(received, axis=2)  # [A, P]
        symbols, antennas = np.flatnonzero(~np.any(heard, axis=0)), np.flatnonzero(~np.all(heard, axis=1))
        self._silence = ""
        if symbols.size:
            self._silence = f"symbol {self.spec.pilot_symbols[symbols[0]]}"
            self._counts["slots_zero_pilots"] += 1
            return []
        if antennas.size:
            self._silence = f"antenna {', '.join(map(str, antennas))}"
            self._counts["slots_silent_antenna"] += 1
        self._counts["slots"] += 1
        self._skip_to(start)
        self._covered_to = start + n
        time = self._time_of(start)
        return [Slot(grid, start, n, self._rate_hz, time, bad, metric, self._arrived_s)]

    def _skip_to(self, sample: int) -> None:
        """Count the samples before an absolute index that belong to no slot as skipped."""
        self._counts["samples_skipped"] += max(0, sample - self._covered_to)
        self._covered_to = max(sample, self._covered_to)
        self._buffer.drop_to(sample)

    def _time_of(self, sample: int) -> StreamTime | None:
        if self._segment_time is None or sample == self._segment_start:
            return self._segment_time
        return self._segment_time.advanced((sample - self._segment_start) / self._rate_hz)

    def _checked_rate(self, rate_hz: float) -> float:
        needed = self.spec.rate_hz
        if rate_hz == 0.0:
            return needed
        if not abs(rate_hz - needed) <= RATE_TOLERANCE * needed:  # refuses NaN too
            raise InputError("slots", "rate_hz", f"{rate_hz:g}", f"{needed:g}, the numerology's, or 0 for unknown")
        return float(rate_hz)
