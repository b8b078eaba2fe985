# SPDX-License-Identifier: GPL-3.0-or-later
"""What sources of radios have in common: retunes from another thread, reads with a limit, times, losses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ...errors import InputError, WavesfmError
from ...recordings.sample_formats import FORMATS, RawBytes
from ...types import StreamTime
from ..block import SampleBlock

NOTHING_S = 5.0  # without a sample, until a device counts as broken
RECOVER_S = (0.5, 30.0)  # first and longest wait until a broken device is opened again


class Received(NamedTuple):
    """What one read of a device gave."""

    raw: RawBytes
    """uint8; empty when the wait was over."""
    time: StreamTime | None = None
    """Of the first sample, where the device tells it."""
    lost: int = 0
    """Samples that the device lost before these; where it cannot tell, their time shows it."""


class Device(Protocol):
    """One opened radio, used by one thread."""

    sample_format: str
    """Of what `read` returns."""
    settle_s: float
    """Seconds of samples that are dropped after a change of tuning: they were received before it."""

    def tune(self, centre_hz: float, rate_hz: float) -> float:
        """Set both; returns the sample rate that the device really has."""
        ...

    def read(self) -> Received:
        """Wait a short while for samples. Raises OSError where the device is gone."""
        ...

    def close(self) -> None:
        """Free the device."""
        ...


class DeviceOpener(Protocol):
    """Opens a device."""

    def __call__(self) -> Device:
        """Raises WavesfmError or OSError where it cannot be opened."""
        ...


class RadioSource:
    """A source over a device that is opened again, with back-off, when it breaks.

    Parameters
    ----------
    description : str
        For people.
    open_device : DeviceOpener
        Called at the construction, and after the device has broken.
    centre_hz, rate_hz : float
        First tuning.

    Raises
    ------
    InputError
        The device cannot be opened.
    """

    is_live = True

    def __init__(self, description: str, open_device: DeviceOpener, centre_hz: float, rate_hz: float) -> None:
        self.description = description
        self._open_device = open_device
        self._lock = threading.Lock()  # guards `_wanted`
        self._wanted: tuple[float, float] | None = (centre_hz, rate_hz)
        self._tuning = (centre_hz, rate_hz)
        self._stopped = threading.Event()
        self._restarted = True  # whether the next block begins a stretch whose time is unknown
        self._device: Device | None = self._opened()

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`; it ends only after `stop`."""
        last_s = time.monotonic()
        to_drop = 0
        while not self._stopped.is_set():
            device = self._device or self._recovered()
            if device is None:
                return
            try:
                to_drop += self._retune(device)
                received = device.read()
                if not len(received.raw) and time.monotonic() - last_s > NOTHING_S:
                    raise TimeoutError(f"no samples for {NOTHING_S:g} s")
            except OSError:
                self._release()
                last_s = time.monotonic()
                continue
            if len(received.raw):
                last_s = time.monotonic()
                block = self._block(device, received)
                if to_drop:
                    to_drop = max(0, to_drop - block.n_samples)
                    self._restarted = True
                else:
                    self._restarted = False
                    yield block

    def tune(self, centre_hz: float, rate_hz: float | None = None) -> None:
        """See `TunableSource.tune`."""
        with self._lock:
            known = self._wanted or self._tuning
            self._wanted = (centre_hz, known[1] if rate_hz is None else rate_hz)

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source.close`."""
        self._release()

    def _opened(self) -> Device:
        try:
            return self._open_device()
        except OSError as error:
            raise InputError(self.description, "device", error, "a radio that can be opened") from error

    def _retune(self, device: Device) -> int:
        """Tune if that was asked for; returns the samples to drop."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is None:
            return 0
        self._tuning = (wanted[0], device.tune(*wanted))
        return round(device.settle_s * self._tuning[1])

    def _block(self, device: Device, received: Received) -> SampleBlock:
        centre_hz, rate_hz = self._tuning
        at = received.time
        if at is None and self._restarted:  # this machine's clock tells when the last sample arrived
            n_samples = len(received.raw) // FORMATS[device.sample_format].sample_bytes
            now_s = time.time() - n_samples / rate_hz
            at = StreamTime(int(now_s), now_s % 1.0)
        return SampleBlock(received.raw, device.sample_format, rate_hz, centre_hz, at, received.lost)

    def _release(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()
        with self._lock:
            self._wanted = self._wanted or self._tuning
        self._restarted = True

    def _recovered(self) -> Device | None:
        """Open the device again; None after `stop`."""
        wait_s = RECOVER_S[0]
        while not self._stopped.wait(wait_s):
            try:
                self._device = self._opened()
            except WavesfmError:
                wait_s = min(2 * wait_s, RECOVER_S[1])
                continue
            return self._device
        return None
