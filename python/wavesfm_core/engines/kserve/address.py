# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of a model on a server, as the parameter `device` has it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from ...errors import ConfigurationError

SCHEME = "kserve"
PROTOCOLS = ("http", "grpc")
FALLBACKS = ("cpu", "off")
MOST_RETRIES = 10
LONGEST_S = 3600.0
FORM = "kserve://HOST:PORT/MODEL"
OPTIONS = ("protocol", "timeout_s", "retries", "max_batch", "fallback", "version")
"""Names that the address may have after "?"."""


def is_kserve(device: str) -> bool:
    """Whether a device is the address of a server."""
    return device.startswith(f"{SCHEME}:")


@dataclass(frozen=True)
class KServeAddress:
    """A model on a server, and how it is asked.

    Raises
    ------
    ConfigurationError
        A value out of range.
    """

    host: str
    """Host name or IP address."""
    port: int
    """TCP port of the protocol: 8000 for HTTP and 8001 for gRPC where Triton has its defaults."""
    model: str
    """Name of the model on the server."""
    protocol: str = "http"
    """One of PROTOCOLS."""
    timeout_s: float = 5.0
    """Deadline of a batch in seconds, with all its retries."""
    retries: int = 1
    """Most repetitions of a request that failed."""
    max_batch: int = 64
    """Most tiles of a request; a larger batch is sent as several requests."""
    fallback: str = "cpu"
    """"cpu": a batch that the server fails is run on the CPU; "off": it fails, and no runtime is needed here."""
    version: str = ""
    """Version of the model; "" for the server's choice."""

    def __post_init__(self) -> None:
        rules = {
            "host": (bool(re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", self.host)), "a host name or an IP address"),
            "port": (1 <= self.port <= 65535, "1 to 65535"),
            "model": (bool(re.fullmatch(r"[A-Za-z0-9._-]{1,255}", self.model)), "letters, digits, '.', '_' and '-'"),
            "protocol": (self.protocol in PROTOCOLS, "one of " + ", ".join(PROTOCOLS)),
            "timeout_s": (0 < self.timeout_s <= LONGEST_S, f"seconds above 0, up to {LONGEST_S:g}"),
            "retries": (0 <= self.retries <= MOST_RETRIES, f"0 to {MOST_RETRIES}"),
            "max_batch": (1 <= self.max_batch <= 4096, "1 to 4096"),
            "fallback": (self.fallback in FALLBACKS, "one of " + ", ".join(FALLBACKS)),
            "version": (bool(re.fullmatch(r"[0-9A-Za-z._-]{0,64}", self.version)), "a version of the model"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigurationError("device", name, repr(getattr(self, name)), expected)

    @property
    def netloc(self) -> str:
        """host:port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """The address without its options, for people."""
        return f"{SCHEME}://{self.netloc}/{self.model}"


def parse_address(device: str) -> KServeAddress:
    """Read kserve://HOST:PORT/MODEL[?protocol=grpc&timeout_s=2&...]; OPTIONS lists the names.

    Raises
    ------
    ConfigurationError
        Names the part that is wrong.
    """
    try:
        parts = urlsplit(device)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("device", "address", f"{device!r} ({error})", FORM) from None
    model = parts.path.removeprefix("/")
    if parts.scheme != SCHEME or not host or port is None or not model or parts.username or parts.fragment:
        raise ConfigurationError("device", "address", repr(device), FORM)
    values: dict[str, str] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS or name in values:
            raise ConfigurationError("device", "option", repr(name), "each once: " + ", ".join(OPTIONS))
        values[name] = text
    numbers = {
        "timeout_s": _number("timeout_s", values.pop("timeout_s", "5")),
        "retries": int(_number("retries", values.pop("retries", "1"), whole=True)),
        "max_batch": int(_number("max_batch", values.pop("max_batch", "64"), whole=True)),
    }
    return KServeAddress(host, port, model, **numbers, **values)  # type: ignore[arg-type]


def _number(name: str, text: str, whole: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (whole and value != int(value)):
        raise ConfigurationError("device", name, repr(text), "a whole number" if whole else "a number of seconds")
    return value
