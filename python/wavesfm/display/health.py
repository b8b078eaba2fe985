# SPDX-License-Identifier: GPL-3.0-or-later
"""Engine, rate, lag and losses of a stream, from status messages and the display's counts; no Qt."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

LAGS = 64  # results over which the lag is the largest


class Health:
    """What a status bar shows."""

    engine: str
    """Of the last status message, "" before."""
    bundle_id: str
    """Of the last status message, "" before."""
    last_text: str
    """Of the last warning or error, "" before."""
    accounts: dict[str, Any]
    """The last accounts."""

    def __init__(self) -> None:
        self.engine = self.bundle_id = self.last_text = ""
        self.accounts = {}
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._measured: tuple[float, int] | None = None
        self.rate_hz = 0.0

    def take_status(self, record: Mapping[str, Any]) -> None:
        """Take one status message in."""
        kind = record.get("kind")
        if kind == "started":
            self.engine, self.bundle_id = str(record.get("engine", "")), str(record.get("bundle_id", ""))
        elif kind == "engine":
            self.engine = str(record.get("to", ""))
        elif kind in ("accounts", "finished"):
            self.accounts = dict(record)
        elif kind in ("warning", "error"):
            self.last_text = str(record.get("text", ""))

    def take_lag(self, latency_s: float | None) -> None:
        """Note the time from a result's last sample to the result."""
        if latency_s is not None:
            self._lags.append(float(latency_s))

    @property
    def lag_s(self) -> float | None:
        """The largest of the last lags; None before the first."""
        return max(self._lags, default=None)

    def measure(self, now_s: float, samples_in: int) -> None:
        """Measure the rate at which samples come; now_s: monotonic."""
        if self._measured is None or samples_in < self._measured[1]:
            self._measured = (now_s, samples_in)
        elif now_s - self._measured[0] >= 1.0:
            self.rate_hz = (samples_in - self._measured[1]) / (now_s - self._measured[0])
            self._measured = (now_s, samples_in)

    def losses(self) -> dict[str, int]:
        """What was lost, by its name in docs/live.md, without the zeros."""
        flat = {**self.accounts, **{f"band.{k}": v for k, v in (self.accounts.get("band") or {}).items()}}
        names = ("dropped", "failed", "messages_dropped", "samples_lost", "samples_short", "overflows", "refused")
        counts = {name: int(flat.get(name) or 0) for name in (*names, "band.samples_missed")}
        return {name: count for name, count in counts.items() if count}

    def line(self) -> str:
        """One line for a status bar."""
        lag = "-" if self.lag_s is None else f"{1e3 * self.lag_s:.0f} ms"
        lost = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.losses().items()) or "none"
        return f"engine: {self.engine or 'unknown'}   rate: {si(self.rate_hz)}S/s   lag: {lag}   lost: {lost}"


def si(value: float) -> str:
    """A number with its SI prefix, such as "2.4 M"."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}"
    return f"{value:.4g} "
