# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources from their options in a configuration."""

from __future__ import annotations

from ..block import Source
from ..config import SourceConfig
from .recorded import open_file, open_stdin


def open_source(config: SourceConfig) -> Source:
    """The source of a configuration that `LiveConfig.from_values` has checked.

    Raises
    ------
    InputError
        The recording or the device cannot be opened.
    ConfigurationError
        A package is missing.
    """
    if config.kind == "file":
        where = (config.address, config.rate_hz, config.format, config.centre_hz)
        return open_file(*where, realtime=config.realtime, loop=config.loop)
    return open_stdin(config.rate_hz, config.format, config.centre_hz)
