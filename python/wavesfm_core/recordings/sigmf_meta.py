# SPDX-License-Identifier: GPL-3.0-or-later
"""SigMF metadata, read and validated by the `sigmf` library."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, InputError
from ..packages import install_command

META, DATA = ".sigmf-meta", ".sigmf-data"
META_LIMIT = 64 << 20  # bytes


def meta_path_of(path: Path) -> Path | None:
    """The metadata file that `path` means: itself, beside its data, or with .sigmf-meta added; None for a raw file."""
    if path.name.endswith(META):
        return path
    if path.name.endswith(DATA):
        return path.with_name(path.name.removesuffix(DATA) + META)
    beside = path.with_name(path.name + META) if path.name else path
    return beside if not path.exists() and beside.is_file() else None


def load_meta(path: Path) -> dict[str, Any]:
    """Read and validate a .sigmf-meta file; InputError names the field, ConfigurationError a missing library."""
    try:
        if path.stat().st_size > META_LIMIT:
            raise InputError(path, "size", f"{path.stat().st_size} bytes", f"at most {META_LIMIT} bytes")
        meta = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "SigMF metadata") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, "contents", f"no JSON ({error})"[:200], "SigMF metadata") from None
    validate_meta(meta, path)
    return meta


def validate_meta(meta: Any, path: Path) -> None:
    """Raise InputError, naming the field, unless the metadata follows the SigMF schema."""
    try:
        import sigmf.validate
    except ImportError as error:
        raise ConfigurationError(path, "library sigmf", error, install_command("sigmf")) from error
    for section, kind in (("global", dict), ("captures", list), ("annotations", list)):
        if not isinstance(meta, dict) or not isinstance(meta.get(section), kind):
            raise InputError(
                path, section, "nothing of the kind", "SigMF metadata has global, captures and annotations"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # undeclared extensions: no fault of the reader
            sigmf.validate.validate(meta)
    except Exception as error:  # jsonschema's ValidationError, without importing jsonschema for its name
        field = ".".join(map(str, getattr(error, "absolute_path", ()))) or "metadata"
        found = str(getattr(error, "message", error)).splitlines()[0][:200]
        raise InputError(path, field, found, "metadata as the SigMF schema has it") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
