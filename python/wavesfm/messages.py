# SPDX-License-Identifier: GPL-3.0-or-later
"""How predictions, status, commands and tags travel as PMT; the keys of the dictionaries are a contract with users.

Grids of OFDM slots travel as PDUs, see `pdus`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pmt
from wavesfm_core.types import Prediction, StreamTime

PREDICTIONS = pmt.intern("predictions")
STATUS = pmt.intern("status")
LABEL = pmt.intern("label")
COMMAND = pmt.intern("command")
SYSTEM = pmt.intern("system")
COMMANDS = ("threshold", "gate_db", "policy")  # of the classifier
TIME_LIMIT_S = 1 << 63


def time_to_pmt(time: StreamTime | None) -> Any:
    """A tuple (uint64 seconds, double fraction) as in rx_time, or PMT_NIL when the time is unknown."""
    if time is None:
        return pmt.PMT_NIL
    return pmt.make_tuple(pmt.from_uint64(time.full_s), pmt.from_double(time.frac_s))


def time_from_pmt(value: Any) -> StreamTime:
    """The reverse of `time_to_pmt` for a known time; ValueError when it is no (uint64, double) tuple or not finite, and
    when it lies before the epoch or 2^63 s behind it: a later time of its stream must fit a uint64 too.
    """
    if not pmt.is_tuple(value) or pmt.length(value) < 2:
        raise ValueError("not a tuple (seconds, fraction)")
    seconds = number_from_pmt(pmt.tuple_ref(value, 0))
    fraction = number_from_pmt(pmt.tuple_ref(value, 1))
    time = StreamTime(int(seconds), 0.0).advanced(fraction)
    if not 0 <= time.full_s < TIME_LIMIT_S:
        raise ValueError("not a time from 0 to 2^63 s")
    return time


def number_from_pmt(value: Any) -> float:
    """A finite real or integer; ValueError for anything else."""
    if pmt.is_uint64(value):
        return int(pmt.to_uint64(value))
    if not pmt.is_number(value) or pmt.is_complex(value):
        raise ValueError("not a number")
    number = pmt.to_python(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def prediction_to_pmt(prediction: Prediction) -> Any:
    """A dict with the keys of `Prediction.as_dict`.

    label, bundle_id: symbol; rate_hz: double, 0 when unknown; confidence, centre_hz, latency_s: double or PMT_NIL;
    probabilities: dict of doubles by label; start_sample, n_samples, n_nonfinite: uint64; partial: bool;
    time: tuple (uint64, double) of the first sample as in rx_time, or PMT_NIL.
    """
    return dict_to_pmt({**prediction.as_dict(), "time": prediction.time})


def command_from_pmt(message: Any, known: Collection[str] = COMMANDS) -> dict[str, Any]:
    """The commands of a dict, or of one pair (name . value); ValueError for anything else or a name not in `known`."""
    if pmt.is_pair(message) and pmt.is_symbol(pmt.car(message)):
        commands = {pmt.symbol_to_string(pmt.car(message)): pmt.to_python(pmt.cdr(message))}
    elif pmt.is_dict(message) and not pmt.is_null(message):
        commands = pmt.to_python(message)
    else:
        raise ValueError(f"found {message}, expected a dictionary or a pair (name . value)")
    for name in commands:
        if name not in known:
            raise ValueError(f"found {name}, expected one of {', '.join(known)}")
    return commands


def retune_from_tags(tags: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """For each offset with rx_time, rx_freq or rx_rate tags, in order: the offset, the arguments for `Session.retune`,
    and a sentence for each tag that cannot be read.
    """
    by_offset: dict[int, list[Any]] = {}
    for tag in tags:
        if pmt.symbol_to_string(tag.key) in TAGS:
            by_offset.setdefault(tag.offset, []).append(tag)
    for offset in sorted(by_offset):
        change: dict[str, Any] = {}
        unread = []
        for tag in by_offset[offset]:
            key = pmt.symbol_to_string(tag.key)
            name, read = TAGS[key]
            try:
                change[name] = read(tag.value)
            except ValueError as error:
                unread.append(f"tag {key} at sample {offset}: found {tag.value}: {error}; it is passed over")
        yield offset, change, unread


def _rate_from_pmt(value: Any) -> float:
    rate_hz = float(number_from_pmt(value))
    if rate_hz < 0:
        raise ValueError("not a rate in Hz")
    return rate_hz


TAGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "rx_time": ("time", time_from_pmt),
    "rx_freq": ("centre_hz", lambda value: float(number_from_pmt(value))),
    "rx_rate": ("rate_hz", _rate_from_pmt),
}


def dict_to_pmt(values: Mapping[str, Any]) -> Any:
    """A PMT dict of symbols, doubles, uint64 (int >= 0), bools, times, tuples, nested dicts and PMT_NIL (None)."""
    message = pmt.make_dict()
    for key, value in reversed(values.items()):  # a PMT dict grows at its front
        message = pmt.dict_add(message, pmt.intern(key), _value_to_pmt(value))
    return message


def record_from_pmt(message: Any) -> dict[str, Any]:
    """The JSON record of a prediction message, equal to `Prediction.as_dict`; ValueError when it is no prediction."""
    if not pmt.is_dict(message) or not pmt.dict_has_key(message, pmt.intern("label")):
        raise ValueError("not a dictionary with the key 'label'")
    record = pmt.to_python(message)
    record["probabilities"] = record.get("probabilities") or {}  # an empty PMT dict is PMT_NIL
    time = record.get("time")
    record["time"] = None if time is None else StreamTime(*time).as_dict()
    return record


def _value_to_pmt(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict_to_pmt(value)
    if isinstance(value, StreamTime):
        return time_to_pmt(value)
    if isinstance(value, tuple):
        return pmt.make_tuple(*map(_value_to_pmt, value))
    if isinstance(value, bool) or value is None:
        return pmt.to_pmt(value)
    if isinstance(value, int) and value >= 0:
        return pmt.from_uint64(value)
    if isinstance(value, (int, float)):
        return pmt.from_double(float(value))
    return pmt.intern(str(value))
