# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDM slot parameters (FFT size, cyclic prefixes, pilots, antennas), part of a bundle."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import Rules, require_rules
from ..errors import BundleError, InputError
from ..hashing import json_sha256

FFT_LIMIT = 65536
ANTENNAS_LIMIT = 1024
SYMBOLS_LIMIT = 1024
GRID_LIMIT = 1 << 24
"""Most elements of a grid."""
SAMPLES_LIMIT = 1 << 26
"""Most samples of a slot, all antennas together: 512 MiB."""
POINT_TOLERANCE = 1e-3
"""Largest distance of a pilot from its QPSK point."""
QPSK = np.exp(1j * np.pi * (1 + 2 * np.arange(4)) / 4)
"""QPSK point of each digit of `OFDMSpec.pilot_quadrants`."""


@dataclass(frozen=True)
class OFDMSpec:
    """OFDM slot parameters: samples of A antennas become a grid [A, S, F] with P x Fp pilots.

    The F subcarriers lie around DC, from -(F // 2) upwards.

    Raises
    ------
    BundleError
        A field contradicts another or lies outside its range.

    References
    ----------
    3GPP TS 38.211, 5.3.1: the prefix of the first symbol of a half-subframe is longer.
    """

    kind: ClassVar[str] = "ofdm"

    antennas: int
    """Number of antennas, A."""
    symbols: int
    """OFDM symbols of a slot, S."""
    subcarriers: int
    """Subcarriers in use, F."""
    fft_size: int
    """FFT size of each symbol."""
    prefix_samples: tuple[int, ...]
    """Cyclic prefix of each symbol in samples, S numbers."""
    spacing_hz: float
    """Subcarrier spacing in Hz."""
    pilot_symbols: tuple[int, ...]
    """Indices of the P symbols with pilots, ascending."""
    pilot_quadrants: str
    """Transmitted pilots, QPSK of unit power: a digit q for each, exp(j pi (1 + 2 q) / 4), P * Fp digits, pilot symbol
    after pilot symbol."""
    pilot_step: int = 1
    """Comb: every pilot_step-th subcarrier of a pilot symbol is a pilot."""
    pilot_offset: int = 0
    """Comb: first pilot subcarrier."""
    dc_null: bool = False
    """Whether DC is left out; of an odd F one more subcarrier then lies below DC than above."""

    def __post_init__(self) -> None:
        for rules in (self._size_rules, self._pilot_rules):  # the pilot rules need valid sizes
            require_rules("numerology", self, rules(), BundleError)

    def _size_rules(self) -> Rules:
        symbols, fft_size, prefixes = self.symbols, self.fft_size, self.prefix_samples
        above = self._lowest + self.subcarriers - 1 + self.dc_null
        fit = self.subcarriers >= 1 and -self._lowest <= fft_size // 2 and above <= (fft_size - 1) // 2
        each = len(prefixes) == symbols and all(0 <= n <= fft_size for n in prefixes)
        samples = self.antennas * (sum(prefixes) + symbols * fft_size)
        return {
            "antennas": (1 <= self.antennas <= ANTENNAS_LIMIT, f"1 to {ANTENNAS_LIMIT}"),
            "symbols": (1 <= symbols <= SYMBOLS_LIMIT, f"1 to {SYMBOLS_LIMIT}"),
            "fft_size": (
                2 <= fft_size <= FFT_LIMIT and samples <= SAMPLES_LIMIT,
                f"2 to {FFT_LIMIT}, and a slot of at most {SAMPLES_LIMIT} samples of all antennas",
            ),
            "subcarriers": (
                fit and self.antennas * symbols * self.subcarriers <= GRID_LIMIT,
                f"1 or more, within the {fft_size} of the FFT, and at most {GRID_LIMIT} elements of the grid",
            ),
            "prefix_samples": (each, f"{symbols} numbers, one for each symbol, each 0 to {fft_size}"),
            "spacing_hz": (0 < self.spacing_hz < math.inf, "a positive number"),
        }

    def _pilot_rules(self) -> Rules:
        ascending = all(a < b for a, b in zip(self.pilot_symbols, self.pilot_symbols[1:]))
        within = len(self.pilot_symbols) >= 1 and self.pilot_symbols[0] >= 0 and self.pilot_symbols[-1] < self.symbols
        step = 1 <= self.pilot_step <= self.subcarriers
        each = len(range(self.pilot_offset, self.subcarriers, self.pilot_step)) if step else 0
        count = len(self.pilot_symbols) * each
        digits = len(self.pilot_quadrants) == count and set(self.pilot_quadrants) <= set("0123")
        return {
            "pilot_symbols": (ascending and within, f"one or more, ascending, from 0 to {self.symbols - 1}"),
            "pilot_step": (step, f"1 to {self.subcarriers}"),
            "pilot_offset": (0 <= self.pilot_offset < self.pilot_step, "0 to pilot_step - 1"),
            "pilot_quadrants": (digits, f"{count} digits 0 to 3, one for each pilot"),
        }

    @property
    def _lowest(self) -> int:
        return -((self.subcarriers + self.dc_null) // 2)

    @property
    def rate_hz(self) -> float:
        """Sample rate in Hz."""
        return self.fft_size * self.spacing_hz

    @property
    def slot_samples(self) -> int:
        """Samples of a slot of one antenna with its prefixes."""
        return sum(self.prefix_samples) + self.symbols * self.fft_size

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Antennas, symbols and subcarriers of a grid."""
        return self.antennas, self.symbols, self.subcarriers

    @cached_property
    def symbol_starts(self) -> NDArray[np.int64]:
        """First sample after the prefix of each symbol, from the start of the slot: int64 [S]."""
        prefixes = np.array(self.prefix_samples, np.int64)
        return _fixed(np.cumsum(prefixes) + self.fft_size * np.arange(self.symbols))

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """Frequency of each subcarrier in units of spacing_hz, ascending: int64 [F]."""
        around = self._lowest + np.arange(self.subcarriers, dtype=np.int64)
        return _fixed(around + (around >= 0) if self.dc_null else around)

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """FFT bin of each subcarrier, 0 to fft_size - 1: int64 [F]."""
        return _fixed(self.frequencies % self.fft_size)

    @cached_property
    def pilot_subcarriers(self) -> NDArray[np.int64]:
        """Indices of the pilot subcarriers in a pilot symbol: int64 [Fp]."""
        return _fixed(np.arange(self.pilot_offset, self.subcarriers, self.pilot_step, dtype=np.int64))

    @cached_property
    def pilots(self) -> NDArray[np.complex64]:
        """Transmitted pilots: complex64 [P, Fp], unit power."""
        digits = np.frombuffer(self.pilot_quadrants.encode(), np.uint8) - ord("0")
        return _fixed(QPSK[digits].astype(np.complex64).reshape(len(self.pilot_symbols), -1))

    @cached_property
    def id(self) -> str:
        """Hash of the parameters, 12 hexadecimal digits."""
        return json_sha256(dataclasses.asdict(self))[:12]

    def require(self, other: OFDMSpec, where: str, but_pilots: bool = False) -> None:
        """Raise InputError unless `other` has the same parameters.

        Parameters
        ----------
        other : OFDMSpec
            Parameters to compare.
        where : str
            Name of `other` in the error, which also names the first field that differs.
        but_pilots : bool
            Ignore the pilots.
        """
        for f in dataclasses.fields(self):
            expected, found = getattr(self, f.name), getattr(other, f.name)
            if found != expected and not (but_pilots and f.name.startswith("pilot_")):
                raise InputError(where, f"numerology.{f.name}", repr(found)[:60], repr(expected)[:60])


def quadrants(points: ArrayLike) -> str:
    """Digits of `OFDMSpec.pilot_quadrants` for QPSK points.

    Parameters
    ----------
    points : array_like
        Complex points of any shape, in C order.

    Raises
    ------
    InputError
        A point further than POINT_TOLERANCE from exp(j pi (1 + 2 q) / 4).
    """
    array = np.asarray(points, np.complex128).ravel()
    digits = np.where(array.imag >= 0, np.where(array.real >= 0, 0, 1), np.where(array.real < 0, 2, 3))
    distance = np.abs(array - QPSK[digits])
    if not np.all(distance <= POINT_TOLERANCE):  # refuses NaN too
        worst = array[int(np.argmax(np.nan_to_num(distance, nan=np.inf)))]
        raise InputError("pilots", "points", f"{worst:.4g}", "QPSK of unit power, exp(j pi (1 + 2 q) / 4)")
    return "".join(map(str, digits.tolist()))


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)  # shared by all callers
    return array
