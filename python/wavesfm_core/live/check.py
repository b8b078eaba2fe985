# SPDX-License-Identifier: GPL-3.0-or-later
"""What `wavesfm live --check` finds: faults of the configuration, and of the files and packages that it names."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..errors import ConfigurationError, WavesfmError
from ..packages import REQUIREMENTS, install_command
from .config import LEAST_TOKEN, LiveConfig, all_faults, read_secret
from .scan.plan import plan_faults
from .yaml_file import load_yaml

PACKAGES = {"zmq": "zmq", "mqtt": "paho", "prometheus": "prometheus_client"}
"""Package of an output's kind."""
RADIOS = {"soapy": "SoapySDR", "uhd": "uhd", "zmq": "zmq"}
"""Package of a source's kind."""


def check(values: Any, where: object) -> list[WavesfmError]:
    """One error for each fault; no device, port or broker is touched."""
    found: list[WavesfmError] = list(all_faults(values, where))
    if found:
        return found
    config = LiveConfig.from_values(values, where)
    found += _model_faults(config)
    found += _packages(config, where)
    secrets = [
        Path(output[name]) for output in config.outputs for name in ("token_file", "password_file") if name in output
    ]
    for path in secrets:
        found += _secret(path, 1)
    if config.web is not None and config.web.token_file is not None:
        found += _secret(config.web.token_file, LEAST_TOKEN)
    if config.source.kind == "file" and not Path(config.source.address).exists():
        found.append(ConfigurationError(where, "source.address", repr(config.source.address), "a recording"))
    for name, path in _written(config):
        folder = path if path.is_dir() else path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            found.append(ConfigurationError(where, name, str(path), "a place that can be written"))
    if config.scan is not None:
        try:
            found += plan_faults(load_yaml(config.scan.plan), config.scan.plan)
        except WavesfmError as error:
            found.append(error)
    return found


def _model_faults(config: LiveConfig) -> list[WavesfmError]:
    try:
        bundle = Bundle.open(config.model.bundle)
    except WavesfmError as error:
        return [error]
    known = bundle.spec.head.labels
    triggers = () if config.record is None else config.record.triggers
    return [
        ConfigurationError("record", f"triggers.{number}.label", repr(trigger["label"]), "one of " + ", ".join(known))
        for number, trigger in enumerate(triggers)
        if "label" in trigger and trigger["label"] not in known
    ]


def _packages(config: LiveConfig, where: object) -> list[WavesfmError]:
    needed = {f"outputs.{i}": PACKAGES.get(each["kind"]) for i, each in enumerate(config.outputs)}
    needed["source.kind"] = RADIOS.get(config.source.kind)
    needed["web"] = None if config.web is None else "aiohttp"
    return [
        ConfigurationError(where, place, f"no package {name}", _advice(name))
        for place, name in needed.items()
        if name is not None and importlib.util.find_spec(name) is None
    ]


def _advice(name: str) -> str:
    return install_command(name) if name in REQUIREMENTS else f"{name} with Python support"


def _secret(path: Path, least: int) -> list[WavesfmError]:
    """Faults of a file with a secret: it cannot be read, is too short, or others may read it."""
    try:
        read_secret(path, least)
    except ConfigurationError as error:
        return [error]
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        return [ConfigurationError(path, "permissions", f"{mode:03o}", "a file that others cannot read, such as 600")]
    return []


def _written(config: LiveConfig) -> list[tuple[str, Path]]:
    """Places that are written to, with their fields."""
    places = [
        (f"outputs.{number}.path", Path(output["path"]))
        for number, output in enumerate(config.outputs)
        if output.get("path", "-") != "-"
    ]
    if config.record is not None:
        folder = config.record.folder
        places.append(("record.folder", folder if folder.exists() else folder.absolute().parent))
    if config.scan is not None and config.scan.occupancy is not None:
        places.append(("scan.occupancy", config.scan.occupancy))
    return places
