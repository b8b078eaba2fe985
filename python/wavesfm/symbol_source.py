# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDM symbols from another thread as a stream of vectors with the tags of GNU Radio's equalisers."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from . import _runtime
from .pdus import complex_to_pmt
from .stream_end import END_OF_STREAM

CHANNEL_TAPS = pmt.intern("ofdm_sync_chan_taps")  # what ofdm_frame_equalizer_vcvc reads; its manual has another name
SLOT_START = pmt.intern("slot_start")
WAIT_S = 0.1  # how long a call of work waits for a slot, so that stopping the flowgraph takes no longer
Vectors = NDArray[np.complex64]


class SymbolSource(gr.sync_block):  # type: ignore[misc]
    """Vectors complex64 [fft_size], one for each symbol: output 0 received symbols, output 1 (optional) the channel.

    Parameters
    ----------
    fft_size : int
        Length of a vector.
    symbols : int
        Symbols of a slot.
    queue_slots : int
        Most slots that wait.

    Notes
    -----
    Each symbol of output 0 carries its channel as the tag `ofdm_sync_chan_taps` (c32vector), so that frames of any
    length may be equalised, and the first of each slot on both outputs the tag `slot_start` (uint64, the slot's first
    sample). A vector is a whole OFDM symbol and not a grid, because GNU Radio makes a buffer hold as many items as fill
    whole pages: 64 grids of 14 x 612, but one symbol of 512 points or more.
    """

    def __init__(self, fft_size: int, symbols: int, queue_slots: int) -> None:
        vector = (np.complex64, fft_size)
        gr.sync_block.__init__(self, "wavesfm_symbols", [], gr.py_io_signature(1, 2, [vector, vector]))
        self._symbols, self._queue_slots = symbols, queue_slots
        self._changed = threading.Condition()  # its lock guards all that follows
        self._queue: deque[tuple[Vectors, Vectors, int]] = deque()
        self.running_flag = _runtime.Flag()
        """Whether the block is connected and runs, for C++."""
        self._ended = False
        self.set_output_multiple(symbols)  # a call has room for a slot or more

    def put(self, received: Vectors, channel: Vectors, start_sample: int) -> None:
        """Queue one slot, complex64 [symbols, fft_size] each, waiting for room; ignored unless the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < self._queue_slots or not self.running)
            if self.running:
                self._queue.append((received, channel, start_sample))
                self._changed.notify_all()

    @property
    def running(self) -> bool:
        """Whether the block is connected and runs."""
        return bool(self.running_flag.value)

    def end(self) -> None:
        """End the stream when the waiting slots are written."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def start(self) -> bool:
        with self._changed:
            self._queue.clear()
            self.running_flag.value, self._ended = True, False
        return True

    def stop(self) -> bool:
        with self._changed:
            self.running_flag.value = False
            self._changed.notify_all()
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        slots = self._take(len(output_items[0]) // self._symbols)
        if not slots:
            return END_OF_STREAM if self._ended and not self._queue else 0
        try:
            for index, slot in enumerate(slots):
                self._write(output_items, index * self._symbols, *slot)
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self.logger.error(f"the stream of symbols ends: {error}")
            return END_OF_STREAM
        return len(slots) * self._symbols

    def _take(self, most: int) -> list[tuple[Vectors, Vectors, int]]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended, WAIT_S)
            slots = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._changed.notify_all()
        return slots

    def _write(self, outputs: list[Any], at: int, received: Vectors, channel: Vectors, start_sample: int) -> None:
        first = self.nitems_written(0) + at
        for output, vectors in zip(outputs, (received, channel)):
            output[at : at + self._symbols] = vectors
        for port in range(len(outputs)):
            self.add_item_tag(port, first, SLOT_START, pmt.from_uint64(start_sample))
        for symbol, taps in enumerate(channel):
            self.add_item_tag(0, first + symbol, CHANNEL_TAPS, complex_to_pmt(taps))
