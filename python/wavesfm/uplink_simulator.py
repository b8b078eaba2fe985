# SPDX-License-Identifier: GPL-3.0-or-later
"""An OFDM uplink without a radio: slots of QPSK through saved channels, as the streams of several antennas."""

from __future__ import annotations

import time as clock
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core.channel.uplink import UplinkSlot, UplinkSource, load_channels
from wavesfm_core.errors import ConfigurationError

from .keep_alive import KeptAlive
from .numerology_file import numerology_of, require_size
from .pdus import CHANNEL, grid_to_pmt
from .publisher import OutboxPort
from .stream_end import END_OF_STREAM

SENT = pmt.intern("sent")
RATE = pmt.intern("rx_rate")
WAIT_S = 0.1  # longest sleep in a call of work, so that stopping the flowgraph takes no longer


class uplink_simulator(KeptAlive, gr.sync_block):  # type: ignore[misc]
    """Stream complex64 samples of each antenna: slots of pilots and random QPSK through a varying channel, and noise.

    Parameters
    ----------
    channels : str
        File of `save_channels`, walked through back and forth.
    bundle : str
        Directory of a model bundle whose pilots are used; "": none.
    numerology : str
        JSON file of a numerology whose pilots are used; "": none. With neither, the pilots are those of `channels`.
        Everything but the pilots must be equal.
    snr_db : float
        SNR in dB of a grid element whose channel has power 1.
    speed : float
        Saved slots by which the channel moves from one slot to the next.
    seed : int
        Of bits and noise.
    slots : int
        The streams end after this many; 0: never.
    slots_per_s : float
        Most slots in a second, for flowgraphs without a throttle or a radio; 0: no limit.
    slot_tag : str
        Name of the tag at the first sample of each slot, on all streams (uint64, the slot's number); "": none.
    antennas : int
        Number of streams, which must be the numerology's; 0: as the numerology has.

    Raises
    ------
    WavesfmError
        If a file or a parameter is wrong.

    Notes
    -----
    Tag rx_rate (double) at the first sample of each start. Messages out, made only for a port that is connected:
    `channel` [antennas, symbols, subcarriers] and `sent` [symbols, subcarriers]: PDUs of each slot, with start_sample,
    n_samples, rate_hz, shape and numerology as in `pdus.slot_to_pmt`. A slow reader holds the streams back.
    """

    def __init__(
        self,
        channels: str,
        bundle: str = "",
        numerology: str = "",
        snr_db: float = 20.0,
        speed: float = 1.0,
        seed: int = 0,
        slots: int = 0,
        slots_per_s: float = 0.0,
        slot_tag: str = "slot_start",
        antennas: int = 0,
    ) -> None:
        if not channels:
            raise ConfigurationError("uplink simulator", "channels", "nothing", "a file of channels")
        for field, value in (("slots", slots), ("slots_per_s", slots_per_s)):
            if not value >= 0:
                raise ConfigurationError("uplink simulator", field, value, "0 or more")
        wanted = numerology_of(bundle, numerology) if bundle or numerology else None
        saved, found = load_channels(channels, wanted)
        spec = wanted or found
        require_size("uplink simulator", "antennas", antennas, spec.antennas)
        gr.sync_block.__init__(self, "wavesfm_uplink_simulator", [], [np.complex64] * spec.antennas)
        self._spec, self._saved, self._seed = spec, saved, int(seed)
        self._source = UplinkSource(spec, saved, snr_db, self._seed, speed)
        self._slots, self._slots_per_s = int(slots), float(slots_per_s)
        self._slot_tag = pmt.intern(slot_tag) if slot_tag else None
        self._sent_slots = 0  # in this run
        self._first_s = 0.0
        self._rate_tagged = False  # in this run
        self._ports = {port: OutboxPort(self, port, lambda: "block", limit=16) for port in (CHANNEL, SENT)}
        self.set_output_multiple(spec.slot_samples)

    def set_snr_db(self, snr_db: float) -> None:
        """Set from the next slot on. Raises ConfigurationError."""
        self._source.snr_db = snr_db

    def set_speed(self, speed: float) -> None:
        """Set from the next slot on. Raises ConfigurationError."""
        self._source.speed = speed

    def start(self) -> bool:
        last = self._source
        self._source = UplinkSource(self._spec, self._saved, last.snr_db, self._seed, last.speed)
        self._sent_slots = 0
        self._first_s = clock.monotonic()
        self._rate_tagged = False
        for port in self._ports.values():
            port.open()
        return True

    def stop(self) -> bool:
        for port in self._ports.values():
            port.close()
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        try:
            return self._fill(output_items)
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self.logger.error(f"the uplink ends after {self._sent_slots} slots: {error}")
            return END_OF_STREAM

    def _fill(self, outputs: list[Any]) -> int:
        count = len(outputs[0]) // self._spec.slot_samples
        if self._slots:
            count = min(count, self._slots - self._sent_slots)
            if not count:
                for port in self._ports.values():
                    port.outbox.drain()
                return END_OF_STREAM
        if self._slots_per_s:
            count = min(count, self._due())
        for index in range(count):
            self._write(outputs, index * self._spec.slot_samples, self._source.slot())
        return count * self._spec.slot_samples

    def _due(self) -> int:
        """Return how many slots may be sent now, after a sleep if none may."""
        next_s = self._first_s + self._sent_slots / self._slots_per_s
        late_s = clock.monotonic() - next_s
        if late_s < 0:
            clock.sleep(min(-late_s, WAIT_S))
            return 0
        return 1 + int(late_s * self._slots_per_s)

    def _write(self, outputs: list[Any], at: int, slot: UplinkSlot) -> None:
        first, spec = self.nitems_written(0) + at, self._spec
        for port, samples in enumerate(slot.samples):
            outputs[port][at : at + spec.slot_samples] = samples
            if self._slot_tag is not None:
                self.add_item_tag(port, first, self._slot_tag, pmt.from_uint64(self._sent_slots))
            if not self._rate_tagged:
                self.add_item_tag(port, first, RATE, pmt.from_double(spec.rate_hz))
        self._rate_tagged = True
        self._sent_slots += 1
        facts = {"start_sample": first, "n_samples": spec.slot_samples, "rate_hz": spec.rate_hz}
        for port, grid in ((CHANNEL, slot.channel), (SENT, slot.sent)):
            if self._ports[port].connected:
                self._ports[port].outbox.put(grid_to_pmt(grid, spec.id, facts))
