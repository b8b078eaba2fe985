# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources from their options in a configuration."""

from __future__ import annotations

from pathlib import Path

from ..block import Source
from ..config import SourceConfig
from .recorded import open_file, open_stdin
from .rtl import open_rtl
from .simulated import SimulatedRadio
from .soapy import open_soapy
from .uhd import open_uhd
from .waveforms import plant, read_scene
from .zmq_subscriber import ZMQSource

SIMULATED_BAND_HZ = (1e9, 2e9)
SIMULATED_RATE_HZ = 2.4e6


def open_source(config: SourceConfig, tuning: tuple[float, float] | None = None) -> Source:
    """The source of a configuration that `LiveConfig.from_values` has checked.

    tuning: first centre frequency and sample rate in Hz of a scan, in place of the configuration's.

    Raises
    ------
    InputError
        The recording or the device cannot be opened.
    ConfigurationError
        A package is missing.
    """
    centre_hz, rate_hz = (config.centre_hz, config.rate_hz) if tuning is None else tuning
    if config.kind == "file":
        return open_file(config.address, rate_hz, config.format, centre_hz, config.realtime, config.loop)
    if config.kind == "stdin":
        return open_stdin(rate_hz, config.format, centre_hz)
    if config.kind == "zmq":
        return ZMQSource(config.address, rate_hz or 0.0, centre_hz, config.format)
    if config.kind == "simulated":
        scene = read_scene(Path(config.address)) if config.address else plant(config.seed, *SIMULATED_BAND_HZ)
        first = (centre_hz or scene[0].centre_hz, rate_hz or SIMULATED_RATE_HZ)
        return SimulatedRadio(scene, *first, config.seed, realtime=config.realtime)
    radio = (config.address, centre_hz or 0.0, rate_hz or 0.0, config.gain_db)
    if config.kind == "rtl":
        return open_rtl(*radio)
    return (open_soapy if config.kind == "soapy" else open_uhd)(*radio, config.antenna)
