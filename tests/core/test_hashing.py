# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes of files and JSON values."""

import hashlib

import pytest
from wavesfm_core.hashing import file_sha256, json_sha256


def test_a_file_hashes_to_the_sha256_of_its_bytes(tmp_path):
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_order_of_keys_does_not_matter_and_values_do():
    assert json_sha256({"a": 1, "b": [2.5]}) == json_sha256({"b": [2.5], "a": 1})
    assert json_sha256({"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert json_sha256({"a": 1}) != json_sha256({"a": 2})


def test_other_types_are_refused():
    with pytest.raises(TypeError):
        json_sha256(object())
