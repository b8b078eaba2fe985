# SPDX-License-Identifier: GPL-3.0-or-later
"""Predictions, status messages and tags as PMT; the keys of the dictionaries are a contract with users.

Grids of OFDM slots are PDUs, see `pdus`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pmt
from wavesfm_core.band.types import SCHEMA, Emitter, Event
from wavesfm_core.types import Prediction, StreamTime

from . import _runtime

PREDICTIONS = pmt.intern("predictions")
STATUS = pmt.intern("status")
LABEL = pmt.intern("label")
EVENTS = pmt.intern("events")
DETECTIONS = pmt.intern("detections")
COMMAND = pmt.intern("command")
SYSTEM = pmt.intern("system")
OVERFLOWS = pmt.intern("overflows")
TIME_LIMIT_S = 1 << 63


def time_to_pmt(time: StreamTime | None) -> Any:
    """Return a tuple (uint64 seconds, double fraction) as in rx_time, or PMT_NIL for None."""
    if time is None:
        return pmt.PMT_NIL
    return pmt.make_tuple(pmt.from_uint64(time.full_s), pmt.from_double(time.frac_s))


def time_from_pmt(value: Any) -> StreamTime:
    """Return the time of a tuple (seconds, fraction) as in rx_time.

    Raises ValueError for another value, a number that is not finite, and a time before 1970 or from 2^63 s on: a later
    time of its stream must fit a uint64, too.
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
    """Return a finite real number or integer; ValueError for anything else."""
    if pmt.is_uint64(value):
        return int(pmt.to_uint64(value))
    if not pmt.is_number(value) or pmt.is_complex(value):
        raise ValueError("not a number")
    number = pmt.to_python(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def prediction_to_pmt(prediction: Prediction, run: int = 0, sequence: int = 0) -> Any:
    """Return a dict with the keys of `Prediction.as_dict`, and `run` and `sequence`.

    label, bundle_id: symbol; rate_hz: double, 0 when unknown; confidence, centre_hz, latency_s: double or PMT_NIL;
    probabilities: dict of doubles by label; start_sample, n_samples, n_nonfinite: uint64; partial: bool;
    time: tuple (uint64, double) of the first sample as in rx_time, or PMT_NIL; run: uint64, how often the block was
    started; sequence: uint64, number of the prediction over the block's life. A text of the time is left to
    `record_from_pmt`, because PMT keeps every symbol for ever.
    """
    return pmt.deserialize_str(prediction_message(prediction, run, sequence).serialise())


def prediction_message(prediction: Prediction, run: int, sequence: int) -> _runtime.Message:
    """Return what `prediction_to_pmt` does, for `_runtime.publish`."""
    return _runtime.Message({**prediction.as_dict(), "time": prediction.time, "run": run, "sequence": sequence})


def event_to_pmt(event: Event, run: int = 0, sequence: int = 0) -> Any:
    """Return a dict with the keys of `Event.as_dict`, and `run` and `sequence`; docs/events.md has the schema.

    Times are tuples (uint64, double) as in rx_time, or PMT_NIL; `changes` is a vector of symbols.
    """
    return dict_to_pmt({**event.as_dict(), "time": event.time, "run": run, "sequence": sequence})


def detections_to_pmt(emitters: Iterable[Emitter], run: int = 0, sequence: int = 0) -> Any:
    """Return a dict of `schema`, `run`, `sequence` and `emitters`, a vector of dicts with `Emitter.as_dict`'s keys."""
    each = [{**emitter.as_dict(), "time": emitter.time} for emitter in emitters]
    return dict_to_pmt({"schema": SCHEMA, "run": run, "sequence": sequence, "emitters": each})


def overflows_from_pmt(message: Any) -> int:
    """Return how many overflows of the receiver a message reports.

    A dict with, or a pair of, the key "overflows" or "overflow" and a number reports that many; UHD's asynchronous
    messages of a transmitter report none; any other message reports one.
    """
    if pmt.is_pair(message) and pmt.eqv(pmt.car(message), pmt.intern("uhd_async_msg")):
        return 0
    for name in ("overflows", "overflow"):
        key = pmt.intern(name)
        value = pmt.PMT_NIL
        if pmt.is_pair(message) and pmt.eqv(pmt.car(message), key):
            value = pmt.cdr(message)
        elif pmt.is_dict(message):
            value = pmt.dict_ref(message, key, pmt.PMT_NIL)
        if pmt.is_integer(value) or pmt.is_uint64(value):
            return max(0, int(number_from_pmt(value)))
    return 1


def retune_from_tags(tags: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """Read the tags rx_time, rx_freq and rx_rate.

    Yields, for each offset with such tags in order, the offset, the arguments for `Session.retune`, and a sentence for
    each tag that cannot be read.
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
                unread.append(f"tag {key} at sample {offset}: found {tag.value}: {error}; it is ignored")
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
    """Return a PMT dict of symbols, doubles, uint64, bools, times, tuples, vectors (of lists), dicts and PMT_NIL."""
    return pmt.deserialize_str(_runtime.Message(dict(values)).serialise())


def record_from_pmt(message: Any) -> dict[str, Any]:
    """Return the JSON record of a prediction or event message: its `as_dict` with `run` and `sequence`.

    Raises ValueError for a message that is no prediction.
    """
    if not pmt.is_dict(message) or not pmt.dict_has_key(message, pmt.intern("label")):
        raise ValueError("not a dictionary with the key 'label'")
    record = pmt.to_python(message)
    record["probabilities"] = record.get("probabilities") or {}  # an empty PMT dict is PMT_NIL
    time = record.get("time")
    record["time"] = None if time is None else StreamTime(*time).as_dict()
    return record
