# SPDX-License-Identifier: GPL-3.0-or-later
"""Grids survive the way through PMT, and what is no grid of the numerology is refused in words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pmt
import pytest
from gnuradio.wavesfm import _runtime, pdus
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.ofdm_graphs import numerology, slots
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.channel.slots import as_native
from wavesfm_core.types import StreamTime

SPEC = numerology()
SLOT = slots(SPEC, 1)[0]


@given(arrays.arrays(np.complex64, st.integers(0, 40), elements=st.complex_numbers(width=64, allow_nan=False)))
def test_a_c32vector_is_what_gnu_radio_makes_of_the_same_values(values):
    vector = pdus.complex_to_pmt(values)
    assert pmt.is_c32vector(vector)
    np.testing.assert_array_equal(np.array(pmt.c32vector_elements(vector), np.complex64), values)
    np.testing.assert_array_equal(pdus.complex_from_pmt(pmt.init_c32vector(len(values), values.tolist())), values)


@pytest.mark.parametrize("time", [None, StreamTime(7, 0.25)])
@pytest.mark.parametrize("optional", [None, 0.5])
def test_a_slot_returns(time, optional):
    slot = dataclasses.replace(SLOT, start_sample=2**40, time=time, sync_metric=optional, arrived_s=optional)
    back = pdus.slot_from_pmt(pdus.slot_to_pmt(slot, SPEC), SPEC)
    for field in dataclasses.fields(slot):
        if field.name != "grid":
            assert getattr(back, field.name) == getattr(slot, field.name), field.name
    np.testing.assert_array_equal(back.grid, slot.grid)


def test_an_estimate_has_every_key_and_its_type():
    slot = dataclasses.replace(SLOT, start_sample=5, n_samples=6, time=StreamTime(1, 0.5), n_nonfinite=2)
    (answer,) = ChannelPipeline.of(SPEC).native.predict([as_native(slot)])
    message = pmt.deserialize_str(_runtime.answer_bytes(answer, pdus.grid_format(SPEC), 2, 9))
    facts, array = pdus.grid_from_pmt(message)
    assert facts == {
        "bundle_id": "", "method": "ls", "noise_power": answer.noise_power, "snr_db": answer.snr_db,
        "residual": answer.residual, "nmse_db": answer.nmse_db, "backed_off": False, "start_sample": 5, "n_samples": 6,
        "time": (1, 0.5), "latency_s": None, "n_nonfinite": 2, "run": 2, "sequence": 9,
        "rate_hz": SPEC.rate_hz, "shape": SPEC.grid_shape, "numerology": SPEC.id,
    }  # fmt: skip
    assert array.tobytes() == answer.channel(array.size).tobytes()


def test_several_slots_return_from_one_message():
    made = slots(SPEC, 3)
    made[1] = dataclasses.replace(made[1], time=StreamTime(7, 0.25), sync_metric=0.5)
    message = pdus.batch_to_pmt(made, SPEC)
    for slot, back in zip(made, pdus.slots_from_pmt(message, SPEC), strict=True):
        for field in dataclasses.fields(slot):
            if field.name != "grid":
                assert getattr(back, field.name) == getattr(slot, field.name), field.name
        np.testing.assert_array_equal(back.grid, slot.grid)
    with pytest.raises(ValueError, match="found 3 slots, expected one"):
        pdus.slot_from_pmt(message, SPEC)
    with pytest.raises(ValueError, match="start_sample: found 2 values, expected one a slot"):
        few = pmt.dict_add(pmt.car(message), pmt.intern("start_sample"), pmt.make_vector(2, pmt.from_uint64(0)))
        pdus.slots_from_pmt(pmt.cons(few, pmt.cdr(message)), SPEC)


def test_a_bare_pdu_of_the_right_size_is_a_slot():
    message = pmt.cons(pmt.make_dict(), pdus.complex_to_pmt(SLOT.grid))
    slot = pdus.slot_from_pmt(message, SPEC)
    assert (slot.start_sample, slot.n_samples, slot.rate_hz, slot.time) == (0, SPEC.slot_samples, 0.0, None)
    np.testing.assert_array_equal(slot.grid, SLOT.grid)


VECTOR = pdus.complex_to_pmt(SLOT.grid)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (pmt.PMT_NIL, "pair"),
        (pmt.from_long(3), "pair"),
        (VECTOR, "pair"),
        (pmt.cons(pmt.make_dict(), pmt.init_f32vector(2, [1.0, 2.0])), "c32vector"),
        (pmt.cons(pmt.make_dict(), pdus.complex_to_pmt(SLOT.grid[0])), "grid"),
        (pmt.cons(pmt.to_pmt({"numerology": "another"}), VECTOR), "numerology: found another"),
        (pmt.cons(pmt.to_pmt({"numerology": 5}), VECTOR), "numerology: found 5, expected"),
        (pmt.cons(pmt.to_pmt({"shape": (24, 4, 3)}), VECTOR), r"shape: found \(24, 4, 3\), expected \(3, 4, 24\)"),
        (pmt.cons(pmt.to_pmt({"shape": (3, 3)}), VECTOR), "shape"),
        (pmt.cons(pmt.to_pmt({"shape": 288}), VECTOR), "shape: found 288"),
        (pmt.cons(pmt.to_pmt({"shape": np.array([3, 4, 24], np.int32)}), VECTOR), "shape"),
        (pmt.cons(pmt.to_pmt({"start_sample": "x"}), VECTOR), "start_sample"),
        (pmt.cons(pmt.to_pmt({"start_sample": -1}), VECTOR), "start_sample"),
        (pmt.cons(pmt.to_pmt({"start_sample": 1e20}), VECTOR), "start_sample: found 1e.20, expected a count below"),
        (pmt.cons(pmt.to_pmt({"n_nonfinite": 2.0**64}), VECTOR), "n_nonfinite"),
        (pmt.cons(pmt.to_pmt({"rate_hz": float("nan")}), VECTOR), "rate_hz"),
        (pmt.cons(pmt.to_pmt({"time": 3}), VECTOR), "time: not a tuple"),
        (pmt.cons(pmt.to_pmt({"time": (0, -0.5)}), VECTOR), "time: not a time"),
    ],
)
def test_what_is_no_slot_of_the_numerology_is_refused(message, said):
    with pytest.raises(ValueError, match=said):
        pdus.slot_from_pmt(message, SPEC)


def test_a_shape_that_is_not_the_vectors_is_refused():
    for shape in ((2, 3), (1.5, 2), (-1, -288)):
        message = pmt.cons(pmt.to_pmt({"shape": shape}), VECTOR)
        with pytest.raises(ValueError, match="shape"):
            pdus.grid_from_pmt(message)
