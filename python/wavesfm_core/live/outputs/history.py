# SPDX-License-Identifier: GPL-3.0-or-later
"""Emitters and events in an SQLite database, and queries of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..bus import Record

VERSION = 1
PRUNE_S = 3600.0
BUSY_S = 5.0
TABLES = """
CREATE TABLE IF NOT EXISTS emitters (
  run TEXT NOT NULL, emitter INTEGER NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL, confidence REAL,
  low_hz REAL NOT NULL, high_hz REAL NOT NULL, centre_hz REAL, snr_db REAL NOT NULL, power_db REAL NOT NULL,
  n_bursts INTEGER NOT NULL, first_s REAL NOT NULL, last_s REAL NOT NULL, is_active INTEGER NOT NULL,
  PRIMARY KEY (run, emitter)
);
CREATE TABLE IF NOT EXISTS events (
  run TEXT NOT NULL, sequence INTEGER NOT NULL, at_s REAL NOT NULL, event TEXT NOT NULL, emitter INTEGER NOT NULL,
  label TEXT NOT NULL, contents TEXT NOT NULL, PRIMARY KEY (run, sequence)
);
CREATE INDEX IF NOT EXISTS emitters_last ON emitters (last_s);
CREATE INDEX IF NOT EXISTS events_at ON events (at_s);
"""
_UPSERT = """
INSERT INTO emitters VALUES (
  :run, :emitter, :kind, :label, :confidence, :low, :high, :centre_hz, :snr_db, :power_db, :n_bursts, :at, :at, :active)
ON CONFLICT (run, emitter) DO UPDATE SET kind = :kind, label = :label, confidence = :confidence, low_hz = :low,
  high_hz = :high, centre_hz = :centre_hz, snr_db = :snr_db, power_db = :power_db, n_bursts = :n_bursts,
  last_s = max(last_s, :at), is_active = :active
"""


class History:
    """A database of emitters and events. Frequencies of emitters are absolute where the centre frequency is known.

    Times are those of the stream, or of this machine's clock where the stream has none.

    Parameters
    ----------
    path : str
        The file; created where it does not exist.
    keep_days : float
        Older events and emitters are deleted; 0 keeps all.
    """

    kinds = frozenset({"event"})

    def __init__(self, path: str, keep_days: float = 0.0) -> None:
        self.name = f"history {path}"
        self._path, self._keep_s = path, keep_days * 86400
        self._database: sqlite3.Connection | None = None
        self._pruned_s = 0.0

    def connect(self) -> None:
        """See `Output.connect`."""
        self._database = database = sqlite3.connect(self._path, timeout=BUSY_S)
        database.execute("PRAGMA journal_mode=WAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise InputError(self._path, "schema version", version, str(VERSION))
        database.executescript(TABLES)
        database.execute(f"PRAGMA user_version={VERSION}")
        database.commit()

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        assert self._database is not None
        values = record.values
        at = values["time"]
        at_s = time.time() if at is None else at["full_s"] + at["frac_s"]
        offset_hz = values["centre_hz"] or 0.0
        row = {**values, "run": record.run, "at": at_s, "active": values["event"] != "ended"}
        row |= {"low": offset_hz + values["low_hz"], "high": offset_hz + values["high_hz"]}
        row = {name: value for name, value in row.items() if not isinstance(value, (dict, list))}
        event = (record.run, record.sequence, at_s, values["event"], values["emitter"], values["label"])
        try:
            with self._database as database:
                database.execute(_UPSERT, row)
                database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*event, json.dumps(dict(values))))
                self._prune(database)
        except sqlite3.OperationalError as error:  # locked, disk full
            raise OSError(str(error)) from error

    def close(self) -> None:
        """See `Output.close`."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _prune(self, database: sqlite3.Connection) -> None:
        now_s = time.monotonic()
        if not self._keep_s or now_s - self._pruned_s < PRUNE_S:
            return
        self._pruned_s = now_s
        limit_s = time.time() - self._keep_s
        database.execute("DELETE FROM events WHERE at_s < ?", (limit_s,))
        database.execute("DELETE FROM emitters WHERE last_s < ?", (limit_s,))


@dataclass(frozen=True)
class Query:
    """What is asked of a database."""

    label: str | None = None
    """Only this label; None for all."""
    since_s: float | None = None
    """Only what was on the air at or after this time, seconds since the epoch."""
    until_s: float | None = None
    """Only what began before this time, seconds since the epoch."""
    low_hz: float | None = None
    """Only what reaches above this frequency."""
    high_hz: float | None = None
    """Only what reaches below this frequency."""
    limit: int = 1000
    """Most rows, the latest first."""


def find_emitters(path: Path, query: Query) -> Iterator[dict[str, Any]]:
    """Emitters of a database, the last seen first. Raises InputError."""
    conditions, values = _conditions(
        query, {"since_s": "last_s >= ?", "until_s": "first_s < ?", "low_hz": "high_hz > ?", "high_hz": "low_hz < ?"}
    )
    text = f"SELECT * FROM emitters {conditions} ORDER BY last_s DESC, run, emitter LIMIT ?"
    yield from _rows(path, text, [*values, query.limit])


def find_events(path: Path, query: Query) -> Iterator[dict[str, Any]]:
    """Events of a database as they were published, the last one first. Raises InputError."""
    place = "(SELECT 1 FROM emitters e WHERE e.run = events.run AND e.emitter = events.emitter AND e.{})"
    conditions, values = _conditions(
        query,
        {
            "since_s": "at_s >= ?",
            "until_s": "at_s < ?",
            "low_hz": "EXISTS " + place.format("high_hz > ?"),
            "high_hz": "EXISTS " + place.format("low_hz < ?"),
        },
    )
    text = f"SELECT run, sequence, contents FROM events {conditions} ORDER BY at_s DESC, sequence DESC LIMIT ?"
    for row in _rows(path, text, [*values, query.limit]):
        yield {"run": row["run"], "sequence": row["sequence"], **json.loads(row["contents"])}


def _conditions(query: Query, texts: dict[str, str]) -> tuple[str, list[Any]]:
    wanted = {"label = ?": query.label, **{text: getattr(query, name) for name, text in texts.items()}}
    wanted = {text: value for text, value in wanted.items() if value is not None}
    return ("WHERE " + " AND ".join(wanted) if wanted else ""), list(wanted.values())


def _rows(path: Path, text: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise InputError(path, "file", "nothing", "a database of wavesfm live")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as database:
            database.row_factory = sqlite3.Row
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                raise InputError(path, "schema version", version, str(VERSION))
            yield from (dict(row) for row in database.execute(text, values))
    except sqlite3.Error as error:
        raise InputError(path, "file", error, "a database of wavesfm live") from error
