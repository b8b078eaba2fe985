# SPDX-License-Identifier: GPL-3.0-or-later
"""The bursty classes and noise: the contract of an emission, and measured properties of each standard."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES, shaping
from wavesfm_trainer.signals.base import SilentWindow
from wavesfm_trainer.signals.classes import ook_ism
from wavesfm_trainer.signals.dataset import MAX_SILENT_DRAWS

MODULES = ("ads_b", "gsm", "bluetooth", "zigbee", "lora", "ook_ism", "fsk_ism")


def load(name):
    return import_module(f"wavesfm_trainer.signals.classes.{name}")


def make(name, seed, duration_s, view_hz):
    """As the data set does it: drawn again where the window fell between bursts."""
    rng = np.random.default_rng(seed)
    for _ in range(MAX_SILENT_DRAWS - 1):
        try:
            return load(name).SIGNAL.make(rng, duration_s, view_hz)
        except SilentWindow:
            continue
    return load(name).SIGNAL.make(rng, duration_s, view_hz)


def power_in(iq, rate_hz, bandwidth_hz, centre_hz=0.0):
    """Share of the power within +-bandwidth/2 of the centre."""
    power = np.abs(np.fft.fft(iq)) ** 2
    frequency = np.fft.fftfreq(len(iq), 1 / rate_hz)
    return power[np.abs(frequency - centre_hz) <= bandwidth_hz / 2].sum() / power.sum()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("view_hz", [0.25e6, 0.6e6, 2.4e6, 9.7e6, 25e6])
@pytest.mark.parametrize("duration_s", [0.2e-3, 0.5e-3, 5e-3])
def test_emission_contract(name, view_hz, duration_s):
    emission = make(name, 3, duration_s, view_hz)
    power = np.abs(emission.iq.astype(np.complex128)) ** 2
    assert emission.iq.dtype == np.complex64
    assert len(emission.iq) >= duration_s * emission.rate_hz
    assert np.isfinite(power).all()
    assert power.any()
    assert power[power > 0].mean() == pytest.approx(1, rel=1e-3)
    assert 0 < emission.occupied_hz <= max(view_hz, 3e6)


@pytest.mark.parametrize("name", MODULES)
def test_on_air_in_short_windows(name):
    rng = np.random.default_rng(5)
    for seed in range(20):
        emission = make(name, seed, 0.5e-3, load(name).SIGNAL.draw_rate(rng))
        assert np.abs(emission.iq).max() > 0.1


@pytest.mark.parametrize("name", (*MODULES, "noise"))
def test_deterministic_and_varied(name):
    signal = load(name).SIGNAL
    low_hz, high_hz = signal.views[0].low_hz, signal.views[-1].high_hz
    for view_hz in (low_hz, high_hz):
        np.testing.assert_array_equal(make(name, 9, 4e-3, view_hz).iq, make(name, 9, 4e-3, view_hz).iq)
    draws = [make(name, seed, 4e-3, low_hz) for seed in range(6)]
    if name != "noise":
        assert len({(draw.rate_hz, draw.iq.tobytes()) for draw in draws}) > 3


@pytest.mark.parametrize("name", (*MODULES, "noise"))
def test_full_tile(name):
    signal = load(name).SIGNAL
    for view_hz in (signal.views[0].low_hz, signal.views[-1].high_hz):
        emission = make(name, 1, 458752 / view_hz, view_hz)
        assert len(emission.iq) >= 458752 / view_hz * emission.rate_hz
        assert np.isfinite(emission.iq.view(np.float32)).all()


def test_window_start_covers_a_burst():
    starts, lengths = np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.1, 0.1])
    rng = np.random.default_rng(0)
    for _ in range(200):
        origin = shaping.window_start(rng, starts, lengths, 0.3)
        assert ((starts < origin + 0.3) & (starts + lengths > origin)).any()


def test_trapezoids_keep_area_and_height():
    envelope = shaping.trapezoids(np.array([1e-3, 3e-3]), np.array([1e-3, 0.5e-3]), 0.1e-3, 1e6, 5000)
    assert envelope.sum() / 1e6 == pytest.approx(1.5e-3, rel=1e-3)
    assert envelope.max() == pytest.approx(1, abs=1e-5)
    assert envelope[500] == 0 and envelope[1500] == pytest.approx(1, abs=1e-5) and envelope[2500] == 0


def test_noise_is_mostly_empty_and_its_artefacts_weak():
    draws = [make("noise", seed, 32e-3, 2e6) for seed in range(60)]
    assert 25 < sum(not draw.iq.any() for draw in draws) < 50
    heights_db = []
    for draw in draws:
        if draw.iq.any():  # at 20 dB in occupied_hz, as the channel counts it
            noise = 10**-2.0 * draw.rate_hz / draw.occupied_hz
            frames = np.abs(np.fft.fft(draw.iq[: len(draw.iq) // 512 * 512].reshape(-1, 512))) ** 2
            heights_db.append(10 * np.log10(frames.mean(axis=0).max() / (512 * noise)))
    assert max(heights_db) < 14
    assert np.median(heights_db) > 0


def test_ads_b_reply_lengths_and_pulse_positions():
    module, rng = load("ads_b"), np.random.default_rng(1)
    for _ in range(20):
        starts, lengths = module._mode_s(rng)
        bits = len(starts) - 4
        assert bits in (56, 112)
        envelope = shaping.trapezoids(starts, lengths, 0.05e-6, 20e6, int((8 + bits) * 20))
        np.testing.assert_array_equal(
            np.flatnonzero(np.diff((envelope[:160] > 0.4).astype(int)) == 1)[-3:], [19, 69, 89]
        )
        halves = envelope[160:].reshape(bits, 2, 10).mean(axis=2) > 0.5
        assert (halves.sum(axis=1) == 1).all()
        replies, _ = module._mode_ac(rng)
        assert 20.3e-6 in replies.round(9) and replies[0] == 0


def test_gsm_bandwidth_and_fcch_tone():
    module, rng = load("gsm"), np.random.default_rng(2)
    bits = module._beacon_bits(rng, 102, 0)
    table = np.exp(2j * np.pi * np.arange(16) / 16)
    symbols = table[module._phases(rng, bits, None)]
    iq, rate_hz = module._synthesise([symbols], np.zeros(1), len(symbols), 1e6)
    assert power_in(iq, rate_hz, 260e3) > 0.99
    assert 0.45 < power_in(iq, rate_hz, 80e3) < 0.9
    per_symbol = rate_hz / module.SYMBOL_RATE_HZ
    for frame in (0, 10, 51, 61):  # FCCH in frames 0, 10 of the 51-frame multiframe: a tone at a quarter of the rate
        first = int((frame * 1250 + 10) * per_symbol)
        burst = iq[first : first + int(125 * per_symbol)]
        assert power_in(burst, rate_hz, 12e3, 67.708e3) > 0.9
    burst = iq[int(5 * 1250 * per_symbol) :][: int(140 * per_symbol)]
    assert power_in(burst, rate_hz, 12e3, 67.708e3) < 0.5


def test_gsm_tables_have_the_lengths_of_the_standard():
    module = load("gsm")
    assert [len(t) for t in module.TRAINING] == [26] * 8
    assert (len(module.SYNC_TRAINING), len(module.ACCESS_SYNC), len(module.DUMMY)) == (64, 41, 148)
    for (
        training
    ) in module.TRAINING:  # the first five bits are those that follow sixteen in the middle: cyclic extension
        np.testing.assert_array_equal(training[:10], training[16:26])


def test_bluetooth_packets_have_the_bandwidth_and_deviation():
    module, rng = load("bluetooth"), np.random.default_rng(3)
    access = np.tile([0, 1], 36).astype(np.int8)
    length_s, render = module._basic(rng, access, 2744, 2, 0.32)
    iq = render(8e6)
    assert len(iq) == pytest.approx(length_s * 8e6, abs=8)
    assert length_s == pytest.approx(2870e-6)
    frequency = np.angle(iq[1:] * iq[:-1].conj()) * 8e6 / (2 * np.pi)
    assert np.percentile(frequency, 98) == pytest.approx(160e3, rel=0.05)
    assert power_in(iq, 8e6, 1.2e6) > 0.99
    for levels in (4, 8):
        length_s, render = module._basic(rng, access, 1000, levels, 0.32)
        assert power_in(render(8e6)[131 * 8 :], 8e6, 1.45e6) > 0.98


def test_bluetooth_hops_only_where_the_band_is_wide():
    wide = [make("bluetooth", seed, 458752 / 20e6, 20e6) for seed in range(6)]
    assert all(emission.placed for emission in wide)
    assert any(power_in(e.iq, e.rate_hz, 4e6) < 0.5 for e in wide)


def test_zigbee_sequences_and_packet():
    module = load("zigbee")
    assert "".join("1" if chip > 0 else "0" for chip in module.CHIPS[1]) == "11101101100111000011010100100010"
    assert "".join("1" if chip > 0 else "0" for chip in module.CHIPS[8]) == "10001100100101100000011101111011"
    iq = module.packet(np.random.default_rng(0), 20, 4)
    assert len(iq) / 8e6 == pytest.approx((6 + 20) * 32e-6, abs=1e-6)
    np.testing.assert_allclose(np.abs(iq[8:-8]), 1, atol=1e-5)
    preamble = iq[8 : 8 + 6 * 128]
    np.testing.assert_allclose(preamble[:512], preamble[128 : 512 + 128], atol=1e-5)
    assert power_in(iq, 8e6, 2.6e6) > 0.97


def test_lora_dechirps_to_its_symbols():
    module = load("lora")
    values = np.array([0, 24, 77, 127, module.DOWN])
    iq = module._chirps(values, 7, 2)
    down = module._chirps(np.array([module.DOWN]), 7, 2)
    for k, value in enumerate(values[:4]):
        tone = (iq[k * 256 : (k + 1) * 256] * down)[::2]
        assert np.argmax(np.abs(np.fft.fft(tone))) == value
    jump = np.abs(np.diff(np.unwrap(np.angle(iq[:1024]))))
    assert jump.max() <= np.pi / 2 + 1e-3  # the phase is continuous over symbols
    assert module.payload_symbols(10, 7, 125e3, 1) == 28


def test_lora_occupies_its_bandwidth():
    for seed in range(4):
        emission = make("lora", seed, 0.2, 0.5e6)
        assert power_in(emission.iq, emission.rate_hz, 1.1 * emission.occupied_hz) > 0.97


def test_ook_codes():
    module, rng = load("ook_ism"), np.random.default_rng(4)
    starts, lengths = module._meter(rng)
    assert starts[-1] + lengths[-1] == pytest.approx(96 * 2 / 32768, abs=1 / 32768)
    assert set(np.round(lengths * 32768).astype(int)) <= {1, 2}
    starts, lengths = module._remote(rng)
    assert lengths.max() / lengths.min() == pytest.approx(3)
    assert np.diff(starts).max() == pytest.approx(32 * lengths.min())
    for make_pulses, _ in module.DEVICES:
        starts, lengths = make_pulses(rng)
        assert (starts[1:] >= starts[:-1] + lengths[:-1] - 1e-12).all()
        assert 2e-3 < starts[-1] + lengths[-1] < 3.5


def test_fsk_deviation_and_chip_rate():
    module, rng = load("fsk_ism"), np.random.default_rng(5)
    device = module.Device(
        1, (32768, 32768), (50e3, 50e3), (10e-3, 10e-3), (1, 1), (1, 1), "manchester", None, (64, 65)
    )
    for _ in range(5):
        iq = module.packet(rng, device, 32768.0, 50e3, 800e3)
        assert 0.009 < len(iq) / 800e3 < 0.0135
        frequency = np.angle(iq[101:-100] * iq[100:-101].conj()) * 800e3 / (2 * np.pi)
        assert np.percentile(frequency, 90) == pytest.approx(50e3, rel=0.1)
        assert np.percentile(frequency, 10) == pytest.approx(-50e3, rel=0.1)
    words = module._payload_chips(rng, "3of6", 600).reshape(-1, 6)
    assert (words.sum(axis=1) == 3).all()


def test_a_near_device_clips_and_leaves_lines_at_three_times_its_offset():
    iq = np.exp(2j * np.pi * np.arange(1 << 14) * 0.0)
    heard = shaping.clip_near(np.random.default_rng(2), iq.astype(np.complex64))
    spectrum = np.abs(np.fft.fft(heard * np.hanning(len(heard)))) ** 2
    strongest = np.argmax(spectrum)
    harmonic = (-3 * strongest) % len(spectrum)
    around = spectrum[np.arange(harmonic - 4, harmonic + 5) % len(spectrum)].max()
    assert np.abs(heard.real).max() < 0.95
    assert 1e-4 < around / spectrum[strongest] < 0.2
    assert around > 1e3 * np.median(spectrum)


def test_sparse_words_last_milliseconds_between_long_silences():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        starts, lengths = ook_ism._sparse(rng, ook_ism._weather_ppm(rng))
        gaps = starts[1:] - starts[:-1] - lengths[:-1]
        silences = np.flatnonzero(gaps > 15e-3)
        assert len(silences) >= 1
        words = np.split(np.arange(len(starts)), silences + 1)
        assert max(starts[w[-1]] + lengths[w[-1]] - starts[w[0]] for w in words) < 35e-3


def test_near_devices_ask_for_a_signal_that_clips():
    least = [CLASSES["ook-ism"].make(np.random.default_rng(s), 0.2, 250e3) for s in range(40)]
    near = [e for e in least if np.isfinite(e.least_snr_db)]
    assert 4 <= len(near) <= 25
    assert all(e.least_snr_db >= 20 and e.placed for e in near)
