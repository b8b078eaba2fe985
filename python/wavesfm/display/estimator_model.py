# SPDX-License-Identifier: GPL-3.0-or-later
"""What the estimator display shows: quality over time and the last channel over delay and angle; no Qt."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .health import Health

CURVES = ("snr_db", "nmse_db", "residual")
PADDING = 4  # of the transforms over antennas and subcarriers
RANGE_DB = 35.0
MOST_SIDE = 512


@dataclass(frozen=True)
class EstimatorSnapshot:
    """What the window draws at one moment."""

    curves: Mapping[str, NDArray[np.float64]]
    """By the names in CURVES: the last values, NaN where one was not measured."""
    backed_off: NDArray[np.bool_]
    """Of the same estimates: whether least squares replaced the method."""
    method: str
    """Of the last estimate."""
    estimates: int
    """That came so far."""
    picture_db: NDArray[np.float32]
    """[angles, delays] of the last channel, 0 at its peak, down to -RANGE_DB."""


class EstimatorModel:
    """Quality and channel of the last estimates; each method may be called on any thread.

    Parameters
    ----------
    history : int
        Estimates in the curves.
    """

    def __init__(self, history: int = 400) -> None:
        self._lock = threading.Lock()
        self._curves = {name: deque[float](maxlen=history) for name in CURVES}
        self._backed_off = deque[bool](maxlen=history)
        self._channel: NDArray[np.complex64] = np.zeros((1, 1), np.complex64)
        self._method, self._estimates = "", 0
        self.health = Health()

    @property
    def estimates(self) -> int:
        """Estimates that came so far."""
        return self._estimates

    def restart(self) -> None:
        """Begin a run."""
        with self._lock:
            for curve in (*self._curves.values(), self._backed_off):
                curve.clear()

    def take_channel(self, facts: Mapping[str, Any], channel: NDArray[np.complex64]) -> None:
        """Take in one estimate.

        Parameters
        ----------
        facts : mapping
            The dict of the PDU, see `pdus.estimate_to_pmt`.
        channel : complex64 [antennas, symbols, subcarriers]
            The estimate.

        Raises
        ------
        ValueError
            For an array of another form.
        """
        if channel.ndim != 3 or not channel.size:
            raise ValueError(f"channel: found shape {channel.shape}, expected [antennas, symbols, subcarriers]")
        with self._lock:
            for name, curve in self._curves.items():
                value = facts.get(name)
                curve.append(np.nan if value is None else float(value))
            self._backed_off.append(bool(facts.get("backed_off")))
            self._channel = channel[:, channel.shape[1] // 2]
            self._method, self._estimates = str(facts.get("method", "")), self._estimates + 1
            self.health.take_lag(facts.get("latency_s"))

    def take_status(self, record: Mapping[str, Any]) -> None:
        """Take in a status message."""
        with self._lock:
            self.health.take_status(record)

    def snapshot(self) -> EstimatorSnapshot:
        """What is to be drawn now."""
        with self._lock:
            curves = {name: np.array(curve) for name, curve in self._curves.items()}
            backed_off, channel = np.array(self._backed_off, bool), self._channel
            facts = (self._method, self._estimates)
        return EstimatorSnapshot(curves, backed_off, *facts, delay_angle(channel))


def delay_angle(channel: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Power over angle and delay in dB, 0 at the peak, down to -RANGE_DB.

    Parameters
    ----------
    channel : complex64 [antennas, subcarriers]
        Of one symbol.

    Returns
    -------
    float32 [angles, delays]
        Angles: sine of the angle of arrival at an array with half a wavelength between antennas, -1 to 1. Delays: the
        first half of the reciprocal of the subcarrier spacing.
    """
    antennas, subcarriers = (min(side, MOST_SIDE) for side in channel.shape)
    seen = np.nan_to_num(channel[:antennas, :subcarriers])
    seen = seen * np.hanning(antennas + 2)[1:-1, None] * np.hanning(subcarriers + 2)[1:-1]
    delays = np.fft.ifft(seen, PADDING * subcarriers, axis=1)[:, : max(1, PADDING * subcarriers // 2)]
    angles = np.fft.fftshift(np.fft.fft(delays, PADDING * antennas, axis=0), axes=0)
    power = angles.real**2 + angles.imag**2
    peak = power.max()
    if not peak > 0:
        return np.full(power.shape, -RANGE_DB, np.float32)
    return np.maximum(10 * np.log10(np.maximum(power / peak, 1e-12)), -RANGE_DB).astype(np.float32)
