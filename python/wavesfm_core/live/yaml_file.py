# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML files that are checked against a JSON Schema, with one sentence for each fault."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..checks import shown
from ..errors import ConfigurationError
from ..packages import install_command

LIMIT = 1 << 20
"""Bytes of a file."""
_FLOAT = re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?([eE][-+]?\d+)?$|^[-+]?\.\d+([eE][-+]?\d+)?$")


def load_yaml(path: Path) -> Any:
    """The contents of a YAML file. Numbers such as 2.4e6 are numbers; anchors are refused. ConfigurationError."""
    try:
        if path.stat().st_size > LIMIT:
            raise ConfigurationError(path, "size", f"{path.stat().st_size} bytes", f"at most {LIMIT} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(path, "file", getattr(error, "strerror", error), "a YAML file") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, where: object) -> Any:
    """`load_yaml` of the text of a file."""
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(where, "library yaml", error, install_command("yaml")) from error

    # of YAML 1.1, but for floats, which are as in YAML 1.2: 2.4e6 is a number
    resolvers = {key: list(each) for key, each in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    loader: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigurationError(where, "contents", "an alias (*)", "YAML without aliases")
        return yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        found = " ".join(str(error).split())[:200]
        raise ConfigurationError(where, "contents", f"no YAML ({found})", "a YAML file") from None


def schema(name: str) -> dict[str, Any]:
    """A schema of this package, by its path in it."""
    file = resources.files(__package__).joinpath(*name.split("/"))
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def faults(where: object, values: Any, rules: Mapping[str, Any], place: str = "") -> list[ConfigurationError]:
    """One error for each fault of `values` by a schema; `place` is put before the names of fields."""
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigurationError(where, "library jsonschema", error, install_command("jsonschema")) from error
    found = jsonschema.Draft202012Validator(rules).iter_errors(values)
    named = {str(fault): fault for error in sorted(found, key=_order) for fault in _sentences(where, error, place)}
    return list(named.values())  # the validator reports a missing field once for each that is missing


def _order(error: Any) -> tuple[str, ...]:
    return tuple(map(str, error.absolute_path))


def _sentences(where: object, error: Any, place: str) -> Iterator[ConfigurationError]:
    """The faults of one error of the validator."""
    location = ".".join([*([place] if place else []), *map(str, error.absolute_path)])
    if error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                expected = error.schema.get("properties", {}).get(name, {}).get("description", "a value")
                yield ConfigurationError(where, _joined(location, name), "nothing", expected)
    elif error.validator == "additionalProperties" and error.schema.get("additionalProperties") is False:
        known = error.schema["properties"]
        for name in sorted(map(str, error.instance.keys() - known.keys())):
            yield ConfigurationError(where, _joined(location, name), "an unknown field", _names(name, known))
    else:
        expected = error.schema.get("description") or error.message
        yield ConfigurationError(where, location or "contents", shown(error.instance), expected)


def _joined(location: str, name: str) -> str:
    return f"{location}.{name}" if location else name


def _names(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return close[0] if close else "one of " + ", ".join(known)
