# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats by the bytes: right on real recordings, and each of them read as something else is doubted."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.raw_statistics import detect, doubt, is_counter, pieces
from wavesfm_core.recordings.sample_formats import FORMATS

MANIFEST_FORMATS = {"cu8": "cu8", "cs8": "cs8", "cs16_le": "cs16", "cf32_le": "cf32"}
DETECTED = (
    "cu8",
    "cs8",
    "cs16",
    "cs16be",
    "cu16",
    "cu16be",
    "cs32",
    "cs32be",
    "cu32",
    "cf32",
    "cf32be",
    "cf64",
    "cf64be",
)


def encoded(values: np.ndarray, name: str) -> np.ndarray:
    """Real values [2 n] below 1 as the bytes of a complex format."""
    each = FORMATS[name]
    order = ">" if each.big_endian else "<"
    if each.kind == "f":
        return values.astype(f"{order}f{each.value_bytes}").view(np.uint8)
    full, zero = 2.0 ** (each.bits - 1), 2.0 ** (each.bits - 1) - 0.5 if each.kind == "u" else 0.0
    low, high = (0, 2 * full - 1) if each.kind == "u" else (-full, full - 1)
    kind = "u" if each.kind == "u" else "i"
    return np.clip(np.rint(values * full + zero), low, high).astype(f"{order}{kind}{each.value_bytes}").view(np.uint8)


def signals() -> dict[str, np.ndarray]:
    """Real values [2 n] of I and Q in turn, as receivers give them."""
    rng = np.random.default_rng(2)
    n = 50_000
    noise = rng.normal(size=(n, 2))
    t = np.arange(n)
    tone = np.stack([np.cos(0.02 * t), np.sin(0.02 * t)], axis=1)
    bursts = (t % 5000 < 1000)[:, None]
    cases = {
        "noise": 0.2 * noise,
        "weak noise": 0.02 * noise,
        "constant envelope": 0.7 * tone + 0.01 * noise,
        "bursts": 0.5 * tone * bursts + 0.02 * noise,
        "offset": 0.1 * noise + [0.05, -0.03],
        "clipped": np.clip(0.8 * noise, -0.99, 0.99),
    }
    return {name: values.reshape(-1) for name, values in cases.items()}


@pytest.mark.parametrize("name", DETECTED)
@pytest.mark.parametrize("case", signals())
def test_made_signals(case: str, name: str) -> None:
    found = detect(encoded(signals()[case], name))
    assert found in (name, None)
    if not (case == "clipped" and name.startswith(("cs", "cu"))):
        assert found == name


def test_each_format_read_as_another_is_doubted() -> None:
    values = signals()["noise"]
    for name in DETECTED:
        raw = encoded(values, name)
        assert doubt(raw, name) is None
        for other in DETECTED:
            if other != name:
                assert str(doubt(raw, other)).startswith(f"the bytes look like {name} and not like {other}: ")


def recordings(shared_data: Path) -> list[tuple[Path, str]]:
    with (shared_data / "MANIFEST.csv").open(newline="") as file:
        entries = [each for each in csv.DictReader(file) if each["format"] in MANIFEST_FORMATS]
    return [(shared_data / each["file"], MANIFEST_FORMATS[each["format"]]) for each in entries]


def test_no_real_recording_is_doubted_and_nearly_all_misreadings_are(shared_data: Path) -> None:
    counts: Counter[str] = Counter()
    for path, name in recordings(shared_data):
        with open_recording(path, sample_format=name) as recording:
            assert recording.notes == (), path
        for other in MANIFEST_FORMATS.values():
            if other != name:
                with open_recording(path, sample_format=other) as recording:
                    doubted = [note for note in recording.notes if "look like" in note]
                counts["doubted" if doubted else "silent"] += 1
                assert all(f"look like {name} " in note for note in doubted), path
    assert counts["doubted"] + counts["silent"] == 3 * 57
    assert counts["silent"] <= 3  # of one recording, of 16 bits made from 8


def test_what_holds_no_samples_has_no_format(shared_data: Path) -> None:
    for path in [*shared_data.glob("csi_csikit_other/*.csv"), *shared_data.glob("uwb_cir_apartment/1*.log")]:
        raw = np.fromfile(path, np.uint8)
        assert detect(np.concatenate([raw[slice(*each)] for each in pieces(len(raw), 16)])) is None, path


def test_too_little_is_left_undecided() -> None:
    raw = encoded(signals()["noise"], "cf32")
    assert detect(raw[:4000]) is None
    assert detect(np.zeros(100_000, np.uint8)) is None
    assert detect(np.zeros(0, np.uint8)) is None


def test_random_bytes_are_left_undecided() -> None:
    assert detect(np.frombuffer(np.random.default_rng(1).bytes(1 << 20), np.uint8)) is None


def test_a_counter_is_a_test_pattern() -> None:
    counting = np.arange(100_000).astype(np.uint8)
    assert is_counter(counting)
    assert "test pattern" in str(doubt(counting, "cu8"))


@pytest.mark.parametrize("n_bytes", [0, 16, 1 << 18, (1 << 18) + 16, 10**9, 10**12])
def test_pieces_lie_within_the_file(n_bytes: int) -> None:
    places = list(pieces(n_bytes, 16))
    assert sum(stop - first for first, stop in places) <= 1 << 18
    assert all(0 <= first <= stop <= n_bytes and first % 16 == 0 for first, stop in places)


def test_the_bytes_go_before_the_suffix_and_a_chosen_format_before_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.cs16"
    path.write_bytes(encoded(signals()["noise"], "cf32").tobytes())
    with open_recording(path) as recording:
        assert recording.sample_format == "cf32"
        assert "look like cf32 and not like cs16" in recording.notes[0]
        assert "--format cs16 insists" in recording.notes[0]
    with open_recording(path, sample_format="cs16") as recording:
        assert recording.sample_format == "cs16"
        assert "look like cf32 and not like cs16" in recording.notes[0]
