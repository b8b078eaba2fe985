# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts OFDM slots out of the streams of several antennas; their grids leave as PDUs."""

from __future__ import annotations

import time as clock
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core._kernels import Slot
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.worker import check_policy

from . import _runtime
from .keep_alive import KeptAlive
from .messages import STATUS, retune_from_tags
from .monitor import Monitor
from .numerology_file import numerology_of, require_size
from .pdus import GRIDS, grid_format
from .publisher import NativePort
from .slot_session import SlotSession
from .stream_end import END, MessageSide, StreamSide, chunk_samples

IN_QUEUE = 32  # most grids that wait for a slow reader, besides those in the reader's queue


class ofdm_pilot_grid(KeptAlive, gr.hier_block2):  # type: ignore[misc]
    """Find the slots in the complex64 streams of several antennas, remove prefixes, transform, and publish grids.

    Parameters
    ----------
    bundle : str
        Directory of a model bundle for pilot grids, for its numerology; "": none.
    numerology : str
        JSON file with the fields of `OFDMSpec`; read only without a bundle.
    sync : {"tag", "pilots"}
        "tag": a slot starts at each tag `slot_tag` of the first stream, whatever its value. "pilots": the start is
        found by correlation with the known pilots and followed from slot to slot, see `SlotStream`.
    slot_tag : str
        Name of the tag at which a slot starts.
    sample_rate : float
        In Hz, within 0.1 % of the numerology's; 0: as the numerology has.
    antennas : int
        Number of streams, which must be the numerology's; 0: as the numerology has.
    correct_cfo : bool
        Remove the carrier frequency offset of each slot, see `SlotStream`; for radios that share no oscillator with the
        transmitter.
    policy : {"block", "drop_oldest"}
        With a slow reader of the grids: hold the streams back, or drop and count.
    batch_pdus : bool
        Publish the slots that a call of the block completes as one PDU, see `pdus.slots_from_pmt`.

    Raises
    ------
    WavesfmError
        If a parameter is wrong. While running no error ends the flowgraph.

    Notes
    -----
    Tags: rx_rate of any stream; at another rate than the numerology's no grids come. rx_time of the first stream gives
    the grids their time, and a gap in it cuts the open slot; while another stream's differs, no grids come.

    Messages out: `grids`: see `pdus.slot_to_pmt`. `status`: dict with `kind`: "started", "sync" (found or lost),
    "accounts" (once a second), "warning" and "error" (with `text`), "finished". Streams of unequal length end with the
    shortest.
    """

    def __init__(
        self,
        bundle: str = "",
        numerology: str = "",
        sync: str = "tag",
        slot_tag: str = "slot_start",
        sample_rate: float = 0.0,
        antennas: int = 0,
        correct_cfo: bool = False,
        policy: str = "block",
        batch_pdus: bool = False,
    ) -> None:
        self._spec = spec = numerology_of(bundle, numerology)
        require_size("pilot grid", "antennas", antennas, spec.antennas)
        if not slot_tag:
            raise ConfigurationError("pilot grid", "slot_tag", "nothing", "the name of a tag")
        check_policy(policy)
        n = spec.antennas
        gr.hier_block2.__init__(
            self, "wavesfm_ofdm_pilot_grid", gr.io_signature(n, n, gr.sizeof_gr_complex), gr.io_signature(0, 0, 0)
        )
        self._sync, self._rate_hz, self._correct_cfo = sync, float(sample_rate), bool(correct_cfo)
        self._policy, self._batch_pdus, self._run = policy, bool(batch_pdus), 0
        self._format = grid_format(spec)
        self._session = self._make_session(0)
        self._input = _SampleInput(self, n, slot_tag if sync == "tag" else "", chunk_samples(spec.rate_hz))
        self._output = MessageSide(
            "wavesfm_grids", self, self._input, (GRIDS,), lambda: self._policy, limit=IN_QUEUE, port_type=NativePort
        )
        self._monitor = Monitor(self._output, self)  # replaced at each start
        for port in (GRIDS, STATUS):
            self.message_port_register_hier_out(pmt.symbol_to_string(port))
            self.msg_connect(self._output, port, self, port)
        self.msg_connect(self._input, END, self._output, END)
        for antenna in range(n):
            self.connect((self, antenna), (self._input, antenna))
        self.note_references()

    def status(self) -> dict[str, Any]:
        """Return the accounts of this run or, after it, of the last one.

        See `SlotSession.status`; messages_dropped: grids that a slow reader did not get; run: how often the block was
        started.
        """
        return {"run": self._run, **self._session.status(), "messages_dropped": self._output.messages_dropped}

    def silence(self, now_s: float) -> str:
        """Return ""; `SlotSession` itself says why no slots come."""
        return ""

    def batch_s(self) -> float:
        """Return 0.0: no engine runs."""
        return 0.0

    def _make_session(self, start_sample: int) -> SlotSession:
        options = self._publish, self._report, self._correct_cfo, _runtime.PmtGrids()
        return SlotSession(self._spec, self._sync, self._rate_hz, start_sample, *options)

    def _publish(self, slots: list[Slot]) -> None:
        _runtime.publish_slots(self._output.native_outbox(GRIDS), self._format, slots, self._batch_pdus)

    def _report(self, kind: str, **values: Any) -> None:
        self._output.report(kind, **values)

    def _open_session(self, start_sample: int) -> None:
        self._run += 1
        self._session = self._make_session(start_sample)
        self._output.open()
        facts = {"numerology": self._spec.id, "slot_samples": self._spec.slot_samples}
        self._report("started", run=self._run, sync=self._sync, **facts)
        self._monitor = Monitor(self._output, self)
        self._monitor.start()

    def _fail_session(self, error: Exception, next_sample: int) -> None:
        if not self._session.fault:
            self._session.fail(error, next_sample)
            self._report("error", text=f"no more slots are cut: {self._session.fault}")

    def _finish_session(self) -> None:
        self._session.finish(self._input.ahead)
        self._output.drain()
        self._monitor.stop()
        self._report("finished", **self.status())

    def _close_session(self) -> None:
        self._monitor.stop()
        self._output.close()


class _SampleInput(StreamSide, gr.basic_block):  # type: ignore[misc]
    """The streams' side of a pilot grid: hands samples, marks and tags to the session, in order."""

    def __init__(self, owner: ofdm_pilot_grid, antennas: int, slot_tag: str, chunk: int) -> None:
        gr.basic_block.__init__(self, "wavesfm_samples", [np.complex64] * antennas, [])
        self.join(owner, chunk)
        self._slot_tag = slot_tag
        self.ahead = [0] * antennas
        """Samples of each stream beyond those of the shortest in the last call; all 0 when equal streams end."""

    def start(self) -> bool:
        self.ahead = [0] * len(self.ahead)
        return super().start()

    def forecast(self, noutput_items: int, ninputs: int) -> list[int]:
        return [1] * ninputs

    def general_work(self, input_items: list[Any], output_items: list[Any]) -> int:
        count = min(map(len, input_items))
        self.ahead = [len(stream) - count for stream in input_items]
        try:
            self._take([stream[:count] for stream in input_items], clock.monotonic())
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self._owner._fail_session(error, self.nitems_read(0) + count)
        self.consume_each(count)
        return count

    def _take(self, streams: list[Any], arrived_s: float) -> None:
        session, first, count, done = self._owner._session, self.nitems_read(0), len(streams[0]), 0
        marks, has_changes = _runtime.read_tags(self.symbol_name(), len(streams), first, count, self._slot_tag)
        for offset, changes in sorted(self._changes(count).items()) if has_changes else ():
            before = [mark for mark in marks if mark < offset]
            session.push([stream[done : offset - first] for stream in streams], arrived_s, before)
            done, marks = offset - first, marks[len(before) :]
            for antenna, change in changes:
                if "rate_hz" in change:
                    session.tell_rate(antenna, change["rate_hz"])
                if "time" in change:
                    session.tell_time(antenna, change["time"])
        session.push([stream[done:] for stream in streams], arrived_s, marks)

    def _changes(self, count: int) -> dict[int, list[tuple[int, dict[str, Any]]]]:
        """Return the changes by offset: (antenna, change) for each antenna with tags at it."""
        changes: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for antenna in range(len(self.ahead)):
            for offset, change, unread in retune_from_tags(self.get_tags_in_window(antenna, 0, count)):
                for text in unread:
                    self._owner._report("warning", text=f"antenna {antenna}: {text}")
                changes.setdefault(offset, []).append((antenna, change))
        return changes
