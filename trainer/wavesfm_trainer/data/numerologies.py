# SPDX-License-Identifier: GPL-3.0-or-later
"""Numerologies as data: a .yml file holds the OFDM slot parameters of an uplink."""

from __future__ import annotations

from pathlib import Path

import yaml
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import from_dict
from wavesfm_core.errors import ConfigurationError

NUMEROLOGIES = Path(__file__).parent / "numerologies"


def read_numerology(name_or_path: str | Path) -> OFDMSpec:
    """Read a numerology.

    Parameters
    ----------
    name_or_path : a .yml file with the fields of `OFDMSpec`, or the name of one in `numerologies/`.

    Raises
    ------
    ConfigurationError : no such file, or no YAML.
    BundleError : a field that is unknown, missing, of the wrong type, or contradicts another.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        path = NUMEROLOGIES / f"{name_or_path}.yml"
    if not path.is_file():
        expected = f"a .yml file or one of {', '.join(numerology_names())}"
        raise ConfigurationError(name_or_path, "numerology", "nothing", expected)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(path, "contents", " ".join(str(error).split())[:200], "YAML") from None
    return from_dict(OFDMSpec, values, str(path))


def numerology_names() -> list[str]:
    """Names of the numerologies in `numerologies/`."""
    return sorted(path.stem for path in NUMEROLOGIES.glob("*.yml"))
