# SPDX-License-Identifier: GPL-3.0-or-later
"""The terminal view of `wavesfm live`: emitters, rates, lag, losses."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..live.bus import Record
from ..live.emitter_table import Known
from ..live.session import LiveSession
from ..live.status import fault_of

REFRESH_PER_S = 4.0
WARNINGS_SHOWN = 3
LEAST_ROWS = 3


class TerminalView:
    """Redraws itself on a thread of rich while it is entered.

    Parameters
    ----------
    session : LiveSession
        Whose emitters are shown.
    console : Console
        Where to draw.
    """

    def __init__(self, session: LiveSession, console: Console) -> None:
        self._session, self._console = session, console
        self._lock = threading.Lock()  # guards the two below
        self._status: Mapping[str, Any] = {}
        self._warnings: list[str] = []
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=REFRESH_PER_S, screen=True, transient=True
        )

    def take_status(self, status: Mapping[str, Any]) -> None:
        """Show a status; from any thread."""
        with self._lock:
            self._status = status

    def take_record(self, record: Record) -> None:
        """Show warnings; from any thread."""
        if record.kind == "warning":
            with self._lock:
                self._warnings = [*self._warnings, str(record.values["text"])][-WARNINGS_SHOWN:]

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        with self._lock:
            status, warnings = self._status, list(self._warnings)
        room = self._console.size.height - 8 - len(warnings)
        parts: list[RenderableType] = [emitters_table(self._session.emitters.all(), max(LEAST_ROWS, room))]
        if status:
            parts = [status_text(status), *parts]
        return Group(*parts, *(Text(warning, style="yellow", no_wrap=True) for warning in warnings))


def emitters_table(known: Sequence[Known], most: int) -> Table:
    """Emitters on the air first, then the last ones that have ended."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for heading in ("label", "conf.", "MHz", "kHz", "SNR dB", "dBFS", "bursts", "state"):
        is_text = heading in ("label", "state")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    rows = [each for each in known if each.emitter.kind != "line"]
    rows.sort(key=lambda each: (not each.is_active, -each.emitter.start_sample - each.emitter.n_samples))
    for emitter, is_active in rows[:most]:
        middle_hz = (emitter.centre_hz or 0.0) + (emitter.low_hz + emitter.high_hz) / 2
        table.add_row(
            Text(emitter.label or "..."),
            "" if emitter.confidence is None else f"{emitter.confidence:.2f}",
            f"{middle_hz / 1e6:.4f}",
            f"{emitter.width_hz / 1e3:.3g}",
            f"{emitter.snr_db:.0f}",
            f"{emitter.power_db:.0f}",
            str(emitter.n_bursts),
            "on the air" if is_active else "ended",
            style="" if is_active else "dim",
        )
    return table


def status_text(status: Mapping[str, Any]) -> Text:
    """Source, tuning, rate, lag and losses in three lines."""
    accounts = status["accounts"]
    centre_hz = status["centre_hz"]
    place = "unknown frequency" if centre_hz is None else f"{centre_hz / 1e6:.6g} MHz"
    searched = accounts["samples_searched"] / max(status["uptime_s"], 1e-3)
    lost = accounts["samples_missed"]
    text = Text(no_wrap=True)
    text.append(f"{status['source']}  ", "bold")
    text.append(f"{place}  {status['rate_hz'] / 1e6:g} MS/s  {status['bundle']} on {status['engine']}\n")
    text.append(f"searched {searched / 1e6:.2f} MS/s  lag {1e3 * status['lag_s']:.0f} ms  ")
    text.append(f"missed {lost} samples  ", "bold red" if lost else "")
    text.append(f"gaps {accounts['gaps']}  retunes {accounts['retunes']}  events {accounts['events']}\n")
    for name, each in status["outputs"].items():
        bad = each["dropped"] + each["failed"]
        text.append(f"{name}: {each['sent']} sent", "")
        text.append(f", {bad} lost  " if bad else "  ", "red")
    if fault := fault_of(status):
        text.append(fault, "bold red")
    return text
