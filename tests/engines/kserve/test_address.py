# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of models on servers."""

from __future__ import annotations

import pytest
from wavesfm_core.engines.kserve.address import KServeAddress, is_kserve, parse_address
from wavesfm_core.errors import ConfigurationError


def test_all_options_are_read() -> None:
    address = parse_address(
        "kserve://radio.example:8001/rf20-nano?protocol=grpc&timeout_s=0.5&retries=3&max_batch=8&fallback=off&version=2"
    )
    assert address == KServeAddress("radio.example", 8001, "rf20-nano", "grpc", 0.5, 3, 8, "off", "2")
    assert (address.netloc, str(address)) == ("radio.example:8001", "kserve://radio.example:8001/rf20-nano")


def test_defaults_and_ipv6() -> None:
    address = parse_address("kserve://[::1]:8000/m")
    assert (address.host, address.netloc, address.protocol) == ("::1", "[::1]:8000", "http")
    assert (address.timeout_s, address.retries, address.max_batch, address.fallback) == (5.0, 1, 64, "cpu")


def test_other_devices_are_no_addresses() -> None:
    assert [is_kserve(each) for each in ("auto", "cpu", "kserve", "kserve://a:1/b")] == [False, False, False, True]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("kserve://host/m", "address: found 'kserve://host/m', expected kserve://HOST:PORT/MODEL"),
        ("kserve://host:99999/m", "device: address: found"),
        ("kserve://host:80/", "device: address: found"),
        ("kserve://user@host:80/m", "device: address: found"),
        ("kserve://host:80/a/b", "device: model: found 'a/b'"),
        ("kserve://host:80/../m", "device: model: found"),
        ("kserve://ho st:80/m", "device: host: found"),
        ("kserve://host:80/m?protocol=ftp", "device: protocol: found 'ftp', expected one of http, grpc"),
        ("kserve://host:80/m?timeout_s=nan", "device: timeout_s: found 'nan'"),
        ("kserve://host:80/m?timeout_s=0", "device: timeout_s: found 0.0"),
        ("kserve://host:80/m?retries=1.5", "device: retries: found '1.5', expected a whole number"),
        ("kserve://host:80/m?retries=99", "device: retries: found 99, expected 0 to 10"),
        ("kserve://host:80/m?fallback=gpu", "device: fallback: found 'gpu'"),
        ("kserve://host:80/m?tls=on", "device: option: found 'tls', expected each once: protocol"),
        ("kserve://host:80/m?retries=1&retries=2", "device: option: found 'retries'"),
    ],
)
def test_a_wrong_part_is_named(address: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(address)
    assert message in str(caught.value)
