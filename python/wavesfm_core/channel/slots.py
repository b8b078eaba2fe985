# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of samples of several antennas -> slots of OFDM with absolute positions and times; no threads."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import OFDMDemodulator, copy_streams
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError, InputError
from ..types import Samples, Slot, StreamTime
from .synchronisation import CarrierOffset, PilotSearch, PilotTracker

SYNCS = ("tag", "pilots")
MISSES_ALLOWED = 8  # slots in a row without pilots, before sync counts as lost
SAMPLE_LIMIT = 1e15  # of a part (I or Q); as in the kernels, from there on it counts as not finite
RATE_TOLERANCE = 1e-3
OFFSET_LIMIT = 0.01  # of the subcarrier spacing: at 30 kHz the Doppler shift of 26 m/s at 3.5 GHz
UNMARKED_ALLOWED = 20  # slots of samples at the beginning without a mark


def make_demodulator(spec: OFDMSpec) -> OFDMDemodulator:
    """The kernel that takes a slot's samples, complex64 [A, slot_samples], to its grid, complex64 [A, S, F]."""
    return OFDMDemodulator(spec.fft_size, spec.prefix_samples, spec.bins.tolist(), spec.antennas)


class SlotStream:
    """A streams of samples -> Slots with absolute positions and times; the same slots, to the bit, for any chunking.

    sync "tag": a slot starts where `mark` says, and nowhere else.
    sync "pilots": the start is looked for by correlation with the known pilots (see PilotSearch), then slots follow
        each other without a gap and their start is followed sample by sample (see PilotTracker). A slot without its
        pilots is given out all the same, with the metric that says so; after 8 in a row sync is lost and looked for
        again.
    correct_cfo: each slot is turned back by the carrier frequency offset that was measured until then, the first by its
        own, and keeps the phase of its first sample. All slots must be of one transmitter. Without it the offset is
        left in the grids, whose estimates are wrong from a hundredth of the subcarrier spacing or so on: a fault.
    rate_hz: sample rate, within 0.1 % of the numerology's, 0.0 when not told; time: of the sample at start_sample;
    start_sample: absolute index of the first sample that will be pushed.

    A slot with a pilot symbol that is all zero in all antennas is no slot: counted, not given out. One with antennas
    that are is given out: a fault, and counted. Raises ConfigurationError for an unknown sync
    and for pilots too few to be found, InputError for a rate that is not the numerology's.
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
        self._tracker: PilotTracker | None = None  # while slots are followed
        self._offset, self._correct_cfo = CarrierOffset(spec), correct_cfo
        self._buffer = _Buffer(spec.antennas, 4 * spec.slot_samples, start_sample)  # a search keeps less than 2
        self._next = start_sample  # where the next slot is expected, or the next search begins
        self._marks: list[int] = []  # ascending
        self._covered_to = start_sample  # end of the last slot
        self._segment_start, self._segment_time = start_sample, time
        self._arrived_s: float | None = None
        self._misses = self._failed_in_row = 0
        self._metric: float | None = None
        self._marked = False  # ever
        self._silence = ""  # what of the last slot's pilots was all zero
        self._counts = dict.fromkeys(
            ("samples_in", "samples_skipped", "slots", "slots_missed", "slots_cut", "slots_zero_pilots",
             "slots_silent_antenna", "syncs", "lost_sync", "searches_failed", "marks_late", "n_nonfinite",
             "inputs_refused"), 0
        )  # fmt: skip

    def push(self, samples: NDArray[Any] | Sequence[NDArray[Any]], arrived_s: float | None = None) -> list[Slot]:
        """Takes complex64 [A, n] in (complex128 is rounded), or A arrays [n], and returns the slots they complete.

        arrived_s: time.monotonic() at which the samples were there. NaN, infinite and 1e15 and more count as zero, and
        in the slot. Raises InputError for another type, another count of antennas and for antennas of unequal
        lengths; then nothing was taken in, and it is counted.
        """
        try:
            streams = _as_streams(samples, self.spec.antennas)
        except InputError:
            self._counts["inputs_refused"] += 1
            raise
        self._arrived_s = arrived_s
        slots: list[Slot] = []
        total = len(streams[0])
        for start in range(0, total, self.spec.slot_samples):  # so that the buffer stays small
            count = min(self.spec.slot_samples, total - start)
            self._counts["samples_in"] += count
            self._buffer.append(streams, start, count)
            slots += self._completed()
        return slots

    def mark(self, sample: int) -> None:
        """Says that a slot starts at this absolute index; before that sample is pushed (later it is counted as late).

        A slot that has not ended when the next starts is cut: counted, not given out. Raises ConfigurationError where
        sync is by pilots.
        """
        if self._search is not None:
            raise ConfigurationError("slots", "mark", "sync by pilots", "sync by tag")
        self._marked = True
        if sample < self._buffer.end:
            self._counts["marks_late"] += 1
        elif sample not in self._marks[-1:]:
            bisect.insort(self._marks, sample)

    def retune(self, rate_hz: float | None = None, time: StreamTime | None = None) -> list[Slot]:
        """Says that samples are missing before the next one, or that the radio changed; None leaves a value as it was.

        The slot that is open is cut and counted; sync by pilots begins anew. time: of the next sample; None goes on
        from the time before. Returns slots that were complete but not yet searched for. Raises InputError for a rate
        that is not the numerology's, and then nothing has changed.
        """
        new_rate = self._rate_hz if rate_hz is None else self._checked_rate(rate_hz)
        slots = self.finish()
        if time is not None:
            self._segment_time = time
        self._rate_hz = new_rate
        return slots

    def finish(self) -> list[Slot]:
        """Ends the stream: the complete slots not yet searched for; a slot that is open is cut and counted.

        A further push goes on at the next sample, and sync by pilots begins anew.
        """
        slots = self._last_search()
        position = self._buffer.end
        cut = [mark for mark in self._marks if mark < position]
        followed = self._tracker is not None and self._next < position - 1  # one sample is the tracker's step
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
        """Whether sync is by pilots and not found."""
        return self._search is not None and self._tracker is None

    def status(self) -> dict[str, object]:
        """What became of the samples, in plain types.

        samples_in = those that slots cover + samples_skipped + samples_pending. slots: given out; slots_missed: of
        those, the ones without their pilots; slots_cut: begun and not ended; slots_zero_pilots: not given out;
        slots_silent_antenna: of `slots`, those with an antenna whose pilots, or a symbol of them, are all zero.
        syncs: times that the start was found; resyncs: all but the first; lost_sync: times that it was lost;
        searches_failed: stretches of a slot in which it was not found. sync_metric, sync_threshold: of the last slot
        or search, 0 to 1, None with tags. cfo_hz: carrier frequency offset of the samples, None when not known;
        cfo_corrected: whether it is taken out of the grids.
        fault: what is wrong now, one sentence, or "".
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
                slots += self._followed_slot(self._tracker)
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
                samples, bad = _finite(self._buffer.view(start, n))
                self._offset.take(samples)
                grid = self._grid_of(samples)
                slots += self._given_out(start, grid, self._received(grid), bad, None)
            self._marks.pop(0)
        self._skip_to(min([self._buffer.end, *self._marks[:1]]))
        return slots

    def _followed_slot(self, tracker: PilotTracker) -> list[Slot]:
        start = self._next
        samples, bad = _finite(self._buffer.view(start, self.spec.slot_samples))
        if self._offset.hz is None and self._correct_cfo:
            self._offset.take(samples)
        grid = self._grid_of(samples)
        received = self._received(grid)
        hit = tracker.hit(received)
        self._metric = tracker.metric
        self._misses = 0 if hit else self._misses + 1
        slots = self._given_out(start, grid, received, bad, tracker.metric)
        self._next += self.spec.slot_samples
        if hit:
            self._offset.take(samples)
            self._next += tracker.step()
        else:
            self._counts["slots_missed"] += len(slots)
        if self._misses >= MISSES_ALLOWED:
            self._tracker, self._misses = None, 0
            self._offset = CarrierOffset(self.spec)  # the next one may be another transmitter's
            self._counts["lost_sync"] += 1
        self._buffer.drop_to(self._next)
        return slots

    def _try_search(self, search: PilotSearch, n_samples: int) -> None:
        samples, _ = _finite(self._buffer.view(self._next, n_samples))
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
        """With too few samples for a whole search, at the end of a stream: the whole slots that are there."""
        n = self._buffer.end - self._next
        if self._search is None or self._tracker is not None or n < self.spec.slot_samples:
            return []
        self._try_search(self._search, n - self.spec.slot_samples + self._search.span_samples)
        return self._completed() if self._tracker is not None else []

    def _grid_of(self, samples: Samples) -> NDArray[np.complex64]:
        return self._demodulator.demodulate(self._offset.corrected(samples) if self._correct_cfo else samples)

    def _received(self, grid: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """What was received on the pilots, [A, P, Fp]."""
        return grid[:, self.spec.pilot_symbols, self.spec.pilot_offset :: self.spec.pilot_step]

    def _given_out(
        self, start: int, grid: NDArray[np.complex64], received: NDArray[np.complex64], bad: int, metric: float | None
    ) -> list[Slot]:
        n = self.spec.slot_samples
        self._counts["n_nonfinite"] += bad
        there: NDArray[np.bool_] = np.any(received, axis=2)  # [A, P]
        symbols, antennas = np.flatnonzero(~np.any(there, axis=0)), np.flatnonzero(~np.all(there, axis=1))
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
        """Samples before this absolute index belong to no slot but those given out."""
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
        if not abs(rate_hz - needed) <= RATE_TOLERANCE * needed:  # so that NaN is refused too
            raise InputError("slots", "rate_hz", f"{rate_hz:g}", f"{needed:g}, the numerology's, or 0 when not told")
        return float(rate_hz)


class _Buffer:
    """The samples that are still needed, complex64 [A, ...], by their absolute index."""

    def __init__(self, antennas: int, capacity: int, first: int) -> None:
        self._data: Samples = np.empty((antennas, capacity), np.complex64)
        self._first = first  # absolute index of the first sample in the array
        self._begin = 0  # of what is needed, in the array
        self._filled = 0

    @property
    def end(self) -> int:
        """Absolute index of the next sample to come."""
        return self._first + self._filled

    def append(self, streams: Sequence[Samples], first: int, n: int) -> None:
        if self._filled + n > self._data.shape[1]:
            kept = self._filled - self._begin
            self._data[:, :kept] = self._data[:, self._begin : self._filled].copy()
            self._first += self._begin
            self._begin, self._filled = 0, kept
        copy_streams(streams, first, n, self._data, self._filled)
        self._filled += n

    def drop_to(self, sample: int) -> None:
        """Samples before this absolute index are not needed any more; it may lie ahead of what is there."""
        self._begin = min(max(sample - self._first, self._begin), self._filled)

    def view(self, start: int, n: int) -> Samples:
        return np.ascontiguousarray(self._data[:, start - self._first : start - self._first + n])


def _finite(samples: Samples) -> tuple[Samples, int]:
    """The samples with zeros for NaN, infinity and 1e15 and more, and how many those were."""
    parts = samples.view(np.float32)
    if parts.size == 0 or (parts.min() > -SAMPLE_LIMIT and parts.max() < SAMPLE_LIMIT):  # false for NaN
        return samples, 0
    good = np.maximum(np.abs(samples.real), np.abs(samples.imag)) < SAMPLE_LIMIT
    return np.where(good, samples, np.complex64(0)), int(good.size - np.count_nonzero(good))


def _as_streams(samples: NDArray[Any] | Sequence[NDArray[Any]], antennas: int) -> list[Samples]:
    streams = list(samples)
    if len(streams) != antennas:
        raise InputError("slots", "antennas", len(streams), f"{antennas}, as the numerology has")
    for index, stream in enumerate(streams):
        if not isinstance(stream, np.ndarray) or stream.dtype not in (np.complex64, np.complex128) or stream.ndim != 1:
            found = f"{getattr(stream, 'dtype', type(stream).__name__)} {getattr(stream, 'shape', '')}".strip()
            raise InputError("slots", f"samples[{index}]", found, "a numpy array of complex64, one dimension")
        if stream.size != streams[0].size:
            expected = f"{streams[0].size}, as many as antenna 0 has"
            raise InputError("slots", f"length of samples[{index}]", stream.size, expected)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is taken as zero
        return [np.ascontiguousarray(stream, np.complex64) for stream in streams]
