# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm live`: name the signals of a running source."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import ConfigurationError, WavesfmError
from ..live.check import check as find_faults
from ..live.config import LiveConfig
from ..live.service import LiveService
from ..live.status import fault_of
from ..live.supervisor import notify
from ..live.yaml_file import load_yaml
from . import options as o
from .live_view import TerminalView
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
    scan: Annotated[Path | None, typer.Option("--scan", metavar="PLAN", help="Step through a plan (YAML).")] = None,
    terminal: Annotated[
        bool | None, typer.Option("--terminal/--no-terminal", help="Draw a table; automatic on a terminal.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration and name every fault.")] = False,
) -> None:
    """Name the signals of a radio, a stream or a recording while they are received."""
    source_fields = {
        "kind": source,
        "address": address,
        "rate_hz": hertz("--rate", rate),
        "centre_hz": hertz("--centre", centre),
        "format": sample_format,
        "gain_db": gain,
        "realtime": realtime or None,
        "loop": loop or None,
    }

    def merged() -> dict[str, Any]:
        values = _read(config)
        _merge(values, "source", source_fields)
        _merge(values, "model", {"bundle": None if model is None else str(model), "device": device})
        _merge(values, "web", {"listen": web})
        _merge(values, "scan", {"plan": None if scan is None else str(scan)})
        if json_path is not None:
            values["outputs"] = [*values.get("outputs", []), {"kind": "json", "path": json_path}]
        return values

    where: object = config or "command line"
    if check:
        _check(merged(), where)
        return
    settings = LiveConfig.from_values(merged(), where)
    logging.getLogger().setLevel(settings.log_level.upper())
    console = Console(stderr=json_path == "-")
    with LiveService(settings) as service:
        show = console.is_terminal if terminal is None else terminal
        view = TerminalView(service.session, console) if show else None
        if view is not None:
            service.on_status.append(view.take_status)
            service.session.bus.add(view.take_record)
        elif service.server is not None:
            console.print(f"page at http://{settings.web.host}:{service.server.port}/" if settings.web else "")
        _run(service, lambda: _reload(service, config, merged), view)


def _read(config: Path | None) -> dict[str, Any]:
    """The values of a configuration file; raises ConfigurationError."""
    values = {} if config is None else load_yaml(config)
    if not isinstance(values, dict):
        raise ConfigurationError(config, "contents", type(values).__name__, "a mapping with source and model")
    return values


def _merge(values: dict[str, Any], section: str, fields: dict[str, Any]) -> None:
    """Put the fields that were chosen on the command line into a section."""
    chosen = {name: value for name, value in fields.items() if value is not None}
    if chosen:
        old = values.get(section)
        values[section] = {**(old if isinstance(old, dict) else {}), **chosen}


def _check(values: dict[str, Any], where: object) -> None:
    """Name every fault on standard error, and exit with 2 if there is one."""
    found = find_faults(values, where)
    console = Console(stderr=bool(found))
    for fault in found:
        console.print(" ".join(str(fault).split()), markup=False, highlight=False, soft_wrap=True)
    if found:
        raise typer.Exit(2)
    console.print("the configuration is right", highlight=False)


def _run(service: LiveService, reload: Callable[[], object], view: TerminalView | None) -> None:
    """Run until the source ends or a signal asks for the end; SIGHUP reloads."""

    def on_thread(call: Callable[[], object]) -> Callable[[int, FrameType | None], None]:
        # a lock may be held in the code that the signal interrupts
        return lambda number, frame: threading.Thread(target=call, daemon=True).start()

    calls = {signal.SIGINT: service.stop, signal.SIGTERM: service.stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, on_thread(call)) for number, call in calls.items()}
    service.on_status.append(lambda status: notify("WATCHDOG=1") if not fault_of(status) else False)
    notify("READY=1")
    try:
        with view or contextlib.nullcontext():
            service.run()
    finally:
        notify("STOPPING=1")
        for number, handler in before.items():
            signal.signal(number, handler)


def _reload(service: LiveService, config: Path | None, merged: Callable[[], dict[str, Any]]) -> None:
    """Take over the model and the log level of the configuration, which is read again."""
    notify("RELOADING=1")
    try:
        settings = LiveConfig.from_values(merged(), config or "command line")
    except WavesfmError as error:
        service.session.warn(f"the old configuration goes on: {error}")
    else:
        logging.getLogger().setLevel(settings.log_level.upper())
        service.reload(settings.model)
    notify("READY=1")
