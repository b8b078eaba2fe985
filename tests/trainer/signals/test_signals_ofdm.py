# SPDX-License-Identifier: GPL-3.0-or-later
"""The OFDM classes: the contract of an emission, and measured properties of each standard."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from wavesfm_trainer.signals import ofdm
from wavesfm_trainer.signals.standards import lte, nr, sidelink, wifi_frames

MODULES = ("cellular", "wifi", "dab", "dvb_t")
SEEDS = range(6)


def load(name):
    return import_module(f"wavesfm_trainer.signals.classes.{name}")


def make(name, seed, duration_s, view_hz):
    return load(name).SIGNAL.make(np.random.default_rng(seed), duration_s, view_hz)


def bandwidth_99(iq, rate_hz):
    """Width in Hz that holds the middle 99 % of the power."""
    power = np.fft.fftshift(np.abs(np.fft.fft(iq)) ** 2)
    share = np.cumsum(power) / power.sum()
    return (np.searchsorted(share, 0.995) - np.searchsorted(share, 0.005)) * rate_hz / len(iq)


def repeat_at(iq, lag_s, rate_hz):
    """Normalised correlation of a signal with itself `lag_s` later."""
    lag = round(lag_s * rate_hz)
    return abs(np.vdot(iq[:-lag], iq[lag:])) / np.vdot(iq, iq).real


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("view_hz", [0.25e6, 1.92e6, 8e6, 25e6])
@pytest.mark.parametrize("duration_s", [2e-4, 5e-4, 4e-3])
def test_every_view_and_duration_gives_a_signal_on_the_air(name, view_hz, duration_s):
    for seed in SEEDS:
        emission = make(name, seed, duration_s, view_hz)
        assert emission.iq.dtype == np.complex64
        assert len(emission.iq) >= duration_s * emission.rate_hz
        assert np.isfinite(emission.iq).all()
        assert 0 < emission.occupied_hz <= min(view_hz, emission.rate_hz) * 1.001
        power = np.abs(emission.iq) ** 2
        assert power[power > 0].mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", MODULES)
def test_the_seed_decides_everything(name):
    first, same, other = (make(name, seed, 3e-3, 20e6) for seed in (1, 1, 2))
    assert np.array_equal(first.iq, same.iq) and first.rate_hz == same.rate_hz
    assert len(first.iq) != len(other.iq) or not np.allclose(first.iq, other.iq)


@pytest.mark.parametrize("name", MODULES)
def test_views_stay_where_receivers_are(name):
    signal = load(name).SIGNAL
    assert all(0.25e6 <= view.low_hz <= view.high_hz <= 25e6 for view in signal.views)
    assert signal.label == name.replace("_", "-")


def test_modulate_puts_a_carrier_at_its_frequency_through_all_prefixes():
    band = ofdm.Band(fft_size=50, spacing_hz=15e3, centre=0, low=-25, high=25)
    grid = np.zeros((14, 50), np.complex64)
    prefix_s, length_s = lte.symbol_times(1)
    useful_s = np.cumsum(length_s) - length_s + prefix_s
    grid[:, 25 + 7] = np.exp(2j * np.pi * 7 * 15e3 * useful_s)  # one tone without a break in phase
    iq = ofdm.modulate(grid, band, prefix_s, length_s) * 50
    expected = np.exp(2j * np.pi * 7 * 15e3 * np.arange(len(iq)) / band.rate_hz)
    assert len(iq) == 750
    assert np.abs(iq - expected).max() < 0.02  # starts are rounded to 1/32 sample


def test_a_narrow_view_shows_the_middle_of_the_wide_synthesis():
    prefix_s, length_s = lte.symbol_times(2)
    rng = np.random.default_rng(3)
    wide = ofdm.Band(256, 15e3, 0, -100, 101)
    narrow = ofdm.Band(64, 15e3, 0, -20, 21)
    grid = np.zeros((28, 201), np.complex64)
    grid[:, 80:121] = ofdm.qam(rng, (28, 41), 16)
    long = ofdm.modulate(grid, wide, prefix_s, length_s)[::4] * 256
    short = ofdm.modulate(grid[:, 80:121], narrow, prefix_s, length_s) * 64
    error = np.abs(long - short)
    assert np.median(error) < 0.02 * np.sqrt(41) and len(long) == len(short)


@pytest.mark.parametrize("order", [4, 16, 64, 256])
def test_qam_has_unit_power_and_all_its_points(order):
    points = ofdm.qam(np.random.default_rng(0), (64, 256), order)
    assert len(np.unique(points)) == order
    assert (np.abs(points) ** 2).mean() == pytest.approx(1, abs=0.03)


def test_window_meets_the_only_active_row():
    active = np.zeros(200, bool)
    active[120] = True
    length_s = np.full(200, 71e-6)
    for seed in range(20):
        start_s = ofdm.window(np.random.default_rng(seed), length_s, active, 0.5e-3)
        assert start_s < 121 * 71e-6 and start_s + 0.5e-3 > 120 * 71e-6


def test_lte_bandwidth_is_that_of_its_resource_blocks():
    band = lte.band_of(20e6, 25)
    iq = lte.cell(np.random.default_rng(0), 12e-3, 25, band, load=1.0)
    assert bandwidth_99(iq, band.rate_hz) == pytest.approx(25 * 180e3, rel=0.04)


@pytest.mark.parametrize("root", [25, 29, 34])
def test_lte_primary_synchronisation_is_the_punctured_zadoff_chu_sequence(root):
    n = np.delete(np.arange(63), 31)
    assert np.delete(lte.pss(root), 31) == pytest.approx(np.exp(-1j * np.pi * root * n * (n + 1) / 63), abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_lte_primary_synchronisation_comes_every_5_ms(seed):
    band = lte.band_of(20e6, 6)
    iq = lte.cell(np.random.default_rng(seed), 20e-3, 6, band, load=0.0)
    peaks = []
    for root in (25, 29, 34):
        spectrum = np.zeros(band.fft_size, complex)
        spectrum[np.arange(-31, 32)] = lte.pss(root)
        replica = np.fft.ifft(spectrum)
        peaks.append(np.abs(np.convolve(iq, replica[::-1].conj(), mode="valid")))
    best = max(peaks, key=np.max)
    found = np.flatnonzero(best > 0.7 * best.max())
    starts = found[np.flatnonzero(np.diff(found, prepend=-1000) > 100)] / band.rate_hz
    assert len(starts) in (3, 4)
    assert np.diff(starts) == pytest.approx(5e-3, abs=3e-6)


def test_lte_prefix_repeats_after_the_useful_part():
    band = lte.band_of(20e6, 25)
    iq = lte.cell(np.random.default_rng(2), 12e-3, 25, band, load=1.0)
    assert repeat_at(iq, 1 / 15e3, band.rate_hz) > 0.03 > repeat_at(iq, 1 / 19e3, band.rate_hz)


@pytest.mark.parametrize("spacing_hz, slots", [(15e3, 1), (30e3, 2)])
def test_nr_slots_fill_a_millisecond(spacing_hz, slots):
    prefix_s, length_s = nr.symbol_times(spacing_hz, slots)
    assert length_s.sum() == pytest.approx(1e-3, rel=1e-9)
    assert prefix_s[0] > prefix_s[1] == pytest.approx(4.6875e-6 * 15e3 / spacing_hz)


def test_nr_synchronisation_sequences_are_orthogonal_enough():
    first = nr._ssb(np.random.default_rng(0), 0, 1.0)
    other = nr._ssb(np.random.default_rng(0), 1, 1.0)
    assert np.count_nonzero(first[0]) == 127 and np.count_nonzero(first[2]) == 127 + 96
    assert abs(np.vdot(first[0], other[0])) < 0.2 * 127


def test_sidelink_leaves_the_last_symbol_silent_and_lasts_a_subframe():
    rows = sidelink._message(np.random.default_rng(0), 3, -300, 10, 1.0)
    assert [row for row, _, _ in rows] == list(range(42, 55))
    assert {len(values) for _, _, values in rows} == {120}


@pytest.mark.parametrize("mbps_symbols", [1, 40])
def test_wifi_legacy_frame_has_its_length_bandwidth_and_training(mbps_symbols):
    band = ofdm.look(20e6, wifi_frames.SPACING_HZ, -29, 30, 0, 64)
    iq = wifi_frames.legacy_frame(np.random.default_rng(0), band, np.array([0]), mbps_symbols, 16)
    assert len(iq) / band.rate_hz == pytest.approx(20e-6 + 4e-6 * mbps_symbols, abs=0.1e-6)
    assert 16e6 < bandwidth_99(iq, band.rate_hz) < 17.8e6
    short, long = iq[2:160], iq[164:320]
    assert repeat_at(short, 0.8e-6, band.rate_hz) > 0.85
    assert repeat_at(long, 3.2e-6, band.rate_hz) > 0.55 > repeat_at(long, 0.8e-6, band.rate_hz)


def test_wifi_data_is_answered_after_sifs():
    wifi = load("wifi")
    net = wifi._Net(np.random.default_rng(0), 20e6)
    net.dsss = False
    bursts = next(found for found in (net.exchange(0.0, 1e-3) for _ in range(20)) if len(found) > 1)
    gap_s = bursts[1].start_s - bursts[0].start_s - bursts[0].duration_s
    assert gap_s == pytest.approx(16e-6)
    for burst in bursts:
        assert len(burst.make()) / net.band.rate_hz == pytest.approx(burst.duration_s, abs=0.5e-6)


def test_wifi_dsss_repeats_the_barker_code():
    band = ofdm.look(20e6, wifi_frames.SPACING_HZ, -29, 30, 0, 64)
    iq = wifi_frames.dsss_frame(np.random.default_rng(0), band, 20, 1, False)
    assert len(iq) / band.rate_hz == pytest.approx(352e-6, abs=1e-6)
    replica = iq[200:220]  # 1 us is one symbol; the code comes back with either sign
    match = np.abs(np.array([np.vdot(replica, iq[200 + 20 * i : 220 + 20 * i]) for i in range(200)]))
    assert np.median(match[: len(iq) // 20 - 12]) > 0.6 * match[0]


@pytest.mark.parametrize("seed", range(3))
def test_dab_null_symbol_comes_every_96_ms(seed):
    emission = make("dab", seed, 0.21, 2.048e6)
    power = np.convolve(np.abs(emission.iq) ** 2, np.ones(200) / 200, mode="same")
    edges = np.flatnonzero(np.diff((power < 0.12).astype(int)))
    length = np.diff(edges) / emission.rate_hz
    nulls = length[(length > 1e-3) & (length < 2e-3)]
    assert len(nulls) >= 2 and nulls == pytest.approx(1.297e-3, abs=0.3e-3)
    starts = edges[:-1][(length > 1e-3) & (length < 2e-3)] / emission.rate_hz
    assert np.diff(starts) == pytest.approx(96e-3, abs=0.3e-3)


def test_dab_occupies_1536_khz_and_repeats_its_guard():
    emission = make("dab", 1, 20e-3, 2.048e6)
    assert bandwidth_99(emission.iq, emission.rate_hz) == pytest.approx(1.536e6, rel=0.03)
    assert repeat_at(emission.iq, 1e-3, emission.rate_hz) == pytest.approx(504 / 2552, abs=0.06)


@pytest.mark.parametrize("guard", [1 / 4, 1 / 8])
def test_dvb_t_bandwidth_guard_and_pilots(guard):
    dvb_t = load("dvb_t")
    spacing_hz = 64e6 / 7 / 2048
    band = ofdm.look(20e6, spacing_hz, -852, 853)
    iq = dvb_t.multiplex(np.random.default_rng(0), 10e-3, 2048, guard, band)
    assert bandwidth_99(iq, band.rate_hz) == pytest.approx(7.61e6, rel=0.02)
    assert repeat_at(iq, 1 / spacing_hz, band.rate_hz) == pytest.approx(guard / (1 + guard), abs=0.07)


def test_dvb_t_pilots_are_boosted_and_move_by_three():
    grid = load("dvb_t")._grid(np.random.default_rng(0), 8, np.arange(1705), 1)
    assert np.abs(grid[:, 0]) == pytest.approx(4 / 3)
    for row in range(8):
        assert np.abs(grid[row, 3 * (row % 4) :: 12].real) == pytest.approx(4 / 3, rel=1e-5)
    assert np.abs(grid[:, 34]) == pytest.approx(1)
