# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample conversion: the same values as numpy, for any buffer, and refusals."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import oracle
from wavesfm_core._kernels import to_complex64

BYTES = {"cu8": 2, "cs8": 2, "cs16": 4, "cf32": 8}


@pytest.mark.parametrize("sample_format", ["cu8", "cs8", "cs16"])
def test_every_value_there_is(sample_format: str) -> None:
    raw = np.arange(65536, dtype="<u2").tobytes() if sample_format == "cs16" else bytes(range(256))
    got = to_complex64(raw, sample_format)
    assert got.dtype == np.complex64 and got.flags.c_contiguous
    np.testing.assert_array_equal(got, oracle.to_complex64(raw, sample_format))


@given(raw=st.binary(max_size=600), sample_format=st.sampled_from(sorted(BYTES)), offset=st.integers(0, 3))
def test_any_bytes_at_any_alignment(raw: bytes, sample_format: str, offset: int) -> None:
    view = memoryview(raw)[min(offset, len(raw)) :]
    whole = view[: len(view) - len(view) % BYTES[sample_format]]
    got = to_complex64(whole, sample_format)
    assert got.tobytes() == oracle.to_complex64(bytes(whole), sample_format).tobytes()


def test_known_values() -> None:
    np.testing.assert_array_equal(to_complex64(bytes([0, 255]), "cu8"), [-1 + 1j])
    np.testing.assert_array_equal(to_complex64(bytes([128, 64]), "cs8"), [-1 + 0.5j])
    np.testing.assert_array_equal(to_complex64(b"\x00\x80\x00\x40", "cs16"), [-1 + 0.5j])
    assert to_complex64(b"", "cs16").shape == (0,)


def test_any_buffer_is_taken() -> None:
    values = np.array([[1, -2], [300, -32768]], np.int16)
    expected = oracle.to_complex64(values.tobytes(), "cs16")
    for raw in (values, bytearray(values.tobytes()), array.array("h", values.ravel().tolist())):
        np.testing.assert_array_equal(to_complex64(raw, "cs16"), expected)


def test_cf32_is_a_copy() -> None:
    values = np.array([1 + 2j, np.nan], np.complex64)
    got = to_complex64(values, "cf32")
    values[0] = 0
    assert got[0] == 1 + 2j and np.isnan(got[1])


@pytest.mark.parametrize(("length", "sample_format"), [(1, "cu8"), (3, "cs8"), (6, "cs16"), (12, "cf32")])
def test_part_of_a_sample_is_refused(length: int, sample_format: str) -> None:
    expected = f"found {length} bytes, expected a multiple of {BYTES[sample_format]} for {sample_format}"
    with pytest.raises(ValueError, match=expected):
        to_complex64(bytes(length), sample_format)


def test_an_unknown_format_and_a_strided_buffer_are_refused() -> None:
    with pytest.raises(ValueError, match="found cu16, expected cu8, cs8, cs16 or cf32"):
        to_complex64(b"", "cu16")
    with pytest.raises((BufferError, ValueError)):
        to_complex64(np.zeros(8, np.int16)[::2], "cs16")
