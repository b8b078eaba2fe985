# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of `wavesfm live`: read from YAML and the command line, and checked as a whole."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..band.options import BandOptions
from ..errors import ConfigurationError
from .yaml_file import faults, schema

SCHEMA = "config.schema.json"
TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
LEAST_TOKEN = 16
TOKEN_LIMIT = 4096


@dataclass(frozen=True)
class SourceConfig:
    """Where samples come from."""

    kind: str
    """file, stdin, zmq, rtl, soapy, uhd or simulated."""
    address: str = ""
    """A path, an endpoint, HOST:PORT or device arguments; "" for the default of the kind."""
    rate_hz: float | None = None
    """Sample rate in Hz; None: as the source has it."""
    centre_hz: float | None = None
    """Centre frequency in Hz; None: as the source has it."""
    format: str | None = None
    """Sample format; None: as the source has it."""
    gain_db: float | str = "auto"
    """Gain in dB, or "auto"."""
    antenna: str = ""
    """Antenna port; "" for the device's default."""
    realtime: bool = False
    """Play a file at its sample rate."""
    loop: bool = False
    """Begin a file again at its end."""
    seed: int = 0
    """Of the simulated radio."""


@dataclass(frozen=True)
class ModelConfig:
    """The bundle and how it runs."""

    bundle: Path
    """Directory of the bundle."""
    device: str = "auto"
    """See `open_engine`."""
    precision: str = "auto"
    """See `open_engine`."""
    threads: int = 0
    """Of the engine; 0: automatic."""


@dataclass(frozen=True)
class WebConfig:
    """The HTTP server."""

    host: str
    """Address to listen on."""
    port: int
    """Port; 0 for a free one."""
    token_file: Path | None = None
    """File of the bearer token; None on loopback only."""
    most_clients: int = 16
    """WebSockets that are open at the same time."""
    page: bool = True
    """False: only /health and /metrics."""


@dataclass(frozen=True)
class RecordConfig:
    """Recordings on trigger."""

    folder: Path
    """Where recordings go."""
    triggers: tuple[Mapping[str, Any], ...]
    """Each with one of label, unknown, power_db and every_s."""
    before_s: float = 1.0
    """Seconds before the trigger."""
    after_s: float = 2.0
    """Seconds after the trigger."""
    quota_bytes: int = 10**10
    """Size of all recordings in the folder; the oldest are deleted."""


@dataclass(frozen=True)
class ScanConfig:
    """A scan over several tunings."""

    plan: Path
    """File of the plan."""
    occupancy: Path | None = None
    """Path without suffix of the CSV and the PNG; None for none."""


@dataclass(frozen=True)
class LiveConfig:
    """All of a live session; `from_values` is the usual constructor."""

    source: SourceConfig
    model: ModelConfig
    band: BandOptions = field(default_factory=BandOptions)
    ring_s: float = 5.0
    """Seconds of samples that are kept for recordings and downloads."""
    hang_s: float = 10.0
    """Seconds after which an engine that does not return is given up."""
    web: WebConfig | None = None
    """None for no server."""
    outputs: tuple[Mapping[str, Any], ...] = ()
    """Options of each output, with its kind."""
    record: RecordConfig | None = None
    """None for no recordings."""
    scan: ScanConfig | None = None
    """None for a fixed tuning."""
    log_level: str = "warning"
    """debug, info, warning or error."""

    @classmethod
    def from_values(cls, values: Any, where: object) -> LiveConfig:
        """The configuration of values as YAML has them; raises the first ConfigurationError of `all_faults`."""
        found = all_faults(values, where)
        if found:
            raise found[0]
        return _build(values)


def all_faults(values: Any, where: object) -> list[ConfigurationError]:
    """One error for each fault of a configuration, without opening anything."""
    rules = schema(SCHEMA)
    found = faults(where, values, rules)
    if not isinstance(values, Mapping):
        return found
    outputs = values.get("outputs")
    for number, output in enumerate(outputs if isinstance(outputs, list) else []):
        kind = output.get("kind") if isinstance(output, Mapping) else None
        if isinstance(kind, str) and kind in rules["properties"]["outputs"]["items"]["properties"]["kind"]["enum"]:
            found += faults(where, output, {**rules["$defs"][kind], "$defs": rules["$defs"]}, f"outputs.{number}")
    return found or _contradictions(values, where)


def _contradictions(values: Mapping[str, Any], where: object) -> list[ConfigurationError]:
    """Faults between fields, of values that keep the schema."""
    found = []
    try:
        _band(values.get("band", {}), where)
    except ConfigurationError as error:
        found.append(error)
    source = values["source"]
    needs = {"file": ("address",), "zmq": ("address", "rate_hz"), "rtl": ("rate_hz", "centre_hz")}
    needs |= {"soapy": ("rate_hz", "centre_hz"), "uhd": ("rate_hz", "centre_hz"), "stdin": ("rate_hz",)}
    is_scanned = {"rate_hz", "centre_hz"} if "scan" in values else set()
    for name in needs.get(source["kind"], ()):
        if name not in source and name not in is_scanned:
            expected = f"a value, which a source of kind {source['kind']} needs"
            found.append(ConfigurationError(where, f"source.{name}", "nothing", expected))
    record = values.get("record")
    if record is not None:
        window_s = record.get("before_s", RecordConfig.before_s) + record.get("after_s", RecordConfig.after_s)
        if window_s + 1 > values.get("ring_s", LiveConfig.ring_s):
            expected = f"ring_s of {window_s + 1:g} or more: before_s, after_s and a second"
            found.append(ConfigurationError(where, "ring_s", values.get("ring_s", LiveConfig.ring_s), expected))
    web = values.get("web")
    if web is not None and not is_loopback(split_address(web["listen"])[0]) and "token_file" not in web:
        expected = "a token_file, because others than this machine can reach this address"
        found.append(ConfigurationError(where, "web.token_file", "nothing", expected))
    for number, output in enumerate(values.get("outputs", ())):
        listen = output.get("listen")
        if listen is not None and not is_loopback(split_address(listen)[0]):
            expected = "a loopback address; the web server serves /metrics elsewhere, with a token"
            found.append(ConfigurationError(where, f"outputs.{number}.listen", repr(listen), expected))
    if "scan" in values and source["kind"] in ("file", "stdin", "zmq"):
        expected = "rtl, soapy, uhd or simulated, which can be tuned"
        found.append(ConfigurationError(where, "source.kind", source["kind"], expected))
    return found


def _band(values: Mapping[str, Any], where: object) -> BandOptions:
    known = BandOptions.__dataclass_fields__
    for name in values:
        if name not in known:
            raise ConfigurationError(where, f"band.{name}", "an unknown field", "one of " + ", ".join(known))
    whole = {name for name, each in known.items() if each.type == "int"}
    try:
        return BandOptions(**{name: int(value) if name in whole else value for name, value in values.items()})
    except ConfigurationError as error:
        raise ConfigurationError(where, f"band.{error.field}", error.found, error.expected) from None


def _build(values: Mapping[str, Any]) -> LiveConfig:
    model = {**values["model"], "bundle": Path(values["model"]["bundle"])}
    fields: dict[str, Any] = {name: values[name] for name in ("ring_s", "hang_s", "log_level") if name in values}
    fields["outputs"] = tuple(values.get("outputs", ()))
    if (web := values.get("web")) is not None:
        host, port = split_address(web["listen"])
        rest = {name: web[name] for name in ("most_clients", "page") if name in web}
        fields["web"] = WebConfig(host, port, Path(web["token_file"]) if "token_file" in web else None, **rest)
    if (record := values.get("record")) is not None:
        rest = {name: record[name] for name in ("before_s", "after_s") if name in record}
        if "quota_bytes" in record:
            rest["quota_bytes"] = int(record["quota_bytes"])
        fields["record"] = RecordConfig(Path(record["folder"]), tuple(record["triggers"]), **rest)
    if (scan := values.get("scan")) is not None:
        occupancy = scan.get("occupancy")
        fields["scan"] = ScanConfig(Path(scan["plan"]), None if occupancy is None else Path(occupancy))
    return LiveConfig(
        SourceConfig(**values["source"]), ModelConfig(**model), _band(values.get("band", {}), "configuration"), **fields
    )


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPv6]:PORT. Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host:
        raise ConfigurationError("address", "port", repr(text), "HOST:PORT such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(path: Path, least: int = 1) -> str:
    """The first line of a file with a token or a password. Raises ConfigurationError.

    least: characters that it must have; from 16 on it is a token of letters, digits and -._~.
    """
    try:
        with path.open("rb") as file:
            text = file.read(TOKEN_LIMIT).decode("ascii").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(path, "file", getattr(error, "strerror", error), "a file that can be read") from None
    if len(text) < least or (least >= LEAST_TOKEN and not set(text) <= TOKEN_CHARACTERS):
        expected = f"{least} or more letters, digits and -._~" if least >= LEAST_TOKEN else "a line"
        raise ConfigurationError(path, "first line", f"{len(text)} characters", expected)
    return text
