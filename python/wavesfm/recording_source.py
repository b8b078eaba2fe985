# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays a recording of any format that `wavesfm_core.recordings.iqfile` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.recordings.iqfile import Segment, open_recording

from .messages import time_to_pmt
from .stream_end import chunk_samples

END_OF_STREAM = -1  # gr.WORK_DONE is an enum, with which a Python block hangs


class recording_source(gr.sync_block):  # type: ignore[misc]
    """A recording as a complex64 stream with full scale 1, as fast as it is asked for, with tags from its metadata.

    filename: SigMF (.sigmf-meta, .sigmf-data or the name without either; complex, one channel, any number of captures),
    or raw .cu8, .cs8, .cs16, .cf32. sample_format: one of the latter where the name does not tell, "" otherwise.
    sample_rate, center_freq: in Hz, go before what the file says; 0: as it says.
    repeat: begin again at the end; otherwise the stream ends there. A flowgraph that is started again after the end
    plays it again, one that was stopped before goes on.

    Tags, at sample 0, at the first sample of each capture, and after each repetition: rx_rate (double), rx_freq
    (double) and rx_time (uint64, double), each only where it is known; there is no tag that says "unknown from here".
    Raises InputError when the recording or a parameter is wrong. A fault while playing is logged and ends the stream.
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
        """Sample rate, 0.0 when unknown."""
        return self._recording.rate_hz

    @property
    def centre_hz(self) -> float | None:
        """Of the first capture, None when unknown."""
        return self._recording.centre_hz

    @property
    def n_samples(self) -> int:
        """Of the whole recording."""
        return self._recording.n_samples

    def start(self) -> bool:
        if self._next_sample == self.n_samples:
            self._rewind()
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

    def _rewind(self) -> None:
        self._next_sample = 0
        self._upcoming = list(self._recording.segments)

    def _tag(self, offset: int, segment: Segment) -> None:
        if self.rate_hz > 0:
            self.add_item_tag(0, offset, pmt.intern("rx_rate"), pmt.from_double(self.rate_hz))
        if segment.centre_hz is not None:
            self.add_item_tag(0, offset, pmt.intern("rx_freq"), pmt.from_double(float(segment.centre_hz)))
        if segment.time is not None:
            self.add_item_tag(0, offset, pmt.intern("rx_time"), time_to_pmt(segment.time))
