# SPDX-License-Identifier: GPL-3.0-or-later
"""USRPs by UHD."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConfigurationError
from ...types import StreamTime
from ..block import block_samples
from .device import RadioSource, Received

TIMEOUT_S = 0.2


class UHDDevice:
    """The first receive channel of a USRP, as cs16.

    Parameters
    ----------
    library : module
        uhd.
    arguments : str
        Such as type=b200; "" for the first device.
    gain_db : float or "auto"
        "auto" leaves the device's default.
    antenna : str
        "" for the default.
    """

    sample_format = "cs16"
    settle_s = 0.02

    def __init__(self, library: Any, arguments: str, gain_db: float | str, antenna: str) -> None:
        self._library = library
        try:
            self._radio = library.usrp.MultiUSRP(arguments)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if antenna:
            self._radio.set_rx_antenna(antenna, 0)
        if gain_db != "auto":
            self._radio.set_rx_gain(float(gain_db), 0)
        options = library.usrp.StreamArgs("sc16", "sc16")
        options.channels = [0]
        self._stream = self._radio.get_rx_stream(options)
        self._metadata = library.types.RXMetadata()
        self._started = False
        self._block = 1 << 14

    def tune(self, centre_hz: float, rate_hz: float) -> float:
        """See `Device.tune`."""
        if rate_hz != self._radio.get_rx_rate(0):
            self._radio.set_rx_rate(rate_hz, 0)
        self._radio.set_rx_freq(self._library.types.TuneRequest(centre_hz), 0)
        self._block = block_samples(rate_hz)
        if not self._started:
            self._command(self._library.types.StreamMode.start_cont)
            self._started = True
        return float(self._radio.get_rx_rate(0))

    def read(self) -> Received:
        """See `Device.read`. UHD reports an overflow once; the time of the next samples shows the loss."""
        buffer = np.empty((1, self._block), np.int32)
        count = self._stream.recv(buffer, self._metadata, TIMEOUT_S)
        code, codes = self._metadata.error_code, self._library.types.RXMetadataErrorCode
        if code in (codes.timeout, codes.overflow) or (code == codes.none and count == 0):
            return Received(np.zeros(0, np.uint8))
        if code != codes.none:
            raise OSError(f"UHD reports: {self._metadata.strerror()}")
        time = None
        if self._metadata.has_time_spec:
            spec = self._metadata.time_spec
            time = StreamTime(int(spec.get_full_secs()), float(spec.get_frac_secs()))
        return Received(buffer[0, :count].view(np.uint8), time)

    def close(self) -> None:
        """See `Device.close`."""
        if self._started:
            self._command(self._library.types.StreamMode.stop_cont)

    def _command(self, mode: Any) -> None:
        command = self._library.types.StreamCMD(mode)
        command.stream_now = True
        self._stream.issue_stream_cmd(command)


def open_uhd(
    arguments: str, centre_hz: float, rate_hz: float, gain_db: float | str = "auto", antenna: str = ""
) -> RadioSource:
    """A USRP; raises InputError where it cannot be opened, ConfigurationError without UHD."""
    try:
        import uhd
    except ImportError as error:
        expected = "UHD with Python support (Debian: python3-uhd)"
        raise ConfigurationError("source uhd", "library uhd", error, expected) from error
    name = f"uhd {arguments}".strip()
    return RadioSource(name, lambda: UHDDevice(uhd, arguments, gain_db, antenna), centre_hz, rate_hz)
