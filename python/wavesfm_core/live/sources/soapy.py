# SPDX-License-Identifier: GPL-3.0-or-later
"""Radios by SoapySDR."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConfigurationError
from ...types import StreamTime
from ..block import block_samples
from .device import RadioSource, Received

TIMEOUT_US = 200_000
FORMATS = {"CS16": "cs16", "CS8": "cs8", "CF32": "cf32"}  # in the order of preference
TYPES = {"cs16": np.int16, "cs8": np.int8, "cf32": np.float32}


class SoapyDevice:
    """A receive channel. Samples are taken in the device's native format where this project reads it.

    Parameters
    ----------
    library : module
        SoapySDR.
    arguments : str
        Such as driver=airspy; "" for the first device.
    gain_db : float or "auto"
        Gain of the whole chain.
    antenna : str
        "" for the default.
    """

    settle_s = 0.02

    def __init__(self, library: Any, arguments: str, gain_db: float | str, antenna: str) -> None:
        self._library = library
        try:
            self._device = library.Device(arguments)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._receive = library.SOAPY_SDR_RX
        if antenna:
            self._device.setAntenna(self._receive, 0, antenna)
        if gain_db == "auto":
            if self._device.hasGainMode(self._receive, 0):
                self._device.setGainMode(self._receive, 0, True)
        else:
            self._device.setGain(self._receive, 0, float(gain_db))
        native = self._device.getNativeStreamFormat(self._receive, 0)[0]
        name = native if native in ("CS16", "CS8") else "CF32"
        self.sample_format = FORMATS[name]
        self._stream = self._device.setupStream(self._receive, name)
        self._active = False
        self._block = 1 << 14

    def tune(self, centre_hz: float, rate_hz: float) -> float:
        """See `Device.tune`."""
        self._device.setSampleRate(self._receive, 0, rate_hz)
        self._device.setFrequency(self._receive, 0, centre_hz)
        rate_hz = float(self._device.getSampleRate(self._receive, 0))
        self._block = block_samples(rate_hz)
        if not self._active:
            self._device.activateStream(self._stream)
            self._active = True
        return rate_hz

    def read(self) -> Received:
        """See `Device.read`. After an overflow the time of the next samples shows the loss, or nothing does."""
        library = self._library
        buffer = np.empty(2 * self._block, TYPES[self.sample_format])
        status = self._device.readStream(self._stream, [buffer], self._block, timeoutUs=TIMEOUT_US)
        if status.ret in (library.SOAPY_SDR_TIMEOUT, library.SOAPY_SDR_OVERFLOW, 0):
            return Received(np.zeros(0, np.uint8))
        if status.ret < 0:
            raise OSError(f"SoapySDR reports the error {status.ret}")
        time = None
        if status.flags & library.SOAPY_SDR_HAS_TIME:
            full_s, nanoseconds = divmod(int(status.timeNs), 10**9)
            time = StreamTime(full_s, nanoseconds / 1e9)
        return Received(buffer[: 2 * status.ret].view(np.uint8), time)

    def close(self) -> None:
        """See `Device.close`."""
        if self._active:
            self._device.deactivateStream(self._stream)
        self._device.closeStream(self._stream)


def open_soapy(
    arguments: str, centre_hz: float, rate_hz: float, gain_db: float | str = "auto", antenna: str = ""
) -> RadioSource:
    """A radio by SoapySDR; raises InputError where it cannot be opened, ConfigurationError without SoapySDR."""
    try:
        import SoapySDR
    except ImportError as error:
        expected = "SoapySDR with Python support (Debian: python3-soapysdr)"
        raise ConfigurationError("source soapy", "library SoapySDR", error, expected) from error
    name = f"soapy {arguments}".strip()
    return RadioSource(name, lambda: SoapyDevice(SoapySDR, arguments, gain_db, antenna), centre_hz, rate_hz)
