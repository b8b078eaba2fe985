# SPDX-License-Identifier: GPL-3.0-or-later
"""A small numerology, channels and slots for it, and flowgraphs of the OFDM blocks with what their ports said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr
from gnuradio.wavesfm.pdus import grid_from_pmt
from wavesfm_core._kernels import PythonMethod
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.preprocess.slot_layout import slot_layout
from wavesfm_core.types import Slot

from support.flowgraphs import WATCHDOG_S, run


def numerology(antennas: int = 3, **changes: Any) -> OFDMSpec:
    """4 symbols of 24 subcarriers, FFT 32, pilots on symbols 1 and 3, the first prefix longer."""
    quadrants = "".join(map(str, np.random.default_rng(5).integers(0, 4, 48)))
    fields = {
        "antennas": antennas, "symbols": 4, "subcarriers": 24, "fft_size": 32, "prefix_samples": (6, 4, 4, 4),
        "spacing_hz": 30e3, "pilot_symbols": (1, 3), "pilot_quadrants": quadrants,
    }  # fmt: skip
    return OFDMSpec(**{**fields, **changes})


def write_numerology(spec: OFDMSpec, path: Path) -> str:
    """The numerology as a JSON file; its name."""
    path.write_text(json.dumps(to_dict(spec)))
    return str(path)


def channels(spec: OFDMSpec, count: int, seed: int = 0) -> np.ndarray:
    """Two paths within the prefix for each antenna, slowly turning: complex64 [count, A, S, F], mean power 1."""
    rng = np.random.default_rng(seed)
    delays = np.array([0.0, 2.0])[:, None] * np.ones(spec.antennas)
    gains = np.array([[0.8], [0.6]]) * np.exp(2j * np.pi * rng.random((2, spec.antennas)))
    turns = np.exp(2e-3j * np.pi * np.arange(count * spec.symbols).reshape(count, 1, spec.symbols, 1))
    phase = np.exp(-2j * np.pi * delays[..., None] * spec.frequencies / spec.fft_size)
    first, second = gains[..., None] * phase
    return (first[None, :, None] + turns * second[None, :, None]).astype(np.complex64)


def slots(spec: OFDMSpec, count: int, seed: int = 0, noise: float = 0.01) -> list[Slot]:
    """Received grids: channels times QPSK with the pilots in their places, and noise; slot after slot in samples."""
    rng = np.random.default_rng(seed)
    made = []
    for index, channel in enumerate(channels(spec, count, seed)):
        grid = channel * sent(spec, seed + index) + noise * rng.normal(size=(*spec.grid_shape, 2)).view("c16")[..., 0]
        made.append(Slot(grid.astype(np.complex64), index * spec.slot_samples, spec.slot_samples, spec.rate_hz))
    return made


def sent(spec: OFDMSpec, seed: int) -> np.ndarray:
    """QPSK of unit power with the pilots in their places: complex64 [S, F]."""
    quadrants = np.random.default_rng(seed).integers(0, 4, spec.grid_shape[1:])
    grid = np.exp(1j * np.pi * (1 + 2 * quadrants) / 4)
    grid[np.ix_(spec.pilot_symbols, spec.pilot_subcarriers)] = spec.pilots
    return grid.astype(np.complex64)


def before_batches(monkeypatch: Any, before: Callable[[int], object]) -> None:
    """Call before(slots of the batch) ahead of each estimation of all pipelines that are made from here on."""
    make = ChannelPipeline._make

    def made(self: ChannelPipeline, method: str) -> Any:
        estimator, layout = make(self, method), slot_layout(self.spec)
        native = estimator.native

        def estimate(grids: Any, *seen: Any) -> Any:
            before(len(grids))
            return native.estimate(layout, *seen)

        estimator.native = PythonMethod(layout, estimator.name, "", estimate, native)
        return estimator

    monkeypatch.setattr(ChannelPipeline, "_make", made)


class Sender(gr.sync_block):
    """Publishes a message of a list, again and again, with each item that its stream has, and ends with it."""

    def __init__(self, messages: list[Any]) -> None:
        gr.sync_block.__init__(self, "sender", [np.uint8], [])
        self._messages = messages
        self.message_port_register_out(pmt.intern("out"))

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        first = self.nitems_read(0)
        for index in range(first, first + len(input_items[0])):
            self.message_port_pub(pmt.intern("out"), self._messages[index % len(self._messages)])
        return len(input_items[0])


def paced(count: int, per_s: float) -> list[Any]:
    """Blocks that make so many bytes as fast as it goes or, with per_s, bytes without end, so many a second."""
    source = blocks.vector_source_b([0] * count, per_s > 0)
    if not per_s:
        return [source]
    throttle = blocks.throttle(1, per_s)
    throttle.set_max_noutput_items(10)
    return [source, throttle]


class Ports:
    """GNU Radio's own message_debug at each message port of a block."""

    def __init__(self, top: Any, block: Any, *ports: str) -> None:
        self.stores = {port: blocks.message_debug() for port in ports}
        for port, store in self.stores.items():
            top.msg_connect((block, port), (store, "store"))

    def messages(self, port: str) -> list[Any]:
        """What came from a port so far, as PMT."""
        store = self.stores[port]
        return [store.get_message(index) for index in range(store.num_messages())]

    def grids(self, port: str) -> list[tuple[dict[str, Any], np.ndarray]]:
        """The PDUs of a port: facts and array."""
        return [grid_from_pmt(message) for message in self.messages(port)]

    def status(self, kind: str) -> list[dict[str, Any]]:
        """The status messages of one kind as Python types."""
        return [said for said in map(pmt.to_python, self.messages("status")) if said["kind"] == kind]


class Estimated(Ports):
    """A flowgraph of messages -> channel_estimator, with sinks on so many of its streams.

    per_s: 0: each message once, as fast as it goes; else without end, so many a second.
    """

    def __init__(
        self, messages: list[Any], estimator: Any, fft_size: int = 32, streams: int = 0, per_s: float = 0
    ) -> None:
        self.top, self._fft_size = gr.top_block(), fft_size
        self.estimator, self.sender = estimator, Sender(messages)  # GNU Radio does not keep Python's blocks alive
        self.top.connect(*paced(len(messages), per_s), self.sender)
        self.top.msg_connect((self.sender, "out"), (estimator, "grids"))
        super().__init__(self.top, estimator, "channel", "status")
        self.sinks = [blocks.vector_sink_c(fft_size) for _ in range(streams)]
        for index, sink in enumerate(self.sinks):
            self.top.connect((estimator, index), sink)

    def run(self, timeout_s: float = WATCHDOG_S) -> Estimated:
        """Run until the sender has ended and all was estimated, under the watchdog."""
        run(self.top, timeout_s)
        return self

    def vectors(self, index: int) -> np.ndarray:
        """What a stream had: complex64 [n, fft_size]."""
        return np.array(self.sinks[index].data(), np.complex64).reshape(-1, self._fft_size)
