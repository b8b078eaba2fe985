# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of a run's files, and the reading of its JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wavesfm_core.errors import InputError

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def weights_file(path: Path) -> Path:
    """Return the weights of a run directory, or `path` itself if it is no directory."""
    return path / WEIGHTS if path.is_dir() else path


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    InputError : the file is missing, is no JSON, or holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, "content", str(error)[:200], "JSON") from None
    if not isinstance(values, dict):
        raise InputError(path, "content", type(values).__name__, "an object")
    return values


def read_config(run: Path) -> dict[str, Any]:
    """Read config.json beside a run's weights; empty if there is none. Raises InputError."""
    path = weights_file(run).with_name(CONFIG)
    return read_object(path) if path.is_file() else {}
