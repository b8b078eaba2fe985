# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the Python object of a block alive while a flowgraph owns the block (gnuradio#5133).

A flowgraph owns the C++ side of a block only. Where a script keeps its Python blocks in local variables, GNU Radio
calls the freed Python object and the process crashes.
"""

from __future__ import annotations

import gc
import time
from typing import Any, NamedTuple

from . import _runtime

CONNECTING_S = 1.0  # longest time between `to_basic_block` and the flowgraph's taking the block


class _Kept(NamedTuple):
    block: Any
    since_s: float


_kept: dict[str, _Kept] = {}  # by the block's symbol name, which is unique in the process


class KeptAlive:
    """Base of a block, before GNU Radio's class, that lives as long as a flowgraph owns it."""

    _references_alone = 1

    def note_references(self: Any) -> None:
        """Note how often a hierarchical block refers to itself; to be called at the end of its constructor."""
        self._references_alone = _runtime.owners(self.symbol_name())

    def to_basic_block(self: Any) -> Any:
        """Return the C++ block, which GNU Radio asks for whenever the block is connected."""
        release_unowned()
        _kept[self.symbol_name()] = _Kept(self, time.monotonic())
        return (self._impl if hasattr(self, "_impl") else self.gateway).to_basic_block()


def release_unowned() -> None:
    """Let go of the blocks that no flowgraph owns any more."""
    now_s = time.monotonic()
    for name, kept in list(_kept.items()):
        if now_s - kept.since_s > CONNECTING_S and _runtime.owners(name) <= kept.block._references_alone:
            _kept.pop(name, None)


def _before_collection(phase: str, info: dict[str, int]) -> None:
    if phase == "start" and info["generation"] == 2:
        release_unowned()


gc.callbacks.append(_before_collection)
