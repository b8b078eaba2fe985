# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for Prometheus: from the status once a second, and counts of events by label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConfigurationError
from ...packages import install_command
from ..bus import Record

MOST_LABELS = 200  # label values of a metric; further ones count as "other"
GAUGES = {
    "rate_hz": "Sample rate in Hz.",
    "centre_hz": "Centre frequency in Hz.",
    "lag_s": "Seconds of samples that wait for the search.",
    "silent_s": "Seconds since the last samples came.",
    "uptime_s": "Seconds since the start.",
    "emitters": "Emitters on the air.",
}


class Prometheus:
    """A registry of metrics and, if wanted, an HTTP endpoint on loopback.

    Parameters
    ----------
    listen : tuple of (str, int) or None
        Address and port of the endpoint; None: another server serves `text`.

    Raises
    ------
    ConfigurationError
        The package prometheus-client is missing.
    """

    kinds = frozenset({"event", "status", "recording", "warning"})

    def __init__(self, listen: tuple[str, int] | None = None) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            missing = install_command("prometheus_client")
            raise ConfigurationError("output prometheus", "library prometheus_client", error, missing) from error
        self._client = prometheus_client
        self.name = "prometheus" if listen is None else f"prometheus {listen[0]}:{listen[1]}"
        self._listen = listen
        self._server: Any = None
        self._status: Mapping[str, Any] = {}
        self._labels: set[str] = set()
        self.registry = prometheus_client.CollectorRegistry()
        self.registry.register(self)
        self._events = prometheus_client.Counter(
            "wavesfm_events", "Events of emitters.", ["event", "label"], registry=self.registry
        )
        self._records = prometheus_client.Counter(
            "wavesfm_records", "Warnings and recordings.", ["kind"], registry=self.registry
        )

    @property
    def port(self) -> int:
        """Port of the endpoint once it is open, 0 before."""
        return 0 if self._server is None else int(self._server.server_port)

    def connect(self) -> None:
        """See `Output.connect`."""
        if self._listen is not None:
            self._server, _ = self._client.start_http_server(self._listen[1], self._listen[0], self.registry)

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        if record.kind == "status":
            self._status = record.values
        elif record.kind == "event":
            self._events.labels(record.values["event"], self._bounded(record.values["label"] or "none")).inc()
        else:
            self._records.labels(record.kind).inc()

    def close(self) -> None:
        """See `Output.close`."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        text: bytes = self._client.generate_latest(self.registry)
        return text

    def describe(self) -> list[Any]:
        """Called by the registry: nothing is known beforehand."""
        return []

    def collect(self) -> Iterator[Any]:
        """Called by the registry: metrics of the last status."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._status
        if not status:
            return
        for name, text in GAUGES.items():
            if status[name] is not None:
                yield GaugeMetricFamily(f"wavesfm_{name}", text, status[name])
        for name, count in status["accounts"].items():
            kind = GaugeMetricFamily if name == "samples_waiting" else CounterMetricFamily
            yield kind(f"wavesfm_{name}", f"See {name} in the documentation of wavesfm live.", value=count)
        records = CounterMetricFamily(
            "wavesfm_output_records", "Records of each output by outcome.", labels=["output", "outcome"]
        )
        for output, accounts in status["outputs"].items():
            for outcome in ("sent", "dropped", "failed"):
                records.add_metric([output, outcome], accounts[outcome])
        yield records

    def _bounded(self, label: str) -> str:
        if label not in self._labels and len(self._labels) >= MOST_LABELS:
            return "other"
        self._labels.add(label)
        return label
