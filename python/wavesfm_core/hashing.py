# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA-256 of files and of JSON values, in hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; the file is read in blocks. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: object) -> str:
    """SHA-256 of a value as JSON with sorted keys, 64 hexadecimal digits; raises TypeError for other types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
