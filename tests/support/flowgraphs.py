# SPDX-License-Identifier: GPL-3.0-or-later
"""Flowgraphs around a classifier, run under a watchdog, with what came out of their message ports."""

from __future__ import annotations

import faulthandler
import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr

from support.waiting import LONG_S

WATCHDOG_S = LONG_S


def finish(top: Any, timeout_s: float = WATCHDOG_S) -> None:
    """Wait until a started flowgraph has ended; fails, with every thread's stack, when it hangs."""
    waiter = threading.Thread(target=top.wait, daemon=True)
    waiter.start()
    waiter.join(timeout_s)
    if waiter.is_alive():
        faulthandler.dump_traceback(sys.__stderr__)
        raise AssertionError(f"the flowgraph hangs: it has not ended after {timeout_s} s")


def run(top: Any, timeout_s: float = WATCHDOG_S) -> None:
    """Run a flowgraph to the end of its stream under the watchdog."""
    top.start()
    finish(top, timeout_s)


class Collector:
    """A flowgraph `source -> classifier` with GNU Radio's own message_debug at each port."""

    def __init__(self, source: Any, classifier: Any) -> None:
        self.top = gr.top_block()
        self.source, self.classifier = source, classifier
        self.top.connect(source, classifier)
        self._stores = {}
        for port in ("predictions", "status", "label"):
            self._stores[port] = blocks.message_debug()
            self.top.msg_connect((classifier, port), (self._stores[port], "store"))

    def run(self, timeout_s: float = WATCHDOG_S) -> Collector:
        """Run to the end of the stream under the watchdog."""
        run(self.top, timeout_s)
        return self

    def messages(self, port: str) -> list[Any]:
        """What came from a port so far, as PMT."""
        store = self._stores[port]
        return [store.get_message(index) for index in range(store.num_messages())]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The predictions as Python types; an empty dict is None."""
        return [pmt.to_python(message) for message in self.messages("predictions")]

    def status(self, kind: str) -> list[dict[str, Any]]:
        """The status messages of one kind as Python types."""
        return [said for said in map(pmt.to_python, self.messages("status")) if said["kind"] == kind]


def vector_source(samples: Any, tags: Iterable[tuple[int, str, Any]] = ()) -> Any:
    """A source of complex64 [n] and of tags (offset, key, PMT value)."""
    return blocks.vector_source_c(samples.tolist(), False, 1, make_tags(tags))


def make_tags(tags: Iterable[tuple[int, str, Any]]) -> list[Any]:
    """Tags (offset, key, PMT value) as a vector source of any type takes them."""
    made = []
    for offset, key, value in tags:
        made.append(gr.tag_t())
        made[-1].offset, made[-1].key, made[-1].value = offset, pmt.intern(key), value
    return made


def rx_time(seconds: int, fraction: float) -> Any:
    """The value of an rx_time tag."""
    return pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(fraction))


class EndlessSource(gr.sync_block):
    """Repeats complex64 [n] until the event `enough` is set, and ends after a whole repetition."""

    def __init__(self, samples: Any) -> None:
        gr.sync_block.__init__(self, "endless_source", [], [np.complex64])
        self._samples, self.repeated, self.enough = samples, 0, threading.Event()
        self.set_output_multiple(len(samples))

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        if self.enough.is_set():
            return -1
        output_items[0][: len(self._samples)] = self._samples
        self.repeated += 1
        return len(self._samples)


class ChunkSource(gr.sync_block):
    """Emits complex64 [n] and tags (offset, key, PMT value) in pieces of random sizes, 1 to `most` samples; seeded."""

    def __init__(self, samples: Any, most: int, seed: int, tags: Iterable[tuple[int, str, Any]] = ()) -> None:
        gr.sync_block.__init__(self, "chunk_source", [], [np.complex64])
        self._tags = list(tags)
        self._samples, self._most, self._rng = samples, most, np.random.default_rng(seed)
        self._sent = 0

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        left = len(self._samples) - self._sent
        if left == 0:
            return -1
        size = min(int(self._rng.integers(1, self._most + 1)), left, len(output_items[0]))
        output_items[0][:size] = self._samples[self._sent : self._sent + size]
        for offset, key, value in self._tags:
            if self._sent <= offset < self._sent + size:
                self.add_item_tag(0, offset, pmt.intern(key), value)
        self._sent += size
        return size


def accounts_close(accounts: dict[str, Any]) -> bool:
    """Whether every tile of a status message is accounted for."""
    parts = ("inferred", "gated", "dropped", "failed", "waiting")
    return accounts["tiles_in"] == sum(accounts[part] for part in parts)
