# SPDX-License-Identifier: GPL-3.0-or-later
"""Grids of OFDM slots, [antennas, symbols, subcarriers], as PDUs: a dict and a c32vector.

The blocks make and read these messages in C++ (`bindings/grid_messages.h`). The functions here are for blocks and
scripts in Python; they pass a message through its serialised form, which costs about 0.2 ms for 16 antennas.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pmt
from numpy.typing import NDArray
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import as_native, as_slot
from wavesfm_core.types import Slot

from . import _runtime
from .messages import dict_to_pmt

GRIDS = pmt.intern("grids")
CHANNEL = pmt.intern("channel")
C32VECTOR = b"\x0a\x0a"  # start of a serialised c32vector: uniform vector, complex float; the count follows,
PADDING = b"\x01\x00"  # then one byte of padding

_SHAPE = pmt.intern("shape")


@lru_cache(maxsize=16)
def grid_format(spec: OFDMSpec) -> _runtime.GridFormat:
    """What all grids of a numerology have in common, for C++."""
    return _runtime.GridFormat(spec.grid_shape, spec.id, spec.slot_samples)


def complex_to_pmt(values: NDArray[np.complex64]) -> Any:
    """Return a c32vector of an array's elements in C order.

    It is built from its serialised form, which is big-endian: pmt.init_c32vector, which takes element after element,
    needs 2 ms in place of 0.1 for 16 antennas, 14 symbols and 48 subcarriers.
    """
    words = np.ascontiguousarray(values, np.complex64).reshape(-1).view(np.uint32)
    data = words.astype(">u4").tobytes()  # twice as fast as by ">c8"
    return pmt.deserialize_str(C32VECTOR + struct.pack(">I", len(data) // 8) + PADDING + data)


def complex_from_pmt(vector: Any) -> NDArray[np.complex64]:
    """Return the complex64 [n] of a c32vector; ValueError for anything else."""
    if not pmt.is_c32vector(vector):
        raise ValueError("found no c32vector, expected one")
    return np.frombuffer(pmt.serialize_str(vector), ">u4", offset=8).astype(np.uint32).view(np.complex64)


def grid_to_pmt(grid: NDArray[np.complex64], numerology: str, facts: dict[str, Any]) -> Any:
    """Return a PDU: a dict (`facts`, `shape` as a tuple of uint64, `numerology` as a symbol) and a c32vector."""
    return pmt.cons(dict_to_pmt({**facts, "shape": grid.shape, "numerology": numerology}), complex_to_pmt(grid))


def grid_from_pmt(message: Any) -> tuple[dict[str, Any], NDArray[np.complex64]]:
    """Return the dict of a PDU as Python types, and its complex64 array in the shape of the dict.

    Raises ValueError for another message, and where shape and length differ.
    """
    facts = _facts(message)
    values = complex_from_pmt(pmt.cdr(message))
    declared = pmt.to_python(pmt.dict_ref(facts, _SHAPE, pmt.PMT_NIL))
    shape = declared if isinstance(declared, tuple) else (len(values),)
    if any(not isinstance(side, int) or side < 0 for side in shape) or math.prod(shape) != len(values):
        raise ValueError(f"found {len(values)} values of shape {shape}, expected as many as the shape has")
    return pmt.to_python(facts), values.reshape(shape)


def slot_to_pmt(slot: Slot, spec: OFDMSpec) -> Any:
    """Return the PDU of a slot: its grid, antenna after antenna, symbol after symbol, and a dict.

    start_sample, n_samples, n_nonfinite: uint64; rate_hz: double, 0 when unknown; time: tuple (uint64, double) of the
    first sample as in rx_time, or PMT_NIL; sync_metric: double, PMT_NIL where a tag found the slot; arrived_s: double,
    monotonic clock of this machine, or PMT_NIL; shape: tuple (antennas, symbols, subcarriers); numerology: symbol, its
    id.
    """
    return pmt.deserialize_str(_runtime.slot_bytes(as_native(slot), grid_format(spec)))


def batch_to_pmt(slots: Sequence[Slot], spec: OFDMSpec) -> Any:
    """Return one PDU of several slots: their grids in one c32vector, and a dict as in `slot_to_pmt`.

    `shape` is (slots, antennas, symbols, subcarriers). Each fact of single slots is a vector, with one value a slot.
    """
    return pmt.deserialize_str(_runtime.batch_bytes([as_native(slot) for slot in slots], grid_format(spec)))


def slot_from_pmt(message: Any, spec: OFDMSpec) -> Slot:
    """Return the slot of a PDU.

    All keys of the dict are optional; a PDU without a numerology must have the right number of values. Raises
    ValueError, naming the difference, for another message or numerology.
    """
    slots = slots_from_pmt(message, spec)
    if len(slots) != 1:
        raise ValueError(f"shape: found {len(slots)} slots, expected one")
    return slots[0]


def slots_from_pmt(message: Any, spec: OFDMSpec) -> list[Slot]:
    """Return the slots of a PDU of one slot, or of several (`batch_pdus`), see `slot_from_pmt`."""
    native = _runtime.slots_of_bytes(pmt.serialize_str(message), grid_format(spec))
    return [as_slot(slot, spec) for slot in native]


def _facts(message: Any) -> Any:
    if not pmt.is_pair(message) or not pmt.is_dict(pmt.car(message)):
        raise ValueError("found no pair (dictionary . vector), expected one")
    return pmt.car(message)
