# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated OFDM uplink: QPSK slots through saved channels with noise, and files of channels."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..atomic_file import atomic_path
from ..bundle.npz import load_arrays
from ..bundle.ofdm_spec import QPSK, OFDMSpec
from ..bundle.spec import from_dict
from ..errors import BundleError, ConfigurationError, InputError
from ..types import Samples

FILE_LIMIT = 2 << 30
"""Most bytes of the file, and of its arrays."""


class UplinkSlot(NamedTuple):
    """One simulated slot."""

    samples: Samples
    """Received samples, complex64 [A, slot_samples]."""
    sent: NDArray[np.complex64]
    """Transmitted symbols, complex64 [S, F]."""
    channel: NDArray[np.complex64]
    """Channel, complex64 [A, S, F]."""


class UplinkSource:
    """Slots of one user to A antennas: known pilots and random QPSK through saved channels, with noise.

    Each symbol has a frequency response; echoes do not reach the next symbol.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.
    channels : ndarray
        complex64 [T, A, S, F] of successive slots. They are passed symbol by symbol to the end and back, so that the
        channel never jumps.
    snr_db : float
        SNR of a grid element whose channel has power 1; infinite for no noise. May be set at any time.
    seed : int
        Seed of data and noise.
    speed : float
        Saved symbols by which the channel moves in one symbol, interpolated linearly: 2 is a user twice as fast as the
        saved one, 0 a static channel. May be set at any time.

    Raises
    ------
    InputError
        Channels of another type or shape, or with NaN or infinity.
    ConfigurationError
        An SNR that is not a number, or a negative or infinite speed.
    """

    def __init__(
        self, spec: OFDMSpec, channels: NDArray[Any], snr_db: float = 20.0, seed: int = 0, speed: float = 1.0
    ) -> None:
        self.spec = spec
        self._channels = _checked(channels, spec, "uplink")
        self._rng = np.random.default_rng(seed)
        self._at = 0.0  # saved symbol of the first symbol of the next slot
        self._pilots = np.ix_(np.array(spec.pilot_symbols), spec.pilot_subcarriers)
        # index of each sample of a slot with prefixes among the samples of the symbols without prefixes
        self._order = np.concatenate(
            [
                s * spec.fft_size + np.arange(-n, spec.fft_size) % spec.fft_size
                for s, n in enumerate(spec.prefix_samples)
            ]
        )
        self.snr_db = snr_db
        self.speed = speed

    @property
    def snr_db(self) -> float:
        """SNR in dB of a grid element whose channel has power 1."""
        return self._snr_db

    @snr_db.setter
    def snr_db(self, snr_db: float) -> None:
        if not snr_db > -math.inf:  # NaN too
            raise ConfigurationError("uplink", "snr_db", snr_db, "a number of decibels")
        self._snr_db = float(snr_db)
        self._noise = np.float32(10 ** (-self._snr_db / 20) / math.sqrt(2))  # of each part

    @property
    def speed(self) -> float:
        """Saved symbols by which the channel moves in one symbol."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        if not 0 <= speed < math.inf:
            raise ConfigurationError("uplink", "speed", speed, "0 or more")
        self._speed = float(speed)

    def slot(self) -> UplinkSlot:
        """Generate the next slot."""
        spec, channel = self.spec, self._next_channel()
        digits = self._rng.integers(4, size=(spec.symbols, spec.subcarriers))
        sent = QPSK[digits].astype(np.complex64)
        sent[self._pilots] = spec.pilots
        spectra = np.zeros((spec.antennas, spec.symbols, spec.fft_size), np.complex64)
        spectra[:, :, spec.bins] = sent * channel
        symbols = np.fft.ifft(spectra) * math.sqrt(spec.fft_size)  # complex128 in numpy 1
        samples = symbols.reshape(spec.antennas, -1).astype(np.complex64)[:, self._order]
        noise = self._rng.standard_normal((*samples.shape, 2), dtype=np.float32) * self._noise
        return UplinkSlot(samples + noise.view(np.complex64)[..., 0], sent, channel)

    def _next_channel(self) -> NDArray[np.complex64]:
        """Channels [A, S, F] at S places among the T * S saved symbols, forwards and backwards."""
        count, symbols = len(self._channels), self.spec.symbols
        places = (self._at + self._speed * np.arange(symbols)) % (2 * count * symbols)
        self._at = (self._at + self._speed * symbols) % (2 * count * symbols)
        places = np.minimum(np.minimum(places, 2 * count * symbols - 1 - places).clip(0), count * symbols - 1)
        lower = np.floor(places).astype(np.int64)
        upper = np.minimum(lower + 1, count * symbols - 1)
        part = (places - lower).astype(np.float32)[:, None, None]
        before, after = (self._channels[at // symbols, :, at % symbols] for at in (lower, upper))  # [S, A, F]
        return np.ascontiguousarray((before + part * (after - before)).transpose(1, 0, 2))


def save_channels(path: str | Path, channels: NDArray[Any], spec: OFDMSpec) -> None:
    """Write channels and their numerology as an npz, atomically.

    The arrays are channels, float16 [T, A, S, F, 2] (real and imaginary part), and numerology, uint8 (JSON).

    Parameters
    ----------
    path : str or Path
        File to write.
    channels : ndarray
        complex64 [T, A, S, F]; rounded to float16.
    spec : OFDMSpec
        Parameters of the slots.

    Raises
    ------
    InputError
        Another type or shape, or values beyond float16.
    """
    checked = _checked(channels, spec, str(path))
    parts = checked.view(np.float32).reshape(*checked.shape, 2)
    largest = float(np.abs(parts).max())
    if largest > np.finfo(np.float16).max:
        raise InputError(path, "channels", f"values up to {largest:g}", "at most 65504, what float16 holds")
    text = json.dumps(dataclasses.asdict(spec)).encode()
    with atomic_path(path) as scratch, scratch.open("wb") as file:  # savez would add .npz to a name without it
        np.savez(file, channels=parts.astype(np.float16), numerology=np.frombuffer(text, np.uint8))


def load_channels(path: str | Path, spec: OFDMSpec | None = None) -> tuple[NDArray[np.complex64], OFDMSpec]:
    """Read a file of `save_channels` without pickle, sizes checked before allocation.

    Parameters
    ----------
    path : str or Path
        The file.
    spec : OFDMSpec, optional
        Required numerology; its pilots may differ, as channels do not depend on them.

    Returns
    -------
    channels : ndarray
        complex64 [T, A, S, F].
    spec : OFDMSpec
        Numerology of the file.

    Raises
    ------
    InputError
        Names the file and the fault.
    """
    arrays = load_arrays(Path(path), FILE_LIMIT, InputError)
    found = _numerology(arrays, path)
    if spec is not None:
        spec.require(found, str(path), but_pilots=True)
    parts = arrays.get("channels")
    if parts is None or parts.dtype != np.float16 or parts.ndim != 5 or parts.shape[-1] != 2:
        what = "nothing" if parts is None else f"{parts.dtype} {parts.shape}"
        raise InputError(path, "channels", what, "float16 [slots, antennas, symbols, subcarriers, 2]")
    channels = np.ascontiguousarray(parts, np.float32).view(np.complex64)[..., 0]
    return _checked(channels, found, str(path)), found


def _numerology(arrays: dict[str, NDArray[Any]], path: str | Path) -> OFDMSpec:
    text = arrays.get("numerology")
    if text is None or text.dtype != np.uint8 or text.ndim != 1:
        raise InputError(path, "numerology", "nothing" if text is None else f"{text.dtype} {text.shape}", "JSON, uint8")
    try:
        return from_dict(OFDMSpec, json.loads(text.tobytes()), str(path))
    except BundleError as error:
        raise InputError(error.where, error.field, error.found, error.expected) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, "numerology", f"no JSON ({error})"[:120], "JSON, uint8") from None


def _checked(channels: NDArray[Any], spec: OFDMSpec, where: str) -> NDArray[np.complex64]:
    if not isinstance(channels, np.ndarray) or channels.dtype not in (np.complex64, np.complex128):
        found = getattr(channels, "dtype", type(channels).__name__)
        raise InputError(where, "channels", found, "a numpy array of complex64")
    if channels.ndim != 4 or channels.shape[0] < 1 or channels.shape[1:] != spec.grid_shape:
        raise InputError(where, "channels", f"shape {channels.shape}", f"slots, 1 or more, of {spec.grid_shape}")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are refused
        channels = np.ascontiguousarray(channels, np.complex64)
    if not np.isfinite(channels).all():
        raise InputError(where, "channels", "NaN or infinity", "finite values")
    return channels
