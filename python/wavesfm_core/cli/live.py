# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm live`: name the signals of a running source."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import ConfigurationError
from ..live.config import LiveConfig, all_faults
from ..live.service import LiveService
from ..live.yaml_file import load_yaml
from . import options as o
from .parsing import hertz

Address = Annotated[
    str | None,
    typer.Argument(help="A path, a ZMQ endpoint, HOST:PORT of rtl_tcp, or device arguments.", show_default=False),
]
SourceKind = Annotated[
    str | None, typer.Option("--source", help="file, stdin, zmq, rtl, soapy, uhd or simulated.", show_default=False)
]
ConfigPath = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration (YAML); options replace its fields.")
]
ModelPath = Annotated[Path | None, typer.Option("--model", metavar="BUNDLE", help="Directory of the bundle to use.")]
DeviceName = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, tensorrt, openvino or onnxruntime.", show_default=False)
]


def live_command(
    address: Address = None,
    source: SourceKind = None,
    config: ConfigPath = None,
    model: ModelPath = None,
    rate: o.Rate = None,
    sample_format: o.Format = None,
    centre: o.Centre = None,
    gain: Annotated[float | None, typer.Option("--gain", metavar="DB", help="Gain; automatic without it.")] = None,
    device: DeviceName = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play a file at its sample rate.")] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file again at its end.")] = False,
    web: Annotated[
        str | None, typer.Option("--web", metavar="ADDRESS:PORT", help="Serve a web page, as at 127.0.0.1:8080.")
    ] = None,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Also write one JSON line for each event; - for stdout."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration and name every fault.")] = False,
) -> None:
    """Name the signals of a radio, a stream or a recording while they are received."""
    where: object = config or "command line"
    values = {} if config is None else load_yaml(config)
    if not isinstance(values, dict):
        raise ConfigurationError(where, "contents", type(values).__name__, "a mapping with source and model")
    fields = {
        "kind": source,
        "address": address,
        "rate_hz": hertz("--rate", rate),
        "centre_hz": hertz("--centre", centre),
        "format": sample_format,
        "gain_db": gain,
        "realtime": realtime or None,
        "loop": loop or None,
    }
    _merge(values, "source", fields)
    _merge(values, "model", {"bundle": None if model is None else str(model), "device": device})
    _merge(values, "web", {"listen": web})
    if json_path is not None:
        values["outputs"] = [*values.get("outputs", []), {"kind": "json", "path": json_path}]
    if check:
        _check(values, where)
        return
    settings = LiveConfig.from_values(values, where)
    logging.getLogger().setLevel(settings.log_level.upper())
    with LiveService(settings) as service:
        _run(service, config, Console(stderr=json_path == "-"))


def _merge(values: dict[str, Any], section: str, fields: dict[str, Any]) -> None:
    """Put the fields that were chosen on the command line into a section."""
    chosen = {name: value for name, value in fields.items() if value is not None}
    if chosen:
        old = values.get(section)
        values[section] = {**(old if isinstance(old, dict) else {}), **chosen}


def _check(values: dict[str, Any], where: object) -> None:
    """Name every fault on standard error, and exit with 2 if there is one."""
    found = all_faults(values, where)
    console = Console(stderr=bool(found))
    for fault in found:
        console.print(str(fault), markup=False, highlight=False, soft_wrap=True)
    if found:
        raise typer.Exit(2)
    console.print("the configuration is right", highlight=False)


def _run(service: LiveService, config: Path | None, console: Console) -> None:
    """Run until the source ends or a signal asks for the end."""

    def end(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=service.stop, daemon=True).start()  # a lock may be held in the interrupted code

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        service.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
