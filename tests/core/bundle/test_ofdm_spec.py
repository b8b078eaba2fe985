# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDMSpec: the paper's numerology and 5G NR's, through JSON and back; contradictions refused by name."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from wavesfm_core.bundle.ofdm_spec import OFDMSpec, quadrants
from wavesfm_core.bundle.spec import from_dict, to_dict
from wavesfm_core.errors import BundleError, InputError

PAPER = OFDMSpec(16, 14, 48, 48, (6,) * 14, 30e3, (2, 11), "0123" * 24)
NR = OFDMSpec(  # 106 resource blocks at 30 kHz: a slot is half a subframe, so its first prefix is the longer one
    8, 14, 1272, 2048, (176,) + (144,) * 13, 30e3, (2, 11), "31" * 636, pilot_step=2
)


def test_the_papers_numerology() -> None:
    assert PAPER.rate_hz == 1.44e6 and PAPER.slot_samples == 14 * 54 and PAPER.grid_shape == (16, 14, 48)
    np.testing.assert_array_equal(PAPER.symbol_starts, 6 + 54 * np.arange(14))
    np.testing.assert_array_equal(PAPER.frequencies, np.arange(-24, 24))
    np.testing.assert_array_equal(PAPER.bins, np.fft.fftfreq(48, 1 / 48)[np.r_[24:48, 0:24]] % 48)
    np.testing.assert_array_equal(PAPER.pilot_subcarriers, np.arange(48))
    assert PAPER.pilots.shape == (2, 48) and PAPER.pilots.dtype == np.complex64
    np.testing.assert_allclose(PAPER.pilots[1, :4], np.array([1 + 1j, -1 + 1j, -1 - 1j, 1 - 1j]) / 2**0.5, atol=1e-7)


def test_the_numerology_of_5g_nr() -> None:
    assert NR.rate_hz == 61.44e6 and NR.slot_samples == 30720  # half a millisecond
    assert (NR.symbol_starts[0], NR.symbol_starts[1]) == (176, 176 + 2048 + 144)
    assert NR.symbol_starts[13] + 2048 == NR.slot_samples
    assert (NR.frequencies[0], NR.frequencies[-1]) == (-636, 635) and (NR.bins[0], NR.bins[636]) == (1412, 0)
    np.testing.assert_array_equal(NR.pilot_subcarriers, np.arange(0, 1272, 2))
    assert NR.pilots.shape == (2, 636)


def test_dc_may_be_left_out() -> None:
    even = OFDMSpec(1, 1, 4, 8, (0,), 1.0, (0,), "0000", dc_null=True)
    np.testing.assert_array_equal(even.frequencies, [-2, -1, 1, 2])
    np.testing.assert_array_equal(even.bins, [6, 7, 1, 2])
    odd = OFDMSpec(1, 1, 3, 8, (0,), 1.0, (0,), "000", dc_null=True)
    np.testing.assert_array_equal(odd.frequencies, [-2, -1, 1])
    with pytest.raises(BundleError, match="subcarriers"):
        OFDMSpec(1, 1, 8, 8, (0,), 1.0, (0,), "0" * 8, dc_null=True)
    full = OFDMSpec(1, 1, 7, 8, (0,), 1.0, (0,), "0" * 7, dc_null=True)
    np.testing.assert_array_equal(full.bins, [4, 5, 6, 7, 1, 2, 3])


@pytest.mark.parametrize("spec", [PAPER, NR])
def test_through_json_and_back(spec: OFDMSpec) -> None:
    again = from_dict(OFDMSpec, json.loads(json.dumps(to_dict(spec))), "bundle.json")
    assert again == spec and hash(again) == hash(spec) and again.id == spec.id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("antennas", 0),
        ("antennas", 10**9),
        ("symbols", 0),
        ("symbols", 13),  # then the prefixes are one too many
        ("subcarriers", 49),
        ("subcarriers", 0),
        ("fft_size", 1),
        ("fft_size", 1 << 20),
        ("prefix_samples", (6,) * 13),
        ("prefix_samples", (-1,) * 14),
        ("prefix_samples", (49,) * 14),
        ("spacing_hz", 0.0),
        ("spacing_hz", float("nan")),
        ("pilot_symbols", ()),
        ("pilot_symbols", (11, 2)),
        ("pilot_symbols", (2, 2)),
        ("pilot_symbols", (2, 14)),
        ("pilot_symbols", (-1, 2)),
        ("pilot_quadrants", "0" * 95),
        ("pilot_quadrants", "4" * 96),
        ("pilot_step", 0),
        ("pilot_step", 49),
        ("pilot_offset", 1),
        ("pilot_offset", -1),
    ],
)
def test_contradictions_are_refused_by_name(field: str, value: object) -> None:
    blamed = "prefix_samples" if (field, value) == ("symbols", 13) else field
    with pytest.raises(BundleError, match=f"numerology: {blamed}: found"):
        dataclasses.replace(PAPER, **{field: value})
    values = {**to_dict(PAPER), field: value}
    with pytest.raises(BundleError, match=rf"bundle\.json: numerology\.{blamed}: found"):
        from_dict(OFDMSpec, values, "bundle.json")


def test_mistyped_fields_are_refused() -> None:
    for field, value in (("antennas", 16.0), ("pilot_quadrants", 3), ("dc_null", 1), ("prefix_samples", 6)):
        with pytest.raises(BundleError, match=f"bundle.json: {field}: found"):
            from_dict(OFDMSpec, {**to_dict(PAPER), field: value}, "bundle.json")


def test_arrays_cannot_be_altered() -> None:
    for array in (PAPER.pilots, PAPER.bins, PAPER.symbol_starts, PAPER.pilot_subcarriers, PAPER.frequencies):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_another_numerology_is_named() -> None:
    PAPER.require(dataclasses.replace(PAPER), "slots.npz")
    with pytest.raises(InputError, match=r"slots\.npz: numerology\.antennas: found 8, expected 16"):
        PAPER.require(dataclasses.replace(PAPER, antennas=8), "slots.npz")
    assert dataclasses.replace(PAPER, pilot_symbols=(2, 10)).id != PAPER.id


def test_quadrants_of_points() -> None:
    assert quadrants(PAPER.pilots) == PAPER.pilot_quadrants
    assert quadrants(np.array([[1 + 1j], [1 - 1j]]) / np.sqrt(2)) == "03"
    for points in ([1.0], [1 + 1j], [complex("nan")], [0]):
        with pytest.raises(InputError, match=r"pilots: points: found .*QPSK of unit power"):
            quadrants(points)
