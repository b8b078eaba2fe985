# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings and pipes as a source, as fast as they are read or in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ...errors import InputError
from ...recordings.iqfile import open_recording
from ...recordings.iqstream import IQStream
from ...recordings.recording import Recording
from ..block import SampleBlock, block_samples


class RecordedSource:
    """The samples of a recording or of a pipe.

    Parameters
    ----------
    recording : Recording or IQStream
        An open one of known sample rate; closed by `close`.
    realtime : bool
        Deliver samples at their rate, as a radio does: what is not taken in time is lost.
    loop : bool
        Begin again at the end; only for a recording.

    Raises
    ------
    InputError
        The sample rate is unknown.
    """

    def __init__(self, recording: Recording | IQStream, realtime: bool = False, loop: bool = False) -> None:
        if not recording.rate_hz > 0:
            raise InputError(recording.path, "sample rate", "none", "--rate: the band is searched at a known rate")
        self._recording = recording
        self._loop = loop and isinstance(recording, Recording)
        self.is_live = realtime
        self.description = f"{recording.path.name}{' in real time' if realtime else ''}"
        self._stopped = threading.Event()

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`."""
        began_s, delivered = time.monotonic(), 0
        for block in self._all_blocks():
            delivered += block.n_samples
            if self.is_live:  # a block is there when its last sample has been received
                due_s = began_s + delivered / block.rate_hz
                self._stopped.wait(max(0.0, due_s - time.monotonic()))
            if self._stopped.is_set():
                return
            yield block

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source.close`."""
        self._recording.close()

    def _all_blocks(self) -> Iterator[SampleBlock]:
        recording = self._recording
        size = block_samples(recording.rate_hz)
        stops = [*(segment.start_sample for segment in recording.segments[1:]), recording.stop_sample]
        while True:
            for segment, stop in zip(recording.segments, stops, strict=True):
                time_of_next = segment.time
                for samples in recording.blocks(size, segment.start_sample, stop):
                    yield SampleBlock.of(samples, recording.rate_hz, segment.centre_hz, time_of_next)
                    time_of_next = None
            if not self._loop:
                return


def open_file(
    path: str,
    rate_hz: float | None = None,
    sample_format: str | None = None,
    centre_hz: float | None = None,
    realtime: bool = False,
    loop: bool = False,
) -> RecordedSource:
    """A recording as a source; arguments as of `open_recording` and `RecordedSource`."""
    return RecordedSource(open_recording(path, rate_hz, sample_format, centre_hz), realtime, loop)


def open_stdin(
    rate_hz: float | None = None, sample_format: str | None = None, centre_hz: float | None = None
) -> RecordedSource:
    """Standard input as a source; arguments as of `IQStream`."""
    return RecordedSource(IQStream("-", rate_hz, sample_format, centre_hz))
