# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample formats of IQ files: names, sizes, SigMF datatypes, usual suffixes, and the conversion to complex64.

A format name is c (complex, I before Q) or r (real), u, s or f (unsigned, signed, float), the bits of one value, and
`be` for big-endian values of more than one byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..types import Samples

RawBytes = NDArray[np.uint8]


@dataclass(frozen=True)
class SampleFormat:
    """How one sample lies in a file."""

    name: str
    """Such as cu8, cs16 or rf32be."""
    is_complex: bool
    """False: real samples, of which two make one complex sample of the analytic signal."""
    kind: str
    """u, s or f."""
    bits: int
    """Of one value: 8, 16, 24 (signed only), 32 or 64 (float only)."""
    big_endian: bool = False
    full_scale_bits: int = 0
    """Bits of full scale where they are fewer than `bits`, 0 otherwise."""

    @property
    def value_bytes(self) -> int:
        """Bytes of one value."""
        return self.bits // 8

    @property
    def sample_bytes(self) -> int:
        """Bytes of one complex sample of one channel: an I and a Q value, or two real values."""
        return 2 * self.value_bytes

    @property
    def stored_per_sample(self) -> int:
        """Samples in the file for each complex sample that is read: 1, or 2 for real formats."""
        return 1 if self.is_complex else 2

    @property
    def sigmf_datatype(self) -> str | None:
        """The core:datatype, None where SigMF has none (24 bits)."""
        if self.bits == 24:
            return None
        kind = {"u": "u", "s": "i", "f": "f"}[self.kind]
        order = "" if self.bits == 8 else "_be" if self.big_endian else "_le"
        return f"{self.name[0]}{kind}{self.bits}{order}"

    def complex64(self, raw: RawBytes) -> Samples:
        """complex64 [n] with full scale 1 of raw bytes [n * sample_bytes] of a complex format."""
        if self.name in ("cu8", "cs8", "cs16"):
            return _kernels.to_complex64(np.ascontiguousarray(raw), self.name)
        return self.float32(raw).view(np.complex64)

    def float32(self, raw: RawBytes) -> NDArray[np.float32]:
        """The values [n] with full scale 1, I and Q alternating for a complex format."""
        if self.bits == 24:
            return _from_24_bits(raw, self.big_endian)
        code = {"u": "u", "s": "i", "f": "f"}[self.kind]
        values = np.ascontiguousarray(raw).view(np.dtype(f"{'>' if self.big_endian else '<'}{code}{self.value_bytes}"))
        if self.kind == "f":
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted as not finite
                return values.astype(np.float32)
        full_scale = 2.0 ** ((self.full_scale_bits or self.bits) - 1)
        if self.kind == "s":
            return (values / full_scale).astype(np.float32)
        return ((values - (full_scale - 0.5)) / (full_scale - 0.5)).astype(np.float32)


def _from_24_bits(raw: RawBytes, big_endian: bool) -> NDArray[np.float32]:
    triples = raw.reshape(-1, 3)
    wide = np.zeros((len(triples), 4), np.uint8)
    wide[:, 1:] = triples[:, ::-1] if big_endian else triples
    return (wide.reshape(-1).view("<i4") / 2.0**31).astype(np.float32)


def _formats() -> dict[str, SampleFormat]:
    kinds = (("u", (8, 16, 32)), ("s", (8, 16, 24, 32)), ("f", (32, 64)))
    found = {}
    for first in "cr":
        for kind, sizes in kinds:
            for bits in sizes:
                for big_endian in (False, True) if bits > 8 else (False,):
                    name = f"{first}{kind}{bits}{'be' if big_endian else ''}"
                    found[name] = SampleFormat(name, first == "c", kind, bits, big_endian)
    return found


FORMATS = _formats()
FORMATS["cs24in32"] = SampleFormat("cs24in32", True, "s", 32, full_scale_bits=24)  # SDRangel
SIGMF_DATATYPES = {each.sigmf_datatype: name for name, each in _formats().items() if each.sigmf_datatype}
FORMAT_NAMES = (
    "one of cu8, cs8, cs16, cs24, cs32, cf32, cf64, cu16, cu32, the same with r for real, with be for big-endian"
)
"""FORMATS in words, for messages."""
# A suffix that several programs use for different formats has all of them, the usual one first; the bytes decide.
AMBIGUOUS = ("cu8", "cs8", "cs16", "cf32", "cs32", "cf64")
SUFFIXES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in FORMATS},
    "cfile": ("cf32",),  # GNU Radio
    "fc32": ("cf32",),
    "complex": ("cf32",),  # Universal Radio Hacker, also the four below, whose number is that of both values
    "complex16u": ("cu8",),
    "complex16s": ("cs8",),
    "complex32u": ("cu16",),
    "complex32s": ("cs16",),
    "fc64": ("cf64",),
    "sc8": ("cs8",),
    "c8": ("cs8",),  # PortaPack
    "uc8": ("cu8",),
    "sc16": ("cs16",),
    "c16": ("cs16",),  # PortaPack, bladeRF
    "sc32": ("cs32",),
    "c32": ("cf32", "cs32"),
    "c64": ("cf32", "cf64"),
    "u8": ("cu8",),
    "s8": ("cs8",),
    "s16": ("cs16",),
    **{name: AMBIGUOUS for name in ("raw", "iq", "bin", "dat", "data")},
}


def find_format(name: str) -> SampleFormat | None:
    """The format of a name such as cs16, of a SigMF datatype such as ci16_le, or None."""
    name = name.lower()
    return FORMATS.get(name) or FORMATS.get(SIGMF_DATATYPES.get(name, ""))


def suffix_formats(file_name: str) -> tuple[str, ...]:
    """Formats that the suffix of a file name stands for; a copy's number, as in "x.cu8 (1)", does not matter."""
    match = re.search(r"\.([A-Za-z0-9]+)(?: \(\d+\))?$", file_name)
    return SUFFIXES.get(match[1].lower(), ()) if match else ()
