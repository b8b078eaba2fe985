# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of arrays: what is asked for is read, and a file cannot make the reader allocate or run anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle.npz import load_arrays, npz_names, read_npz
from wavesfm_core.errors import BundleError, InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(6.0).reshape(2, 3), y=np.array(4), big=np.zeros(1000))
    return path


def test_named_arrays_are_read_and_the_others_do_not_count(archive: Path) -> None:
    found = read_npz(archive, ("x", "y"), limit_bytes=1000)
    assert found.keys() == {"x", "y"}
    np.testing.assert_array_equal(found["x"], np.arange(6.0).reshape(2, 3))
    assert npz_names(archive) == {"x", "y", "big"}
    with pytest.raises(InputError, match=r"a\.npz: size of the arrays: found \d+ bytes, expected at most 1000 bytes"):
        read_npz(archive, ("x", "big"), limit_bytes=1000)
    assert load_arrays(archive, 1000, BundleError, ("x", "absent")).keys() == {"x"}


def test_a_missing_array_and_a_missing_file_are_named(archive: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npz: z: found arrays x, y, big, expected an array z"):
        read_npz(archive, ("x", "z"))
    with pytest.raises(InputError, match=r"b\.npz: file: found nothing"):
        read_npz(archive.with_name("b.npz"), ("x",))


def member(header: bytes) -> bytes:
    """A .npy file of version 1.0 with this header and no data."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}"),
            "x: found 8796093022208 bytes",
        ),
        (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "x: found Python objects"),
        (member(b"{'descr': '<f8', 'shape': " + b"(" * 5000), "contents: found an unreadable archive"),
        (member(b"{'descr': '<f8' 'shape'"), "contents: found an unreadable archive"),
        (b"no array", "contents: found an unreadable archive"),
    ],
)
def test_headers_are_not_trusted(tmp_path: Path, content: bytes, message: str) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("x.npy", content)
    (tmp_path / "a.npz").write_bytes(data.getvalue())
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "a.npz", ("x",))
