# SPDX-License-Identifier: GPL-3.0-or-later
"""Readable numpy versions of the slot stream and its synchronisation, the oracle of those in C++."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core._kernels import OFDMDemodulator, waveform_correlation
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.types import Samples, Slot, StreamTime

SAMPLE_LIMIT = 1e15
"""Magnitude of I or Q from which on a sample counts as not finite, as in the kernels."""


class SampleBuffer:
    """Samples that are still needed, complex64 [A, ...], by absolute index."""

    def __init__(self, antennas: int, capacity: int, first: int) -> None:
        self._data: Samples = np.empty((antennas, capacity), np.complex64)
        self._first = first  # absolute index of the first sample in the array
        self._begin = 0  # of the needed samples in the array
        self._filled = 0

    @property
    def end(self) -> int:
        """Absolute index of the next sample."""
        return self._first + self._filled

    def append(self, streams: Sequence[Samples], first: int, n: int) -> None:
        """Append n samples of each stream from index `first` of the streams on."""
        if self._filled + n > self._data.shape[1]:
            kept = self._filled - self._begin
            self._data[:, :kept] = self._data[:, self._begin : self._filled].copy()
            self._first += self._begin
            self._begin, self._filled = 0, kept
        self._data[:, self._filled : self._filled + n] = [stream[first : first + n] for stream in streams]
        self._filled += n

    def drop_to(self, sample: int) -> None:
        """Drop the samples before an absolute index, which may lie ahead of the buffer."""
        self._begin = min(max(sample - self._first, self._begin), self._filled)

    def view(self, start: int, n: int) -> Samples:
        """n samples of each antenna from an absolute index on, complex64 [A, n]."""
        return np.ascontiguousarray(self._data[:, start - self._first : start - self._first + n])


def finite_samples(samples: Samples) -> tuple[Samples, int]:
    """Samples with zeros for NaN, infinity and magnitudes from SAMPLE_LIMIT on, and the number of replaced ones."""
    parts = samples.view(np.float32)
    if parts.size == 0 or (parts.min() > -SAMPLE_LIMIT and parts.max() < SAMPLE_LIMIT):  # false for NaN
        return samples, 0
    good = np.maximum(np.abs(samples.real), np.abs(samples.imag)) < SAMPLE_LIMIT
    return np.where(good, samples, np.complex64(0)), int(good.size - np.count_nonzero(good))


def as_streams(samples: NDArray[Any] | Sequence[NDArray[Any]], antennas: int) -> list[Samples]:
    """Samples of A antennas as a list of complex64 [n]; raises InputError for other types, numbers and lengths."""
    streams = list(samples)
    if len(streams) != antennas:
        raise InputError("slots", "antennas", len(streams), f"{antennas}, as the numerology has")
    for index, stream in enumerate(streams):
        if not isinstance(stream, np.ndarray) or stream.dtype not in (np.complex64, np.complex128) or stream.ndim != 1:
            found = f"{getattr(stream, 'dtype', type(stream).__name__)} {getattr(stream, 'shape', '')}".strip()
            raise InputError("slots", f"samples[{index}]", found, "a numpy array of complex64, one dimension")
        if stream.size != streams[0].size:
            expected = f"{streams[0].size}, as antenna 0 has"
            raise InputError("slots", f"length of samples[{index}]", stream.size, expected)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are taken as zero
        return [np.ascontiguousarray(stream, np.complex64) for stream in streams]


SEARCH_FALSE_ALARM = 1e-12
"""False alarm probability of a search for each sample: once in a week of noise at 1.44 MS/s."""
TRACK_FALSE_ALARM = 1e-3
"""False alarm probability of a tracked slot."""
TERMS_LIMIT = 256
"""Most terms of a sum in `threshold_over_mean`."""
EARLIER = 0.3
"""A path before the start of the slot counts from this share of the strongest path's power on."""
LATER = 0.1
"""The start moves later when all paths up to it are below this share; less than EARLIER, so that it settles."""
PART_OF_USUAL = 0.5
"""A slot has its pilots from this share of the mean metric of earlier slots on."""
STRETCHES = 8
"""Most successive searches whose metrics are averaged where one does not reach the threshold."""
MEMORY = 0.9
"""Memory of the running means from slot to slot, about ten slots."""
OFFSET_MEMORY = 0.99
"""Memory of the running mean of the offset: an oscillator drifts slowly, and a slot has few prefixes."""
OFFSET_SLOTS = 70
"""Slots before an offset is reported as settled: half of the running mean."""
OFFSET_COHERENCE = 0.02
"""Least coherence of prefixes and ends of symbols of a settled offset. At low SNR the coherence is the SNR."""


@lru_cache  # a search needs few different values repeatedly
def threshold_over_mean(terms: int, false_alarm: float) -> float:
    """Value that the mean of exponential variables of mean 1 exceeds with a given probability.

    The share of the power of white noise in one of n dimensions is bounded by such a variable over n - 1, and so is the
    mean of such shares.

    Parameters
    ----------
    terms : int
        Number of variables; more than TERMS_LIMIT count as TERMS_LIMIT, which gives a higher value.
    false_alarm : float
        The probability.
    """
    terms = min(terms, TERMS_LIMIT)
    low, high = 0.0, terms + 100.0 + 40.0 * math.sqrt(terms)
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(terms))
        low, high = (middle, high) if tail > false_alarm else (low, middle)
    return high / terms


def reach_samples(spec: OFDMSpec) -> int:
    """Range around the start in which paths lie: the shortest prefix of a pilot symbol, or the comb's range."""
    prefix = min(spec.prefix_samples[symbol] for symbol in spec.pilot_symbols)
    return max(0, min(prefix, (spec.fft_size // spec.pilot_step - 1) // 2))


class PilotSearch:
    """Search for the start of a slot at any sample.

    The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power that has the
    waveform of the pilot symbol (0 to 1). It does not depend on phases of antennas and symbols or gains of antennas.
    Where successive searches stay below the threshold, the mean of up to STRETCHES of them is compared too.

    Raises
    ------
    ConfigurationError
        Too few antennas, pilot symbols or subcarriers: independent noise would resemble the pilots too often.
    """

    threshold: float
    """Threshold of the last search, from the scatter of its metric: noise that is equal in all antennas, as the signal
    of another transmitter, has a higher one than independent noise. Either exceeds it once in 1e12 samples."""
    span_samples: int
    """Samples from the start of a slot to the end of its last pilot symbol."""

    def __init__(self, spec: OFDMSpec) -> None:
        bins = spec.bins[spec.pilot_subcarriers]
        spectra = np.zeros((len(spec.pilot_symbols), spec.fft_size), np.complex128)
        spectra[:, bins] = spec.pilots
        self._waveforms = np.fft.ifft(spectra).astype(np.complex64)
        self._starts = [int(spec.symbol_starts[symbol]) for symbol in spec.pilot_symbols]
        self._fft_size = spec.fft_size
        self._reach = reach_samples(spec)
        self._terms = spec.antennas * len(self._starts)
        # noise in the band only, as behind a receiver's filter: fewer dimensions than samples
        self._mean_of_noise = 1 / (spec.subcarriers - 1) if spec.subcarriers > 1 else 1.0
        terms = [n * self._terms for n in range(1, STRETCHES + 1)]
        self._lowest = [self._mean_of_noise * threshold_over_mean(n, SEARCH_FALSE_ALARM) for n in terms]
        self.threshold = self._lowest[0]
        if self.threshold >= 1:
            expected = "more antennas, pilot symbols or subcarriers, or sync by tag"
            found = f"{self._terms} pilot symbols of {spec.subcarriers} subcarriers, which noise resembles too often"
            raise ConfigurationError("slots", "sync", found, expected)
        self.span_samples = self._starts[-1] + spec.fft_size
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=STRETCHES)

    def find(self, samples: Samples) -> tuple[int | None, float]:
        """Find the start of a slot.

        The start is the first significant path around the strongest one. Successive searches must cover adjoining
        ranges of equal length, one slot each; another length begins anew.

        Parameters
        ----------
        samples : ndarray
            complex64 [A, n]; the starts 0 to n - span_samples are tried.

        Returns
        -------
        start : int or None
            Index of the start; None where it is not found.
        metric : float
            Metric of the best start.
        """
        metric = self._metric(samples)
        if self._recent and self._recent[-1].size != metric.size:
            self._recent.clear()
        self._recent.append(metric)
        for n in sorted({len(self._recent), 1}, reverse=True):
            mean = np.sum([*self._recent][-n:], axis=0) / n
            peak = int(np.argmax(mean))
            self.threshold = self._lowest[n - 1]
            if mean[peak] >= self.threshold:
                self.threshold = self._threshold(mean, peak, n * self._terms)
            if mean[peak] >= self.threshold:
                self._recent.clear()
                return self._first_path(mean, peak), float(mean[peak])
        return None, float(mean[peak])

    def _threshold(self, metric: NDArray[np.float64], peak: int, terms: int) -> float:
        distance = np.abs(np.arange(metric.size) - peak)
        apart = (
            np.minimum(distance, metric.size - distance) > self._fft_size
        )  # the start of the next slot is one slot away
        rest = metric[apart] if apart.any() else np.zeros(1)
        mean, variance = float(rest.mean()), float(rest.var())
        independent = terms if variance == 0 else min(terms, max(1, int(mean**2 / variance)))
        return max(mean, self._mean_of_noise) * threshold_over_mean(independent, SEARCH_FALSE_ALARM)

    def restart(self) -> None:
        """Forget the earlier searches, as the next one does not adjoin them."""
        self._recent.clear()

    def _metric(self, samples: Samples) -> NDArray[np.float64]:
        starts = samples.shape[1] - self.span_samples + 1
        metric = np.zeros(starts)
        for waveform, begin in zip(self._waveforms, self._starts):
            window = samples[:, begin : begin + starts + self._fft_size - 1]
            metric += waveform_correlation(np.ascontiguousarray(window), waveform)
        return metric / len(self._starts)

    def _first_path(self, metric: NDArray[np.float64], peak: int) -> int:
        above = metric - np.median(metric)
        around = above[max(0, peak - self._reach) : peak + 1]
        return peak - (around.size - 1) + int(np.argmax(around >= EARLIER * around[-1]))


class PilotTracker:
    """Track the start from slot to slot by the delays of the pilots.

    The metric is that of PilotSearch on the pilot subcarriers alone, in a window of the prefix's length around the
    start.
    """

    threshold: float
    """Noise exceeds it in one slot of a thousand. It is at least half of the mean metric so far, so that data of
    another slot, equal in all antennas, are not taken for pilots."""
    metric: float
    """Metric of the last slot."""

    def __init__(self, spec: OFDMSpec) -> None:
        self._reach = reach_samples(spec)
        delays = np.arange(-self._reach, self._reach + 1)
        frequencies = spec.frequencies[spec.pilot_subcarriers]
        turns = np.outer(frequencies, delays) / spec.fft_size
        self._steering = np.exp(2j * np.pi * turns).astype(np.complex64)
        self._conjugates = spec.pilots.conj()
        over = threshold_over_mean(spec.antennas * len(spec.pilot_symbols), TRACK_FALSE_ALARM / delays.size)
        # with few pilots even a perfect channel would not reach it
        self.threshold = self._lowest = min(0.9, over / max(1, len(frequencies) - 1))
        self.metric = self._usual = 0.0
        self._profile: NDArray[np.float64] | None = None

    def hit(self, received: NDArray[np.complex64]) -> bool:
        """True if received pilots [A, P, Fp] contain the transmitted ones; their delays then enter the mean."""
        rows = (received * self._conjugates).reshape(-1, received.shape[-1])
        power = np.square(np.abs(rows), dtype=np.float64).sum(axis=1)
        shares = np.square(np.abs(rows @ self._steering), dtype=np.float64)
        shares /= np.where(power > 0, power, np.inf)[:, None] * rows.shape[1]
        profile = shares.mean(axis=0)
        self.metric = float(profile.max())
        if self.metric < self.threshold:
            return False
        kept = 0.0 if self._profile is None else MEMORY
        self._profile = profile if self._profile is None else kept * self._profile + (1 - kept) * profile
        self._usual = kept * self._usual + (1 - kept) * self.metric
        self.threshold = max(self._lowest, PART_OF_USUAL * self._usual)
        return True

    def step(self) -> int:
        """Samples by which the start of the next slot moves, -1, 0 or 1; the running mean moves with it."""
        if self._profile is None or self._reach == 0:
            return 0
        above = self._profile - np.sort(self._profile)[self._profile.size // 4]
        strongest = above.max()
        if (above[: self._reach] > EARLIER * strongest).any():
            move = -1
        elif (above[: self._reach + 1] < LATER * strongest).all():
            move = 1
        else:
            return 0
        self._profile = np.roll(self._profile, -move)
        return move


class CarrierOffset:
    """Carrier frequency offset from the phase between each prefix and the end of its symbol.

    It is unambiguous within half the subcarrier spacing. Prefixes with echoes count like the others. It is a running
    mean over about a hundred slots: in the paper's numerology its standard deviation is 15 Hz at 0 dB and 90 Hz at
    -10 dB, and ten times as much after the first slot.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        lengths = zip(spec.symbol_starts, spec.prefix_samples)
        self._prefixes = np.concatenate([np.arange(start - n, start) for start, n in lengths])
        self._fft_size = spec.fft_size
        self._spacing_hz = spec.spacing_hz
        self._mean: complex = 0.0
        self._slots = 0

    def take(self, samples: Samples) -> None:
        """Update the running mean with a slot, complex64 [A, slot_samples], unless it is silent."""
        before, after = samples[:, self._prefixes], samples[:, self._prefixes + self._fft_size]
        power = math.sqrt(np.vdot(before, before).real) * math.sqrt(np.vdot(after, after).real)
        if power > 0:
            self._mean = OFFSET_MEMORY * self._mean + (1 - OFFSET_MEMORY) * complex(np.vdot(before, after)) / power
            self._slots += 1

    def corrected(self, samples: Samples) -> Samples:
        """Correct a slot, complex64 [A, n], by the offset; the phase of its first sample is kept."""
        if self.hz is None:
            return samples
        turns = self.hz / (self._spacing_hz * self._fft_size) * np.arange(samples.shape[1])
        return samples * np.exp(-2j * np.pi * turns).astype(np.complex64)

    @property
    def hz(self) -> float | None:
        """Offset of the received carrier in Hz; None before the first slot or without prefixes."""
        return float(np.angle(self._mean)) / (2 * math.pi) * self._spacing_hz if self._mean else None

    @property
    def settled(self) -> bool:
        """Whether enough slots with more than noise have entered the mean."""
        whole = 1 - OFFSET_MEMORY**self._slots  # the mean of a constant 1
        return self._slots >= OFFSET_SLOTS and abs(self._mean) >= OFFSET_COHERENCE * whole


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
