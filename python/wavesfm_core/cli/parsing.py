# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse rates, frequencies, lengths and the gate from the command line."""

from __future__ import annotations

import math
import re

from ..errors import ConfigurationError

_SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "m": 1e6, "G": 1e9, "g": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def hertz(option: str, text: str | None, allow_negative: bool = False) -> float | None:
    """Hz from a text such as 2M, 1.92e6 or 250k; None from None. Raises ConfigurationError naming the option."""
    if text is None:
        return None
    number = text.strip().removesuffix("Hz").strip()
    scale = _SCALES.get(number[-1:], 1.0)
    try:
        value = float(number[:-1] if number[-1:] in _SCALES else number) * scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (value <= 0 and not allow_negative):
        expected = (
            "a number of Hz such as 1.92e6, 2M or 250k"
            if allow_negative
            else "a positive number of Hz such as 1.92e6, 2M or 250k"
        )
        raise ConfigurationError("command line", option, repr(text), expected)
    return value


def samples(option: str, text: str | None, rate_hz: float) -> int | None:
    """A number of samples from 2.5s or 40ms at `rate_hz`, or from 250000; None from None.

    Raises ConfigurationError naming the option, also for seconds where the rate is unknown.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d*)?|\.\d+)\s*(us|ms|s|min|)\s*", text)
    if match is None or (not match[2] and "." in match[1]):
        raise ConfigurationError("command line", option, repr(text), "seconds such as 2.5s or 40ms, or whole samples")
    if not match[2]:
        return int(match[1])
    if not rate_hz:
        raise ConfigurationError("command line", option, repr(text), "samples, or a --rate: the rate is unknown")
    return round(float(match[1]) * _SECONDS[match[2]] * rate_hz)


def gate_db(text: str) -> float | None:
    """A number of dB, or None from "off". Raises ConfigurationError."""
    if text.lower() == "off":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError("command line", "--gate", repr(text), "a number of dB or off") from None
