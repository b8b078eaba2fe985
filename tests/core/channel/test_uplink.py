# SPDX-License-Identifier: GPL-3.0-or-later
"""UplinkSource and the file of its channels."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import make_demodulator
from wavesfm_core.channel.uplink import UplinkSource, load_channels, save_channels
from wavesfm_core.errors import ConfigurationError, InputError

SPEC = OFDMSpec(3, 4, 12, 16, (5, 3, 3, 3), 15e3, (1, 3), "013210" * 2, pilot_step=2, pilot_offset=1)


def channels(slots: int = 3, spec: OFDMSpec = SPEC, seed: int = 0) -> np.ndarray:
    parts = np.random.default_rng(seed).standard_normal((slots, *spec.grid_shape, 2)).astype(np.float32)
    return (parts * np.float32(0.5**0.5)).view(np.complex64)[..., 0]


def test_a_slot_is_what_was_sent_times_the_channel() -> None:
    source = UplinkSource(SPEC, channels(), snr_db=float("inf"))
    slot = source.slot()
    assert slot.samples.shape == (3, SPEC.slot_samples) and slot.samples.dtype == np.complex64
    assert slot.sent.dtype == slot.channel.dtype == np.complex64
    grid = make_demodulator(SPEC).demodulate(slot.samples)
    np.testing.assert_allclose(grid, slot.sent * slot.channel, atol=2e-6)
    np.testing.assert_array_equal(slot.sent[np.ix_(SPEC.pilot_symbols, SPEC.pilot_subcarriers)], SPEC.pilots)
    np.testing.assert_allclose(np.abs(slot.sent), 1, atol=1e-6)
    for start, prefix in zip(SPEC.symbol_starts, SPEC.prefix_samples):
        before, end = slot.samples[:, start - prefix : start], slot.samples[:, start + 16 - prefix : start + 16]
        np.testing.assert_array_equal(before, end)


def test_data_is_all_of_qpsk() -> None:
    source = UplinkSource(SPEC, channels())
    sent = np.stack([source.slot().sent for _ in range(20)])[:, 0]
    values, counts = np.unique(np.round(np.angle(sent) / (np.pi / 4)).astype(int), return_counts=True)
    assert values.tolist() == [-3, -1, 1, 3] and counts.min() > 30


def test_channels_are_walked_to_the_last_and_back() -> None:
    h = channels(4)
    source = UplinkSource(SPEC, h)
    symbols = np.concatenate([source.slot().channel for _ in range(16)], axis=1)
    once = np.concatenate(list(h), axis=1)
    np.testing.assert_array_equal(symbols, np.concatenate([once, once[:, ::-1]] * 2, axis=1))


def test_speed_is_how_far_the_channel_moves_in_a_symbol() -> None:
    h = channels(4)
    once = np.concatenate(list(h), axis=1)
    source = UplinkSource(SPEC, h, speed=2)
    np.testing.assert_array_equal(source.slot().channel, once[:, 0:8:2])
    source.speed = 0.5
    expected = [once[:, 8], (once[:, 8] + once[:, 9]) / 2, once[:, 9], (once[:, 9] + once[:, 10]) / 2]
    np.testing.assert_allclose(source.slot().channel, np.stack(expected, axis=1), atol=1e-6)
    source.speed = 0
    np.testing.assert_array_equal(source.slot().channel, np.repeat(once[:, 10:11], 4, axis=1))
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="speed"):
            source.speed = wrong


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_noise_is_as_strong_as_the_snr_says(snr_db: float) -> None:
    source = UplinkSource(SPEC, channels(1))
    source.snr_db = snr_db
    demodulate = make_demodulator(SPEC).demodulate
    slots = [source.slot() for _ in range(100)]
    noise = np.stack([demodulate(slot.samples) - slot.sent * slot.channel for slot in slots])
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10 ** (-snr_db / 10), rel=0.05)


def test_the_seed_decides() -> None:
    one, same, other = (UplinkSource(SPEC, channels(), 5.0, seed) for seed in (1, 1, 2))
    first = one.slot().samples
    np.testing.assert_array_equal(first, same.slot().samples)
    assert not np.array_equal(first, other.slot().samples)


@pytest.mark.parametrize("snr_db", [float("nan"), -float("inf")])
def test_an_snr_that_is_none_is_refused(snr_db: float) -> None:
    source = UplinkSource(SPEC, channels())
    with pytest.raises(ConfigurationError, match="uplink: snr_db"):
        source.snr_db = snr_db
    assert source.snr_db == 20.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 3, 4, 11), np.complex64), r"shape \(2, 3, 4, 11\), expected slots, 1 or more, of \(3, 4, 12\)"),
        (np.zeros((0, 3, 4, 12), np.complex64), r"shape \(0, 3, 4, 12\)"),
        (np.zeros((3, 4, 12), np.complex64), r"shape \(3, 4, 12\)"),
        (np.zeros((2, 3, 4, 12)), "float64"),
        (np.full((2, 3, 4, 12), np.nan, np.complex64), "NaN or infinity"),
        ([1], "list"),
    ],
)
def test_wrong_channels_are_refused(wrong: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"uplink: channels: found {message}"):
        UplinkSource(SPEC, wrong)
    with pytest.raises(InputError, match=f"channels: found {message}"):
        save_channels(tmp_path / "h.npz", wrong, SPEC)
    assert not (tmp_path / "h.npz").exists()


def test_saved_channels_come_back(tmp_path: Path) -> None:
    path, h = tmp_path / "walk", channels(5)
    save_channels(path, h, SPEC)
    got, spec = load_channels(path, SPEC)
    assert spec == SPEC and got.dtype == np.complex64 and got.shape == h.shape
    np.testing.assert_allclose(got, h, rtol=0, atol=2e-3)  # 11 bits of mantissa, parts up to 4
    assert path.stat().st_size < 5 * 3 * 4 * 12 * 4 + 2000


def test_another_numerology_is_refused_by_name_but_other_pilots_are_not(tmp_path: Path) -> None:
    save_channels(tmp_path / "h.npz", channels(), SPEC)
    other_pilots = dataclasses.replace(SPEC, pilot_symbols=(0,), pilot_quadrants="000", pilot_step=4)
    assert load_channels(tmp_path / "h.npz", other_pilots)[1] == SPEC
    with pytest.raises(InputError, match=r"h\.npz: numerology\.spacing_hz: found 15000\.0, expected 30000\.0"):
        load_channels(tmp_path / "h.npz", dataclasses.replace(SPEC, spacing_hz=30e3))
    with pytest.raises(InputError, match=r"h\.npz: numerology\.antennas: found 3, expected 2"):
        load_channels(tmp_path / "h.npz", dataclasses.replace(SPEC, antennas=2))


def test_too_strong_channels_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"values up to 70000, expected at most 65504"):
        save_channels(tmp_path / "h.npz", np.full((1, *SPEC.grid_shape), 7e4, np.complex64), SPEC)


def saved_with(path: Path, **changes: object) -> Path:
    """A channel file of which some arrays are others, or (None) not there."""
    save_channels(path, channels(), SPEC)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays.update(changes)
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": None}, "channels: found nothing"),
        ({"channels": np.zeros((3, 3, 4, 12, 2), np.float32)}, "channels: found float32"),
        ({"channels": np.zeros((3, 3, 4, 12), np.float16)}, "channels: found float16 .3, 3, 4, 12."),
        ({"channels": np.zeros((3, 2, 4, 12, 2), np.float16)}, "channels: found shape"),
        ({"channels": np.full((3, 3, 4, 12, 2), np.inf, np.float16)}, "channels: found NaN or infinity"),
        ({"numerology": None}, "numerology: found nothing"),
        ({"numerology": np.zeros(3)}, "numerology: found float64"),
        ({"numerology": np.frombuffer(b"{", np.uint8)}, "numerology: found no JSON"),
        ({"numerology": np.frombuffer(b"[]", np.uint8)}, "OFDMSpec: found list"),
        ({"numerology": np.frombuffer(b'{"antennas": 1}', np.uint8)}, "symbols: found nothing"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(changes: dict, message: str, tmp_path: Path) -> None:
    path = saved_with(tmp_path / "h.npz", **changes)
    with pytest.raises(InputError, match=rf"h\.npz: .*{message}"):
        load_channels(path)


def test_a_file_that_claims_more_than_it_has_allocates_nothing(tmp_path: Path) -> None:
    path = saved_with(tmp_path / "h.npz", channels=None)
    header = io.BytesIO()
    shape = (1 << 20, *SPEC.grid_shape, 2)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("channels.npy", header.getvalue())
    with pytest.raises(InputError, match=r"channels: found \d+ bytes in a member of"):
        load_channels(path)


def test_no_archive_and_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text(json.dumps({}))
    with pytest.raises(InputError, match="unreadable archive"):
        load_channels(tmp_path / "text.npz")
    with pytest.raises(InputError, match="unreadable archive"):
        load_channels(tmp_path / "none.npz")
    np.savez(tmp_path / "objects.npz", channels=np.array([{}], object))
    with pytest.raises(InputError, match="Python objects"):
        load_channels(tmp_path / "objects.npz")
