# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm history`: what a live session has written into its database."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import ConfigurationError
from ..live.outputs.history import Query, find_emitters, find_events
from .json_output import json_lines, write_line
from .parsing import hertz


def history_command(
    database: Annotated[Path, typer.Argument(metavar="DATABASE", help="Of the output history of wavesfm live.")],
    events: Annotated[bool, typer.Option("--events", help="Show events instead of emitters.")] = False,
    label: Annotated[str | None, typer.Option("--label", help="Only this label.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="UTC", help="As 2026-01-31T12:00:00.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="UTC", help="As 2026-01-31.")] = None,
    low: Annotated[str | None, typer.Option("--low", metavar="HZ", help="Only what reaches above: 433M.")] = None,
    high: Annotated[str | None, typer.Option("--high", metavar="HZ", help="Only what reaches below: 434M.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Most rows, the latest first.", min=1)] = 100,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write one JSON line for each row instead; - for stdout."),
    ] = None,
) -> None:
    """Show the emitters or the events of a live session's database."""
    query = Query(
        label,
        _seconds("--since", since),
        _seconds("--until", until),
        hertz("--low", low, allow_negative=True),
        hertz("--high", high, allow_negative=True),
        limit,
    )
    rows = find_events(database, query) if events else find_emitters(database, query)
    first = next(rows, None)  # a file that is no database is refused before another one is written over
    found = [] if first is None else itertools.chain([first], rows)
    with json_lines(json_path) as lines:
        if lines is None:
            Console().print(_table(found, events))
        else:
            for row in found:
                write_line(lines, row)


def _table(rows: Any, events: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ("first UTC", "last UTC", "label", "conf.", "MHz", "kHz", "SNR dB", "bursts")
    for heading in ("UTC", "event", *headings[2:]) if events else headings:
        is_text = heading in ("label", "event") or "UTC" in heading
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        offset_hz = (row["centre_hz"] or 0.0) if events else 0.0
        if events:
            time = row["time"]
            place = ["" if time is None else str(time["utc"])[:23], row["event"]]
        else:
            place = [_text(row["first_s"]), _text(row["last_s"])]
        middle_mhz = (offset_hz + (row["low_hz"] + row["high_hz"]) / 2) / 1e6
        confidence = "" if row["confidence"] is None else f"{row['confidence']:.2f}"
        width_khz = (row["high_hz"] - row["low_hz"]) / 1e3
        rest = [f"{middle_mhz:.4f}", f"{width_khz:.3g}", f"{row['snr_db']:.0f}", str(row["n_bursts"])]
        table.add_row(*place, row["label"] or "-", confidence, *rest)
    return table


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _seconds(option: str, text: str | None) -> float | None:
    """Seconds since the epoch of a time in UTC. Raises ConfigurationError."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError("command line", option, repr(text), "a time such as 2026-01-31T12:00:00") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
