# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a recording of any format that `wavesfm_core.recordings.iqfile` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.recordings.iqfile import Segment, open_recording

from .keep_alive import KeptAlive
from .messages import time_to_pmt
from .stream_end import END_OF_STREAM, chunk_samples


class recording_source(KeptAlive, gr.sync_block):  # type: ignore[misc]
    """Play a recording as a complex64 stream with full scale 1, as fast as it is asked for, with tags.

    Parameters
    ----------
    filename : str
        Anything that `wavesfm_core.recordings.iqfile.open_recording` opens: SigMF with any number of captures, or raw
        samples.
    sample_format : str
        Format of raw samples where the name does not tell; "" otherwise.
    sample_rate : float
        In Hz, replaces the file's; 0: as the file says.
    center_freq : float
        In Hz, replaces the file's; 0: as the file says.
    repeat : bool
        Begin again at the end; otherwise the stream ends there.

    Raises
    ------
    InputError, ConfigurationError
        If the recording or a parameter is wrong. A fault while playing is logged and ends the stream.

    Notes
    -----
    A flowgraph that is started again after the end plays the recording again, one that was stopped before goes on.

    Tags, at the first sample of each start and repetition and of each capture: rx_rate (double), rx_freq (double) and
    rx_time (uint64, double), each only where it is known. A time before 1970 is not tagged, since a tag cannot hold it.
    """

    def __init__(
        self,
        filename: str,
        sample_format: str = "",
        sample_rate: float = 0.0,
        center_freq: float = 0.0,
        repeat: bool = False,
    ) -> None:
        gr.sync_block.__init__(self, "wavesfm_recording_source", [], [np.complex64])
        if not str(filename):
            raise ConfigurationError("recording source", "filename", "nothing", "a recording")
        self._recording = open_recording(
            filename, float(sample_rate) or None, sample_format or None, float(center_freq) or None
        )
        for note in self._recording.notes:
            self.logger.warn(f"{self._recording.path}: {note}")
        self._repeat = bool(repeat)
        self._next_sample = 0  # of the file
        self._upcoming = list(self._recording.segments)
        # A call of a Python block costs about 0.1 ms, and GNU Radio's own buffer holds 8192 samples. With this multiple
        # it holds two chunks, and work is called when there is room for one; what work makes may still be less.
        self.set_output_multiple(chunk_samples(self.rate_hz))

    @property
    def rate_hz(self) -> float:
        """Sample rate in Hz, 0.0 when unknown."""
        return self._recording.rate_hz

    @property
    def centre_hz(self) -> float | None:
        """Centre frequency of the first capture in Hz, None when unknown."""
        return self._recording.centre_hz

    @property
    def n_samples(self) -> int:
        """Samples of the whole recording."""
        return self._recording.n_samples

    def start(self) -> bool:
        if self._next_sample == self.n_samples:
            self._rewind()
        passed = [s for s in self._recording.segments if s.start_sample < self._next_sample]
        if passed:  # what was tagged before a stop is tagged again
            self._upcoming.insert(0, self._resumed(passed[-1]))
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        try:
            return self._fill(output_items[0])
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self.logger.error(f"{self._recording.path}: playing ends at sample {self._next_sample}: {error}")
            return END_OF_STREAM

    def _fill(self, out: Any) -> int:
        if self._next_sample == self.n_samples:
            if not self._repeat:
                return END_OF_STREAM
            self._rewind()
        first = self._next_sample
        stop = min(first + len(out), self.n_samples)
        (block,) = self._recording.blocks(stop - first, first, stop)
        out[: len(block)] = block
        while self._upcoming and self._upcoming[0].start_sample < stop:
            segment = self._upcoming.pop(0)
            self._tag(self.nitems_written(0) + segment.start_sample - first, segment)
        self._next_sample = stop
        return len(block)

    def _resumed(self, segment: Segment) -> Segment:
        """Return the rest of a capture as a capture."""
        time = segment.time
        if time is not None:
            known = self.rate_hz > 0
            time = time.advanced((self._next_sample - segment.start_sample) / self.rate_hz) if known else None
        return segment._replace(start_sample=self._next_sample, time=time)

    def _rewind(self) -> None:
        self._next_sample = 0
        self._upcoming = list(self._recording.segments)

    def _tag(self, offset: int, segment: Segment) -> None:
        if self.rate_hz > 0:
            self.add_item_tag(0, offset, pmt.intern("rx_rate"), pmt.from_double(self.rate_hz))
        if segment.centre_hz is not None:
            self.add_item_tag(0, offset, pmt.intern("rx_freq"), pmt.from_double(float(segment.centre_hz)))
        if segment.time is not None and segment.time.full_s >= 0:
            self.add_item_tag(0, offset, pmt.intern("rx_time"), time_to_pmt(segment.time))
