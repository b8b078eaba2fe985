# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDM slots with absolute positions and times from sample streams of several antennas; no threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from .._kernels import OFDMDemodulator
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError, InputError
from ..preprocess.slot_layout import slot_layout
from ..types import Samples, Slot, StreamTime
from .synchronisation import PilotSearch

SYNCS = ("tag", "pilots")
RATE_TOLERANCE = 1e-3
"""Allowed relative difference of the sample rate from the numerology's."""


def make_demodulator(spec: OFDMSpec) -> OFDMDemodulator:
    """Kernel from the samples of a slot, complex64 [A, slot_samples], to its grid, complex64 [A, S, F]."""
    return OFDMDemodulator(spec.fft_size, spec.prefix_samples, spec.bins.tolist(), spec.antennas)


def as_slot(native: _kernels.Slot, spec: OFDMSpec) -> Slot:
    """A slot of the C++ library as a data class; the grid's memory is shared."""
    return Slot(
        grid=native.grid(int(np.prod(spec.grid_shape))).reshape(spec.grid_shape),
        start_sample=native.start_sample,
        n_samples=native.n_samples,
        rate_hz=native.rate_hz,
        time=None if native.time is None else StreamTime(*native.time),
        n_nonfinite=native.n_nonfinite,
        sync_metric=native.sync_metric,
        arrived_s=native.arrived_s,
    )


def as_native(slot: Slot) -> _kernels.Slot:
    """A slot for the C++ library; the grid's memory is shared."""
    return _kernels.Slot(
        np.ascontiguousarray(slot.grid, np.complex64),
        slot.start_sample,
        slot.n_samples,
        slot.rate_hz,
        slot.time,
        slot.n_nonfinite,
        slot.sync_metric,
        slot.arrived_s,
    )


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
        (PilotSearch); slots then follow without gaps and their start is tracked. A slot without its
        pilots is emitted with its low metric; after 8 in a row the search begins again.
    rate_hz : float
        Sample rate, within RATE_TOLERANCE of the numerology's; 0 for unknown.
    time : StreamTime, optional
        Time of the sample at `start_sample`.
    start_sample : int
        Absolute index of the first sample that will be pushed.
    correct_cfo : bool
        Correct each slot by the carrier frequency offset measured so far (the first slot by its own), keeping the
        phase of its first sample. All slots must be of one transmitter. Without correction an offset above a hundredth
        of the subcarrier spacing (at 30 kHz the Doppler shift of 26 m/s at 3.5 GHz) is a fault: the estimates are
        wrong then.

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
        self._by_pilots = sync == "pilots"
        if self._by_pilots:
            PilotSearch(spec)  # refuses too few pilots by name
        self._native = _kernels.SlotStream(
            slot_layout(spec), self._by_pilots, self._rate_hz, time, start_sample, correct_cfo
        )
        self._correct_cfo = correct_cfo
        self._refused = 0

    def set_allocator(self, allocator: _kernels.GridAllocator) -> None:
        """Set where the memory of the grids comes from; by default the heap."""
        self._native.set_allocator(allocator)

    def push(self, samples: NDArray[Any] | Sequence[NDArray[Any]], arrived_s: float | None = None) -> list[Slot]:
        """Append samples and return the slots that they complete.

        Parameters
        ----------
        samples : ndarray or sequence of ndarray
            complex64 [A, n], or A arrays complex64 [n]; complex128 is rounded. NaN, infinity and magnitudes of
            1e15 and more are taken as zero and counted in the slot.
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
            self._refused += 1
            raise
        return self._slots(self.cut(streams, [], arrived_s))

    def cut(
        self, streams: Sequence[Samples], marks: Sequence[int], arrived_s: float | None = None
    ) -> list[_kernels.Slot]:
        """`push` without checks and conversions, for the live path.

        Parameters
        ----------
        streams : sequence of ndarray
            A contiguous arrays complex64 [n].
        marks : sequence of int
            Starts of slots, see `mark`.
        arrived_s : float, optional
            time.monotonic() of the arrival.
        """
        return self._native.push(streams, marks, arrived_s)

    def mark(self, sample: int) -> None:
        """Mark the start of a slot at an absolute sample index that has not been pushed yet.

        A mark of a sample that was pushed is counted as late. A slot that has not ended at the next mark is dropped and
        counted (`slots_cut`). Raises ConfigurationError where sync is by pilots.
        """
        if self._by_pilots:
            raise ConfigurationError("slots", "mark", "sync by pilots", "sync by tag")
        self._native.mark(sample)

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
        return self._slots(self.cut_at(rate_hz, time))

    def cut_at(self, rate_hz: float | None = None, time: StreamTime | None = None) -> list[_kernels.Slot]:
        """`retune` without conversions, for the live path."""
        rate_hz = None if rate_hz is None else self._checked_rate(rate_hz)
        return self._native.retune(rate_hz, time)

    def finish(self) -> list[Slot]:
        """End the segment and return its complete slots that were not searched yet.

        The open slot is dropped and counted. A further push continues at the next sample with a new synchronisation.
        """
        return self._slots(self.cut_last())

    def cut_last(self) -> list[_kernels.Slot]:
        """`finish` without conversions, for the live path."""
        return self._native.finish()

    @property
    def searching(self) -> bool:
        """Whether sync is by pilots and the start is not known."""
        return bool(self._native.status()["searching"])

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
        status = self._native.status()
        return {
            "sync": "pilots" if self._by_pilots else "tag",
            **status,
            "cfo_corrected": self._correct_cfo,
            "inputs_refused": self._refused,
            "resyncs": max(0, status["syncs"] - 1),
        }

    def _slots(self, slots: list[_kernels.Slot]) -> list[Slot]:
        return [as_slot(slot, self.spec) for slot in slots]

    def _checked_rate(self, rate_hz: float) -> float:
        needed = self.spec.rate_hz
        if rate_hz == 0.0:
            return needed
        if not abs(rate_hz - needed) <= RATE_TOLERANCE * needed:  # refuses NaN too
            raise InputError("slots", "rate_hz", f"{rate_hz:g}", f"{needed:g}, the numerology's, or 0 for unknown")
        return float(rate_hz)


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
