# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sample format the raw bytes of a recording have, by their statistics.

Floats have a narrow range of exponents. Integers of several bytes have a top byte that repeats the sign or stays near
the middle, and lower bytes that are nearly uniform. Values of one byte have the same distribution at every place,
around 0 or around 128. All else is left undecided: a doubt needs evidence for another format.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SAMPLE_BYTES_READ = 1 << 18
"""Most bytes that are examined, in pieces spread over the recording."""
LEAST_BYTES = 4096
"""Least number of bytes other than zero for a decision."""
_EXPONENT_SPREAD = 24.0
"""Octaves between the 5 % and the 95 % quantile of |x| that a float signal stays below."""
_FINE = 0.995
"""Share of values that must be plausible floats."""
_TOP, _FLAT, _SHAPED = 0.2, 0.25, 0.1
"""Distances (total variation, 0 to 1) from a uniform histogram: at least of a top byte, at most of a low byte, at least
of a value of one byte."""
_WORDS = ((32, "", (3,), (1,)), (32, "be", (0,), (2,)), (16, "", (1, 3), (0, 2)), (16, "be", (0, 2), (1, 3)))
"""Bits, byte order, places (of four) of top bytes and of low bytes."""
_FROM_ZERO = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.float64)


def detect(raw: NDArray[np.uint8]) -> str | None:
    """The complex format of raw bytes [n], such as cf32, or None if undecided.

    raw begins at a sample. A real format gives the complex format of the same values.
    """
    raw = raw[: len(raw) // 16 * 16]
    if np.count_nonzero(raw) < LEAST_BYTES:
        return None
    for name, code in (("cf32", "<f4"), ("cf32be", ">f4"), ("cf64", "<f8"), ("cf64be", ">f8")):
        if _is_float(raw.view(code)):
            return name
    histograms = np.stack([np.bincount(raw[place::4], minlength=256) for place in range(4)]).astype(np.float64)
    histograms /= histograms.sum(axis=1, keepdims=True)
    return _detect_integer(raw, histograms)


def is_counter(raw: NDArray[np.uint8]) -> bool:
    """True if the bytes count up, as in the test mode of a receiver."""
    return len(raw) >= 256 and bool(np.mean(np.diff(raw) == 1) > 0.9)  # of uint8, which wraps


def doubt(raw: NDArray[np.uint8], declared: str) -> str | None:
    """A note if raw bytes [n] look like another format than `declared`, else None. raw begins at a sample."""
    if is_counter(raw):
        return "the bytes count up: the test pattern of a receiver and not a signal"
    if declared.removesuffix("be").endswith("24"):
        return None  # the statistics are of bytes at each position modulo 4
    found = detect(raw)
    if found is None or found[1:] == declared[1:] or (declared == "cs24in32" and found == "cs32"):
        return None
    return describe(found, declared)


def describe(found: str, declared: str) -> str:
    """Note that bytes look like `found` and not like `declared`, with the reason."""
    reasons = {
        "f": "their exponents are those of floats",
        "s": "their top bytes repeat a sign",
        "u": "their values lie around the middle of an unsigned range",
    }
    if found[1] in "su" and found.removesuffix("be") == declared.removesuffix("be"):
        reason = "their bytes lie in the other order"
    elif found in ("cs8", "cu8"):
        reason = f"every byte has the same distribution, around {'0' if found == 'cs8' else '128'}"
    else:
        reason = reasons[found[1]]
    return f"the bytes look like {found} and not like {declared}: {reason}"


def pieces(n_bytes: int, align: int) -> Iterable[tuple[int, int]]:
    """Byte ranges (first, stop) of up to 16 pieces of a recording, aligned to `align` bytes."""
    each = SAMPLE_BYTES_READ // 16
    if n_bytes <= SAMPLE_BYTES_READ:
        return [(0, n_bytes)]
    return [
        ((n_bytes - each) * i // 15 // align * align, (n_bytes - each) * i // 15 // align * align + each)
        for i in range(16)
    ]


def _is_float(values: NDArray[np.floating]) -> bool:
    """True if nearly all nonzero values have plausible, similar exponents, and both signs occur."""
    with np.errstate(all="ignore"):
        magnitudes = np.abs(values[values != 0].astype(np.float64))
        fine = np.isfinite(magnitudes) & (magnitudes > 1e-30) & (magnitudes < 1e15)
        if len(magnitudes) < LEAST_BYTES // 8 or fine.mean() < _FINE:
            return False
        low, high = np.quantile(np.log2(magnitudes[fine]), (0.05, 0.95))
        negative = np.mean(values < 0)
        zeros = [np.mean(values[place::2] == 0) for place in (0, 1)]
    if max(zeros) > 0.9:  # half of a wider float, or no Q: another format
        return False
    return bool(high - low < _EXPONENT_SPREAD and 0.02 < negative < 0.98)


def _detect_integer(raw: NDArray[np.uint8], histograms: NDArray[np.float64]) -> str | None:
    """Integer format from histograms [4, 256] of the bytes at each position modulo 4."""
    noise = 0.5 * np.sqrt(256 / (len(raw) / 4))  # of the distance between two histograms of this many bytes
    flatness = 0.5 * np.abs(histograms - 1 / 256).sum(axis=1)
    flat, peaked = flatness < _FLAT + noise, flatness > _TOP + noise
    if (flatness > _SHAPED + noise).all() and (found := _weak_words(raw) or _one_byte(raw, histograms)):
        return found
    for bits, suffix, tops, lows in _WORDS:
        top = histograms[list(tops)].mean(axis=0)
        lopsided = 0.5 * np.abs(top - top[::-1]).sum() > 0.5  # as are low bytes with zeros at their end
        clear = flatness[list(tops)].min() > flatness[list(lows)].max() + 0.1
        if peaked[list(tops)].all() and flat[list(lows)].all() and clear and not lopsided and (sign := _sign(top)):
            return f"c{sign}{bits}{suffix}"
    return None


def _one_byte(raw: NDArray[np.uint8], histograms: NDArray[np.float64]) -> str | None:
    """cu8 or cs8 where the values of I and Q spread alike and neither follows from the other."""
    if np.count_nonzero(np.bincount(raw.view("<u2"))) < 2 * np.count_nonzero(np.bincount(raw)):
        return None  # words of 16 bits that were made of samples of 8 bits
    sign = _sign(histograms.mean(axis=0))
    spread = histograms @ (_FROM_ZERO if sign == "s" else 127.5 - _FROM_ZERO)
    alike = spread.max() < 1.8 * spread.min() + 0.2
    return f"c{sign}8" if sign and alike else None


def _weak_words(raw: NDArray[np.uint8]) -> str | None:
    """cs16 of a weak signal: the top byte is 0 or 255 and repeats the sign of the byte below."""
    for name, top in (("cs16", 1), ("cs16be", 0)):
        high, low = raw[top::2], raw[1 - top :: 2]
        negative = np.mean(high == 255)
        if not 0.05 < negative < 0.95 or np.mean((high == 0) | (high == 255)) < 0.99:
            continue
        if np.mean((high == 255) == (low >= 128)) > 0.9:
            return name
    return None


def _sign(histogram: NDArray[np.float64]) -> str:
    """s where values lie around 0 (bytes near 0 and 255), u around 128, "" where neither is clear."""
    if not 0.02 < histogram[128:].sum() < 0.98:
        return ""  # on one side of the middle only, as text
    from_zero = float(histogram @ _FROM_ZERO)  # 63.5 for uniform bytes
    if from_zero < 52:
        return "s"
    if from_zero > 75:
        return "u"
    # strong signals of constant envelope: nothing at one end of the range, and something at the other
    near_zero, near_middle = histogram[_FROM_ZERO < 13].sum(), histogram[_FROM_ZERO > 114].sum()
    if near_middle < 0.002 and near_zero > 0.03:
        return "s"
    return "u" if near_zero < 0.002 and near_middle > 0.03 else ""
