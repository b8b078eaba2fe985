# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate, frequency, time and format from the file names of common receivers."""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from ..types import StreamTime

_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
# URH writes the decimal point as an underscore: -433_92MHz-
_NUMBER = r"(?:(?<=\D)|^)((?<=-)\d+_\d+|\d+(?:\.\d+)?)"
_COPY = re.compile(r"(?:[ _-]?\(\d+\)| - Copy)(?=\.[^.]+$|$)")
# gqrx_20240131_123456_433920000_1800000_fc.raw: UTC, frequency, rate
_GQRX = re.compile(r"gqrx_(\d{8}_\d{6})_(\d+)_(\d+)_fc\.")
# sigdigger_20240131_123456Z_2560000_433500000_float32_iq.raw: UTC, rate, frequency
_SIGDIGGER = re.compile(r"_(\d{8}_\d{6})Z_(\d+)_(\d+)_float32_iq\.")
# rtl_433: g001_433.92M_250k.cu8: frequency, rate
_RTL_433 = re.compile(r"_(\d+(?:\.\d+)?[kMG])_(\d+(?:\.\d+)?[kM])(?=[_.])", re.IGNORECASE)
# SDR#, SDR++, HDSDR, SDRuno, rtl_433, URH: 433920000Hz, 7000kHz, 433_92MHz
_HERTZ = re.compile(_NUMBER + r"([kMG]?)Hz(?![a-z])", re.IGNORECASE)
# rtl_433, URH: 250000sps, 1MSps
_SAMPLES_PER_S = re.compile(_NUMBER + r"([kMG]?)sps(?![a-z])", re.IGNORECASE)
_UTC = re.compile(r"_(\d{8}_\d{6})Z_")
LEAST_CENTRE_HZ = 200e3
"""Lower numbers of Hz in a name are no centre frequency but a rate, a bandwidth or an offset."""


class NameFacts(NamedTuple):
    """Facts in a name; None: not in it."""

    rate_hz: float | None = None
    centre_hz: float | None = None
    time: StreamTime | None = None
    sample_format: str | None = None


def read_name(name: str) -> NameFacts:
    """Parse a file name (without directory) of gqrx, SDR#, SDR++, HDSDR, SigDigger, rtl_433 or URH."""
    name = _COPY.sub("", name)
    if match := _GQRX.search(name):
        return NameFacts(_positive(match[3]), float(match[2]), _utc(match[1]), "cf32")
    if match := _SIGDIGGER.search(name):
        return NameFacts(_positive(match[2]), float(match[3]), _utc(match[1]), "cf32")
    utc = _UTC.search(name)
    time = _utc(utc[1]) if utc else None
    if match := _RTL_433.search(name):
        return NameFacts(_scaled(match[2][:-1], match[2][-1]) or None, _scaled(match[1][:-1], match[1][-1]), time)
    rate = _SAMPLES_PER_S.search(name)
    frequencies = [_scaled(match[1], match[2]) for match in _HERTZ.finditer(name)]
    centre_hz = next((value for value in frequencies if value >= LEAST_CENTRE_HZ), None)
    return NameFacts((_scaled(rate[1], rate[2]) or None) if rate else None, centre_hz, time)


def _scaled(digits: str, unit: str) -> float:
    return float(digits.replace("_", ".")) * _SCALE[unit.lower()]


def _positive(digits: str) -> float | None:
    return float(digits) or None


def _utc(text: str) -> StreamTime | None:
    try:
        when = datetime.datetime.strptime(text, "%Y%m%d_%H%M%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return StreamTime(int(when.timestamp()), 0.0)
