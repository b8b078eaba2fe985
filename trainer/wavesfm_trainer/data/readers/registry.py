# SPDX-License-Identifier: GPL-3.0-or-later
"""The readers of raw layouts by name. A module is imported only when its reader is requested."""

from __future__ import annotations

from importlib import import_module

from wavesfm_core.errors import ConfigurationError

from .base import Reader

# name as a task has it -> module of this package, attribute that is the Reader
READERS: dict[str, str] = {
    "ntu_fi_har": "ntu_fi:HAR",
    "ntu_fi_humanid": "ntu_fi:HUMAN_ID",
    "cfr_5g": "cfr_5g:READER",
    "nr_positioning": "nr_positioning:READER",
    "sionna_grids": "sionna_grids:READER",
    "rfs": "rfs:READER",
    "rf_images": "rf_images:READER",
    "authors_cache": "authors_cache:READER",
    "intel5300": "intel5300:READER",
    "esp32": "esp32:READER",
    "espectre": "espectre:READER",
    "dw1000": "dw1000:READER",
    "nexmon": "nexmon:READER",
    "feitcsi": "feitcsi:READER",
    "rml2018": "rml2018:READER",
    "iq_npz": "iq_npz:READER",
    "torchsig": "torchsig:READER",
}


def open_reader(name: str, task: str = "reader") -> Reader:
    """The reader of a name.

    Parameters
    ----------
    name : a key of READERS.
    task : named in errors.

    Raises
    ------
    ConfigurationError : an unknown name, or a reader whose libraries are not installed.
    """
    if name == "tiles":
        found = "tiles, which wavesfm-train generates and which need no preparation"
        raise ConfigurationError(task, "reader", found, "a reader of raw files")
    if name not in READERS:
        raise ConfigurationError(task, "reader", repr(name), f"one of {', '.join(READERS)}")
    module, _, attribute = READERS[name].partition(":")
    try:
        return getattr(import_module(f".{module}", __package__), attribute)
    except ImportError as error:
        raise ConfigurationError(
            task, f"reader {name}", f"it cannot be loaded ({error})", "an installed reader"
        ) from None
