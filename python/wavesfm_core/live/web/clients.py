# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages for the WebSockets of a page: bounded queues, rows of a waterfall that slow clients skip."""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spectra import SpectrumRow

ROWS_WAITING = 4  # then the oldest row is skipped
TEXTS_WAITING = 500  # then the oldest message is skipped
ROW_VERSION = 1
ROW_HEADER = struct.Struct("<BBHIddddff")
"""Version, flags (1: centre known, 2: time known), bins, samples, start sample, rate, centre, time, dB of byte 0, dB
per step."""
SPAN_DB = 100.0  # of the 256 steps of a byte


def pack_row(row: SpectrumRow) -> bytes:
    """A row as the page reads it: ROW_HEADER, then one byte a bin."""
    lowest_db = float(np.floor(np.percentile(row.power_db, 1) - 10))
    steps = np.clip((row.power_db - lowest_db) / (SPAN_DB / 255), 0, 255).astype(np.uint8)
    flags = (row.centre_hz is not None) | (row.time is not None) << 1
    header = ROW_HEADER.pack(
        ROW_VERSION,
        flags,
        len(steps),
        row.n_samples,
        row.start_sample,
        row.rate_hz,
        row.centre_hz or 0.0,
        0.0 if row.time is None else float(row.time),
        lowest_db,
        SPAN_DB / 255,
    )
    return header + steps.tobytes()


class Client:
    """What waits for one WebSocket; used on the server's event loop only."""

    def __init__(self) -> None:
        self._rows: deque[bytes] = deque()
        self._texts: deque[str] = deque()
        self._latest: dict[str, str] = {}  # state of which only the newest counts
        self._ready = asyncio.Event()
        self.rows_skipped = 0
        self.texts_skipped = 0

    def put_row(self, row: bytes) -> None:
        """Queue a row; the oldest is skipped and counted while the client is slow."""
        if len(self._rows) >= ROWS_WAITING:
            self._rows.popleft()
            self.rows_skipped += 1
        self._rows.append(row)
        self._ready.set()

    def put_text(self, text: str) -> None:
        """Queue a message; the oldest is skipped and counted while the client is slow."""
        if len(self._texts) >= TEXTS_WAITING:
            self._texts.popleft()
            self.texts_skipped += 1
        self._texts.append(text)
        self._ready.set()

    def put_latest(self, kind: str, text: str) -> None:
        """Replace a state of this kind that still waits."""
        self._latest[kind] = text
        self._ready.set()

    async def next(self) -> bytes | str:
        """The next message: states first, then texts, then rows."""
        while True:
            if self._latest:
                return self._latest.pop(next(iter(self._latest)))
            if self._texts:
                return self._texts.popleft()
            if self._rows:
                return self._rows.popleft()
            self._ready.clear()
            await self._ready.wait()


def text_of(kind: str, values: Mapping[str, Any]) -> str:
    """A message of the page."""
    return json.dumps({"type": kind, **values}, allow_nan=False)
