# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of several antennas' streams through a SlotStream. No GNU Radio."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from wavesfm_core._kernels import GridAllocator, Slot
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import SlotStream
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.sample_clock import SampleClock
from wavesfm_core.types import Samples, StreamTime

RATE_TOLERANCE = 1e-6  # relative difference up to which two sample rates are the same


class SlotSession:
    """Samples, marks and tags of several streams, in order on one thread, cut into slots.

    All sample indices are absolute.

    Parameters
    ----------
    spec : OFDMSpec
        The numerology.
    sync : {"tag", "pilots"}
        See `SlotStream`.
    rate_hz : float
        Sample rate in Hz, 0 when unknown.
    start_sample : int
        Index of the first sample.
    on_slots : callable
        Called with a list of slots of the C++ library.
    on_status : callable
        Called with (kind, **values): "warning" with `text`; "sync" with `found`, `metric` and `before_sample` when the
        start was found by pilots, or lost, somewhere before that sample.
    correct_cfo : bool
        See `SlotStream`.
    allocator : GridAllocator, optional
        Where the memory of the grids comes from. Default: the heap.

    Raises
    ------
    WavesfmError
        As `SlotStream` does.
    """

    def __init__(
        self,
        spec: OFDMSpec,
        sync: str,
        rate_hz: float,
        start_sample: int,
        on_slots: Callable[[list[Slot]], object],
        on_status: Callable[..., object],
        correct_cfo: bool = False,
        allocator: GridAllocator | None = None,
    ) -> None:
        self._stream = SlotStream(spec, sync, rate_hz, start_sample=start_sample, correct_cfo=correct_cfo)
        if allocator is not None:
            self._stream.set_allocator(allocator)
        self._clock = SampleClock(rate_hz or spec.rate_hz)  # antenna 0's, tracked: tells gaps
        self._tagged = {0: SampleClock(rate_hz or spec.rate_hz)}  # each antenna's last time tag: tells alignment
        self._compare_due = False
        self._wrong: dict[tuple[str, int], str] = {}  # by field and antenna; meanwhile no slots are passed on
        self._next_sample = start_sample
        self._on_slots, self._on_status = on_slots, on_status
        self._warned: set[str] = set()
        self._syncs = self._lost = 0
        self._synced = False
        self._skipped = self._slots_refused = self._misaligned = self._unmatched = 0
        self._gaps = self._samples_lost = 0
        self.fault = ""
        """Why slots are no longer cut, or ""."""

    def push(self, samples: Sequence[Samples], arrived_s: float | None = None, marks: Sequence[int] = ()) -> None:
        """Take in the same number of samples of each antenna; after a fault skip them.

        marks: absolute indices of samples at which slots start, none of an earlier call.
        """
        if self.fault:
            self._skip_to(self._next_sample + len(samples[0]))
            return
        if len(samples[0]):
            if self._compare_due:
                self._compare_times()
            slots = self._stream.cut(samples, marks, arrived_s)
            self._next_sample += len(samples[0])
            self._pass_on(slots)

    def tell_rate(self, antenna: int, rate_hz: float) -> None:
        """Set an antenna's rate from the next sample on; at another than the numerology's no slots are passed on."""
        wrong = ""
        try:
            SlotStream(self._stream.spec, rate_hz=rate_hz)
        except InputError as error:
            wrong = f"antenna {antenna}: rate_hz: found {error.found}, expected {error.expected}"
        if antenna == 0 and not wrong and not math.isclose(rate_hz, self._clock.rate_hz, rel_tol=RATE_TOLERANCE):
            self._pass_on(self._stream.cut_at(rate_hz))
            for clock in (self._clock, *self._tagged.values()):
                clock.set_rate(rate_hz or self._stream.spec.rate_hz, self._next_sample)
        self._set_wrong("rate_hz", antenna, wrong)

    def tell_time(self, antenna: int, time: StreamTime) -> None:
        """Set the time of an antenna's next sample; a gap in antenna 0's cuts the open slot.

        While another antenna's time differs from antenna 0's, its samples are of another moment and no slots are passed
        on.
        """
        if antenna == 0:
            jump_s = self._clock.jump_s(time, self._next_sample)
            if jump_s != 0:
                self._pass_on(self._stream.cut_at(time=time))
                self._clock.set_time(time, self._next_sample)
            if jump_s:
                self._gaps += 1
                self._samples_lost += max(0, round(jump_s * self._clock.rate_hz))
        self._tagged.setdefault(antenna, SampleClock(self._clock.rate_hz)).set_time(time, self._next_sample)
        self._compare_due = True  # once all antennas have had their tags of this sample

    def finish(self, ahead: Sequence[int] = ()) -> None:
        """End the stream; ahead: samples of each antenna that are left where another antenna's stream ended."""
        if not self.fault:
            self._pass_on(self._stream.cut_last())
        self._unmatched = max(ahead, default=0)
        if self._unmatched:
            longer = ", ".join(f"antenna {antenna} by {more}" for antenna, more in enumerate(ahead) if more)
            text = f"the streams are of unequal length: {longer} samples or more; what has no match is not used"
            self._on_status("warning", text=text)

    def fail(self, error: BaseException, next_sample: int) -> None:
        """Stop cutting after an exception: samples are counted as skipped, also those before `next_sample`."""
        self.fault = self.fault or f"{type(error).__name__}: {error}"
        self._skip_to(next_sample)

    def status(self) -> dict[str, Any]:
        """Return the accounts: those of `SlotStream.status`, and these.

        slots_refused : of `slots`, those not passed on because a rate or a time was wrong. misaligned : how often an
        antenna's time began to differ from antenna 0's. samples_unmatched : samples that the longest stream had more
        than the shortest, at least. gaps, samples_lost : of antenna 0's time tags. samples_skipped, samples_in : with
        those after a fault. fault : what is wrong now, or "".
        """
        status = self._stream.status()
        status["samples_in"] += self._skipped
        status["samples_skipped"] += self._skipped
        status["fault"] = self.fault or "; ".join(self._wrong.values()) or status["fault"]
        return {
            **status,
            "slots_refused": self._slots_refused,
            "misaligned": self._misaligned,
            "samples_unmatched": self._unmatched,
            "gaps": self._gaps,
            "samples_lost": self._samples_lost,
        }

    def _compare_times(self) -> None:
        self._compare_due = False
        first, sample = self._tagged[0], self._next_sample
        reference = first.time_of(sample)
        for antenna, clock in self._tagged.items():
            time = clock.time_of(sample)
            if antenna and reference is not None and time is not None:
                wrong = f"antenna {antenna}: the time of sample {sample} is not antenna 0's: streams not aligned"
                apart = abs(time.seconds_after(reference)) > 1 / first.rate_hz
                self._misaligned += apart and ("time", antenna) not in self._wrong
                self._set_wrong("time", antenna, wrong if apart else "")

    def _set_wrong(self, field: str, antenna: int, wrong: str) -> None:
        after = {place: text for place, text in self._wrong.items() if place != (field, antenna)}
        if wrong:
            after[field, antenna] = wrong
        if self._wrong and not after:
            self._pass_on(self._stream.cut_at())  # the open slot began while something was wrong
        if wrong and (field, antenna) not in self._wrong:
            self._on_status("warning", text=f"{wrong}; until that ends no slots are passed on")
        self._wrong = after

    def _pass_on(self, slots: list[Slot]) -> None:
        if self._wrong:
            self._slots_refused += len(slots)
        elif slots:
            self._on_slots(slots)
        status = self._stream.status()
        if status["n_nonfinite"]:
            self._warn("nonfinite", "NaN or infinite samples are in the streams and were taken as zero")
        if status["slots_zero_pilots"]:
            self._warn("zero", "slots whose pilots are all zero are in the streams and were dropped")
        elif status["slots_silent_antenna"]:
            self._warn("silent", status["fault"])
        elif status["fault"] and not status["slots"]:
            self._warn("never", status["fault"])
        elif status["fault"].startswith("slots: carrier"):
            self._warn("carrier", f"{status['fault']}; until then the estimates are wrong")
        found, lost = status["syncs"] - self._syncs, status["lost_sync"] - self._lost
        self._syncs, self._lost = status["syncs"], status["lost_sync"]
        while found or lost:  # in turns, but after a gap it is found again without having been lost
            self._synced = found > 0 and (not self._synced or not lost)
            found, lost = found - self._synced, lost - (not self._synced)
            values = {"before_sample": self._next_sample, "metric": status["sync_metric"]}
            self._on_status("sync", found=self._synced, **values)

    def _skip_to(self, sample: int) -> None:
        self._skipped += sample - self._next_sample
        self._next_sample = sample

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._on_status("warning", text=text)
