# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs from their options in a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import read_secret, split_address
from .annotations import SigMFAnnotations
from .base import Output
from .history import History
from .json_lines import JSONLines
from .mqtt import MQTT
from .prometheus import Prometheus
from .webhook import Webhook
from .zmq_publisher import ZMQPublisher

Options = Mapping[str, Any]


def open_output(options: Options, on_broken_pipe: Callable[[], object] | None = None) -> Output:
    """The output of one entry of `outputs`; raises ConfigurationError for a missing package or secret.

    on_broken_pipe: called when the reader of standard output is gone.
    """
    kind = options["kind"]
    if kind == "json":
        return JSONLines(**_only(options, "path", "most_bytes", "keep"), on_broken_pipe=on_broken_pipe)
    if kind == "zmq":
        return ZMQPublisher(options["bind"], **_only(options))
    if kind == "mqtt":
        password = _secret(options, "password_file")
        return MQTT(**_only(options, "host", "port", "topic", "username", "tls"), password=password)
    if kind == "prometheus":
        return Prometheus(split_address(options["listen"]) if "listen" in options else None)
    if kind == "annotations":
        return SigMFAnnotations(options["path"])
    if kind == "history":
        return History(**{name: options[name] for name in ("path", "keep_days") if name in options})
    labels = frozenset(options.get("labels", ()))
    return Webhook(**_only(options, "url", "timeout_s"), labels=labels, token=_secret(options, "token_file"))


def _only(options: Options, *names: str) -> dict[str, Any]:
    """The options of these names, and the kinds of records where they are chosen."""
    chosen = {name: options[name] for name in names if name in options}
    if "kinds" in options:
        chosen["kinds"] = frozenset(options["kinds"])
    return chosen


def _secret(options: Options, name: str) -> str | None:
    return read_secret(Path(options[name])) if name in options else None
