# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations: every fault in one sentence, and what a right one becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.live.check import check
from wavesfm_core.live.config import LiveConfig, all_faults, is_loopback, read_secret, split_address
from wavesfm_core.live.yaml_file import load_yaml, parse_yaml

ROOT = Path(__file__).parents[2]
BUNDLE = str(ROOT / "models/rf20-nano")
RIGHT = f"""
source: {{kind: rtl, address: "127.0.0.1:1234", rate_hz: 2.4e6, centre_hz: 433.92e6, gain_db: auto}}
model: {{bundle: {BUNDLE}, device: cpu}}
band: {{looks_per_s: 20, hold_s: 0.5}}
ring_s: 10
web: {{listen: "[::1]:8080"}}
outputs:
  - {{kind: json, path: "-"}}
  - {{kind: mqtt, host: broker, kinds: [event]}}
record: {{folder: recordings, triggers: [{{label: lora}}, {{unknown: true}}], quota_bytes: 5e9}}
log_level: info
"""


def sentences(text: str) -> list[str]:
    return [str(fault) for fault in all_faults(parse_yaml(text, "f.yml"), "f.yml")]


def test_a_right_configuration_is_taken() -> None:
    config = LiveConfig.from_values(parse_yaml(RIGHT, "f.yml"), "f.yml")
    assert config.source.rate_hz == 2.4e6 and config.source.gain_db == "auto"
    assert (config.web.host, config.web.port) == ("::1", 8080)
    assert config.band.looks_per_s == 20 and config.record.quota_bytes == 5_000_000_000
    assert [output["kind"] for output in config.outputs] == ["json", "mqtt"]


def test_every_fault_is_named_in_one_sentence() -> None:
    found = sentences(
        """
source: {kind: rtlsdr, rate_hz: 12, gain_db: much}
models: {}
web: {listen: 8080}
outputs:
  - {kind: json}
  - {kind: mqtt, host: x, port: 70000, hots: y}
record: {folder: x, triggers: [{label: a, unknown: true}]}
"""
    )
    assert found == [
        "f.yml: model: found nothing, expected a mapping with bundle",
        "f.yml: models: found an unknown field, expected model",
        "f.yml: record.triggers.0: found {'label': 'a', 'unknown': True}, "
        "expected a mapping with one of label, unknown, power_db and every_s",
        "f.yml: source.gain_db: found 'much', expected a gain from -100 to 200 dB, or auto",
        "f.yml: source.kind: found 'rtlsdr', expected file, stdin, zmq, rtl, soapy, uhd or simulated",
        "f.yml: source.rate_hz: found 12, expected a sample rate of 1000 to 1e9 Hz",
        "f.yml: web.listen: found 8080, expected ADDRESS:PORT such as 127.0.0.1:8080",
        "f.yml: outputs.0.path: found nothing, expected a file, or - for standard output",
        "f.yml: outputs.1.hots: found an unknown field, expected host",
        "f.yml: outputs.1.port: found 70000, expected a port from 1 to 65535",
    ]


def test_contradictions_are_named() -> None:
    found = sentences(
        """
source: {kind: zmq}
model: {bundle: x}
band: {looks: 3}
ring_s: 2
web: {listen: "0.0.0.0:80"}
outputs: [{kind: prometheus, listen: "10.0.0.1:9108"}]
record: {folder: x, triggers: [{unknown: true}], before_s: 1, after_s: 2}
scan: {plan: p.yml}
"""
    )
    fields = [sentence.split(": ")[1] for sentence in found]
    assert fields == ["band.looks", "source.address", "ring_s", "web.token_file", "outputs.0.listen", "source.kind"]
    assert "ring_s of 4 or more" in found[2]


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x", "a: [", "\x00"])
def test_strange_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"f\.yml"):
        parse_yaml(text, "f.yml")


def test_numbers_are_those_of_yaml_1_2() -> None:
    values = parse_yaml("[2.4e6, 1e9, 5, -3, 1.5, '7', 1e-3]", "f.yml")
    assert values == [2.4e6, 1e9, 5, -3, 1.5, "7", 1e-3]
    assert isinstance(values[2], int)


def test_the_check_looks_at_files_too(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("short\n")
    token.chmod(0o600)
    values = parse_yaml(RIGHT, "f.yml")
    values["source"] = {"kind": "file", "address": str(tmp_path / "none.cu8")}
    values["record"]["triggers"].append({"label": "martian"})
    values["record"]["folder"] = str(tmp_path)
    values["web"] = {"listen": "0.0.0.0:8080", "token_file": str(token)}
    values["outputs"] = [{"kind": "history", "path": str(tmp_path / "none" / "h.sqlite")}]
    places = [str(fault).split(": ")[1] for fault in check(values, "f.yml")]
    assert places == ["triggers.2.label", "first line", "source.address", "outputs.0.path"]
    token.write_text("a-token-that-is-long\n")
    token.chmod(0o644)
    assert any("permissions" in str(fault) for fault in check(values, "f.yml"))


def test_secrets_are_read_with_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\nmore")
    assert read_secret(path, 16) == "0123456789abcdef"
    path.write_text("0123456789abcde f")
    with pytest.raises(ConfigurationError, match="letters"):
        read_secret(path, 16)
    with pytest.raises(ConfigurationError, match="a file"):
        read_secret(tmp_path / "none")


def test_addresses_are_split() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "10.0.0.1", "x.org")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(ConfigurationError):
        split_address("host")


def test_the_example_configuration_is_right() -> None:
    values = load_yaml(ROOT / "examples/live/wavesfm-live.yml")
    assert all_faults(values, "wavesfm-live.yml") == []
