# SPDX-License-Identifier: GPL-3.0-or-later
"""RTL-SDR receivers: over the network by the protocol of rtl_tcp, or by librtlsdr on this machine."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import numpy as np

from ...errors import ConfigurationError, InputError
from ..block import block_samples
from ..config import split_address
from .device import RadioSource, Received

PORT = 1234
ANSWER_S = 5.0  # for the connection and the greeting
READ_S = 0.2
GREETING = 12  # bytes: "RTL0", type of the tuner, number of gains
FREQUENCY, RATE, GAIN_MODE, GAIN, TUNER_AGC = 0x01, 0x02, 0x03, 0x04, 0x08


class RTLTCPDevice:
    """A connection to rtl_tcp, which sends cu8 without times.

    Parameters
    ----------
    host, port : str, int
        Of rtl_tcp.
    gain_db : float or "auto"
        Gain of the tuner.

    Raises
    ------
    OSError
        Nobody answers.
    InputError
        The peer is no rtl_tcp.
    """

    sample_format = "cu8"
    settle_s = 0.1  # rtl_tcp and the network hold samples of the old tuning

    def __init__(self, host: str, port: int, gain_db: float | str) -> None:
        self._socket = socket.create_connection((host, port), ANSWER_S)
        try:
            greeting = self._greeting()
            if greeting[:4] != b"RTL0":
                raise InputError(f"{host}:{port}", "greeting", repr(greeting), "that of rtl_tcp, RTL0")
            automatic = gain_db == "auto"
            self._command(GAIN_MODE, 0 if automatic else 1)
            self._command(TUNER_AGC, 1 if automatic else 0)
            if not automatic:
                self._command(GAIN, round(10 * float(gain_db)))
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(READ_S)
        self._read_bytes = 2 << 14
        self._rest = b""

    def tune(self, centre_hz: float, rate_hz: float) -> float:
        """See `Device.tune`."""
        self._command(RATE, round(rate_hz))
        self._command(FREQUENCY, round(centre_hz))
        self._read_bytes = 2 * block_samples(rate_hz)
        return float(round(rate_hz))

    def read(self) -> Received:
        """See `Device.read`."""
        try:
            data = self._socket.recv(self._read_bytes)
        except TimeoutError:
            return Received(np.zeros(0, np.uint8))
        if not data:
            raise ConnectionError("rtl_tcp has closed the connection")
        data = self._rest + data
        whole = len(data) // 2 * 2
        self._rest = data[whole:]
        return Received(np.frombuffer(data[:whole], np.uint8))

    def close(self) -> None:
        """See `Device.close`."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _greeting(self) -> bytes:
        greeting = b""
        while len(greeting) < GREETING:
            data = self._socket.recv(GREETING - len(greeting))
            if not data:
                raise ConnectionError("the peer has closed the connection without a greeting")
            greeting += data
        return greeting

    def _command(self, code: int, value: int) -> None:
        self._socket.sendall(struct.pack(">Bi", code, value) if value < 0 else struct.pack(">BI", code, value))


class RTLDevice:
    """A receiver on this machine, by the package pyrtlsdr."""

    sample_format = "cu8"
    settle_s = 0.05

    def __init__(self, library: Any, index: int, gain_db: float | str) -> None:
        self._device = library.RtlSdr(index)
        self._device.gain = gain_db
        self._read_bytes = 2 << 14

    def tune(self, centre_hz: float, rate_hz: float) -> float:
        """See `Device.tune`."""
        self._device.sample_rate = rate_hz
        self._device.center_freq = centre_hz
        self._read_bytes = max(512, 2 * block_samples(rate_hz) // 512 * 512)
        return float(self._device.sample_rate)

    def read(self) -> Received:
        """See `Device.read`."""
        return Received(np.array(self._device.read_bytes(self._read_bytes), np.uint8))

    def close(self) -> None:
        """See `Device.close`."""
        self._device.close()


def open_rtl(address: str, centre_hz: float, rate_hz: float, gain_db: float | str = "auto") -> RadioSource:
    """A receiver at HOST:PORT or HOST by rtl_tcp, or by its index on this machine ("" for the first).

    Raises
    ------
    InputError
        The receiver cannot be opened.
    ConfigurationError
        The package pyrtlsdr is missing.
    """
    if address and not address.isdigit():
        host, port = split_address(address) if ":" in address else (address, PORT)
        return RadioSource(f"rtl_tcp {host}:{port}", lambda: RTLTCPDevice(host, port, gain_db), centre_hz, rate_hz)
    try:
        import rtlsdr
    except ImportError as error:
        expected = "pip install pyrtlsdr, or the address HOST:PORT of rtl_tcp"
        raise ConfigurationError("source rtl", "library rtlsdr", error, expected) from error
    index = int(address or 0)
    return RadioSource(f"rtl {index}", lambda: RTLDevice(rtlsdr, index, gain_db), centre_hz, rate_hz)
