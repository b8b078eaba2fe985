# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of several antennas' streams through a SlotStream; no GNU Radio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import SlotStream
from wavesfm_core.errors import InputError
from wavesfm_core.types import Samples, Slot, StreamTime

from .stream_clock import StreamClock


class SlotSession:
    """Samples, marks and what tags say, in order and on one thread. All sample indices are absolute.

    on_slots(list of Slot); on_status(kind, **values): "warning" with `text`, "sync" with `found`, `metric` and
    `before_sample` when the start was found by pilots or lost, somewhere before that sample.
    fault: why no more slots are cut, or "". Raises WavesfmError as SlotStream does.
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
    ) -> None:
        self._stream = SlotStream(spec, sync, rate_hz, start_sample=start_sample, correct_cfo=correct_cfo)
        self._clocks = {0: StreamClock(rate_hz or spec.rate_hz)}  # of antennas that told their time
        self._times_told = False  # since they were compared
        self._wrong: dict[tuple[str, int], str] = {}  # field and antenna: what is wrong; meanwhile no slot is given out
        self._next_sample = start_sample
        self._on_slots, self._on_status = on_slots, on_status
        self._said: set[str] = set()
        self._syncs = self._lost = 0
        self._synced = False
        self._skipped = self._slots_refused = self._misaligned = self._unmatched = self._nonfinite = 0
        self.fault = ""

    def push(self, samples: Sequence[Samples], arrived_s: float | None = None) -> None:
        """Take in as many samples of each antenna; after a fault skip them."""
        if self.fault:
            self._skip_to(self._next_sample + len(samples[0]))
            return
        if len(samples[0]):
            if self._times_told:
                self._compare_times()
            slots = self._stream.push(samples, arrived_s)
            self._next_sample += len(samples[0])
            self._give(slots)

    def mark(self) -> None:
        """A slot starts at the next sample."""
        if not self.fault:
            self._stream.mark(self._next_sample)

    def tell_rate(self, antenna: int, rate_hz: float) -> None:
        """The rate of an antenna from the next sample on: slots at another than the numerology's are not given out."""
        wrong = ""
        try:
            SlotStream(self._stream.spec, rate_hz=rate_hz)
        except InputError as error:
            wrong = f"antenna {antenna}: rate_hz: found {error.found}, expected {error.expected}"
        if antenna == 0 and not wrong and rate_hz != self._clocks[0].rate_hz:
            self._give(self._stream.retune(rate_hz))
            for clock in self._clocks.values():
                clock.set_rate(rate_hz or self._stream.spec.rate_hz, self._next_sample)
        self._set_wrong("rate_hz", antenna, wrong)

    def tell_time(self, antenna: int, time: StreamTime) -> None:
        """The time of an antenna's next sample; antenna 0's is the one that counts, and a gap cuts the open slot.

        While another antenna's is not antenna 0's, no slots are given out: its samples are of another moment.
        """
        clock = self._clocks.setdefault(antenna, StreamClock(self._clocks[0].rate_hz))
        if clock.follows(time, self._next_sample):
            return
        if antenna == 0:
            self._give(self._stream.retune(time=time))
        clock.set_time(time, self._next_sample)
        self._times_told = True  # they are compared when all antennas have told theirs of this sample

    def finish(self, ahead: Sequence[int] = ()) -> None:
        """Cut no more; ahead: how many samples of each antenna are known to be left where another's ended."""
        if not self.fault:
            self._give(self._stream.finish())
        self._unmatched = max(ahead, default=0)
        if self._unmatched:
            longer = ", ".join(f"antenna {antenna} by {more}" for antenna, more in enumerate(ahead) if more)
            text = f"the streams are of unequal length: {longer} samples or more; what has no match is not used"
            self._on_status("warning", text=text)

    def fail(self, error: BaseException, next_sample: int) -> None:
        """Enter the faulted state: what comes is counted as skipped, also samples before `next_sample`."""
        self.fault = self.fault or f"{type(error).__name__}: {error}"
        self._skip_to(next_sample)

    def status(self) -> dict[str, Any]:
        """The accounts: those of `SlotStream.status`, and

        slots_refused: of `slots`, those while a rate or a time was wrong, not given out; misaligned: how often an
        antenna's time began to differ from antenna 0's; samples_unmatched: at least so many had the longest stream
        more than the shortest; samples_skipped, samples_in: with those after a fault; fault: what is wrong now, or "".
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
        }

    def _compare_times(self) -> None:
        self._times_told = False
        first, sample = self._clocks[0], self._next_sample
        for antenna, clock in self._clocks.items():
            if antenna and first.known:
                wrong = f"antenna {antenna}: the time of sample {sample} is not antenna 0's: streams not aligned"
                apart = not first.follows(clock.time_of(sample), sample)
                self._misaligned += apart and ("time", antenna) not in self._wrong
                self._set_wrong("time", antenna, wrong if apart else "")

    def _set_wrong(self, field: str, antenna: int, wrong: str) -> None:
        after = {place: text for place, text in self._wrong.items() if place != (field, antenna)}
        if wrong:
            after[field, antenna] = wrong
        if self._wrong and not after:
            self._give(self._stream.retune())  # the open slot began while something was wrong
        if wrong and (field, antenna) not in self._wrong:
            self._on_status("warning", text=f"{wrong}; until that ends no slots are given out")
        self._wrong = after

    def _give(self, slots: list[Slot]) -> None:
        if self._wrong:
            self._slots_refused += len(slots)
        elif slots:
            self._on_slots(slots)
        status = self._stream.status()
        if status["n_nonfinite"]:
            self._warn_once("nonfinite", "NaN or infinite samples are in the streams and were taken as zero")
        if status["slots_zero_pilots"]:
            self._warn_once("zero", "slots whose pilots are all zero are in the streams and were not given out")
        elif status["slots_silent_antenna"]:
            self._warn_once("silent", status["fault"])
        elif status["fault"] and not status["slots"]:
            self._warn_once("never", status["fault"])
        elif status["fault"].startswith("slots: carrier"):
            self._warn_once("carrier", f"{status['fault']}; until then the estimates are wrong")
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

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._on_status("warning", text=text)
