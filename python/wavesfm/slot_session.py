"""One run of several antennas' streams through a SlotStream; no GNU Radio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wavesfm_core.channel.numerology import OFDMSpec
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
    ) -> None:
        self._stream = SlotStream(spec, sync, rate_hz, start_sample=start_sample)
        self._clock = StreamClock(rate_hz or spec.rate_hz)
        self._wrong_rates: dict[int, str] = {}  # antenna: what is wrong
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
            slots = self._stream.push(samples, arrived_s)
            self._next_sample += len(samples[0])
            self._give(slots)

    def mark(self) -> None:
        """A slot starts at the next sample."""
        if not self.fault:
            self._stream.mark(self._next_sample)

    def tell_rate(self, antenna: int, rate_hz: float) -> None:
        """The rate of an antenna from the next sample on: slots at another than the numerology's are not given out."""
        needed = self._stream.spec.rate_hz
        was_right = not self._wrong_rates
        self._wrong_rates.pop(antenna, None)
        try:
            if antenna == 0 and rate_hz != self._clock.rate_hz:
                self._give(self._stream.retune(rate_hz))
                self._clock.set_rate(rate_hz or needed, self._next_sample)
            elif antenna:
                SlotStream(self._stream.spec, rate_hz=rate_hz)
        except InputError as error:
            self._wrong_rates[antenna] = f"antenna {antenna}: rate_hz: found {error.found}, expected {error.expected}"
        if was_right and self._wrong_rates:
            text = "; ".join(self._wrong_rates.values())
            self._on_status("warning", text=f"{text}; until that ends no slots are given out")

    def tell_time(self, antenna: int, time: StreamTime) -> None:
        """The time of an antenna's next sample; antenna 0's is the one that counts, and a gap cuts the open slot."""
        follows = self._clock.follows(time, self._next_sample)
        if antenna == 0 and not follows:
            self._give(self._stream.retune(time=time))
            self._clock.set_time(time, self._next_sample)
        elif antenna and self._clock.known and not follows:
            self._misaligned += 1
            text = f"antenna {antenna}: the time of sample {self._next_sample} is not antenna 0's: streams not aligned"
            self._warn_once(f"misaligned {antenna}", text)

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

        slots_refused: of `slots`, those cut while a rate was wrong and not given out; misaligned: times that an antenna
        told another time than antenna 0; samples_unmatched: at least so many had the longest stream more than the
        shortest; samples_skipped, samples_in: with those after a fault; fault: what is wrong now, or "".
        """
        status = self._stream.status()
        status["samples_in"] += self._skipped
        status["samples_skipped"] += self._skipped
        status["fault"] = self.fault or "; ".join(self._wrong_rates.values()) or status["fault"]
        return {
            **status,
            "slots_refused": self._slots_refused,
            "misaligned": self._misaligned,
            "samples_unmatched": self._unmatched,
        }

    def _give(self, slots: list[Slot]) -> None:
        if self._wrong_rates:
            self._slots_refused += len(slots)
        elif slots:
            self._on_slots(slots)
        status = self._stream.status()
        if status["n_nonfinite"]:
            self._warn_once("nonfinite", "NaN or infinite samples are in the streams and were taken as zero")
        if status["slots_zero_pilots"]:
            self._warn_once("zero", "slots whose pilots are all zero are in the streams and were not given out")
        if status["searches_failed"] and not status["syncs"]:
            self._warn_once("never", status["fault"])
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
