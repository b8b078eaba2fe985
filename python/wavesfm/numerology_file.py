# SPDX-License-Identifier: GPL-3.0-or-later
"""The numerology of a block: from a model bundle, or from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.errors import ConfigurationError

BYTES_LIMIT = 1 << 24


def read_numerology(path: str | Path) -> OFDMSpec:
    """Return the numerology of a JSON file with the fields of `OFDMSpec`.

    Raises ConfigurationError for a file that cannot be read or is no JSON, and BundleError for a wrong field.
    """
    if not str(path):
        raise ConfigurationError("numerology", "file", "nothing", "a JSON file, or a bundle in its place")
    try:
        if Path(path).stat().st_size > BYTES_LIMIT:
            raise ConfigurationError(path, "size", "more than 16 MiB", "a JSON file of a numerology")
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(path, "file", error.strerror or error, "a file that can be read") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(path, "contents", error, "JSON") from None
    return from_dict(OFDMSpec, values, str(path))


def numerology_of(bundle: str | Path, numerology: str | Path) -> OFDMSpec:
    """Return the numerology of a bundle's directory or, where that is "", of a JSON file. Raises WavesfmError."""
    if not str(bundle):
        return read_numerology(numerology)
    return Bundle.open(bundle).preprocess_as(PilotGridSpec, "a numerology is asked for").numerology


def require_size(block: str, field: str, size: int, needed: int) -> None:
    """Raise ConfigurationError unless a size that a flowgraph was drawn for is the numerology's, or 0 for any."""
    if size not in (0, needed):
        raise ConfigurationError(block, field, size, f"{needed}, as the numerology has")
