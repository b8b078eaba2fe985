# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel: every effect measured on what comes out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from wavesfm_trainer.signals import channel
from wavesfm_trainer.signals.base import Emission, unit_power
from wavesfm_trainer.signals.channel import Reception, draw_reception, receive

RATE_HZ = 1e6
N = 1 << 16


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(rate_hz=RATE_HZ, frequency_hz=0.0, n=N + 4096):
    iq = np.exp(2j * np.pi * np.arange(n) * (frequency_hz / rate_hz)).astype(np.complex64)
    return Emission(iq, rate_hz, 10e3)


def band_noise(bandwidth_hz=200e3, rate_hz=RATE_HZ, n=N + 4096, seed=5):
    spectrum = np.zeros(n, np.complex64)
    inside = np.abs(np.fft.fftfreq(n, 1 / rate_hz)) < bandwidth_hz / 2
    draw = rng(seed)
    spectrum[inside] = draw.standard_normal(inside.sum()) + 1j * draw.standard_normal(inside.sum())
    return Emission(unit_power(np.fft.ifft(spectrum)), rate_hz, bandwidth_hz)


def silence(n=N + 4096):
    return Emission(np.zeros(n, np.complex64), RATE_HZ, RATE_HZ)


def power(iq):
    return float(np.mean(np.abs(iq.astype(np.complex128)) ** 2))


def power_between(iq, low_hz, high_hz, rate_hz=RATE_HZ):
    spectrum = np.abs(np.fft.fft(iq.astype(np.complex128))) ** 2 / len(iq) ** 2
    frequency = np.fft.fftfreq(len(iq), 1 / rate_hz)
    return spectrum[(frequency >= low_hz) & (frequency < high_hz)].sum()


def peak_hz(iq, rate_hz=RATE_HZ):
    """Frequency of the strongest line, by a windowed transform with zeros."""
    spectrum = np.abs(np.fft.fft(iq * np.hanning(len(iq)), 8 * len(iq)))
    return float(np.fft.fftfreq(8 * len(iq), 1 / rate_hz)[np.argmax(spectrum)])


def db(ratio):
    return 10 * np.log10(ratio)


@pytest.mark.parametrize("snr_db", [-3.0, 10.0, 25.0])
def test_snr_in_the_occupied_bandwidth(snr_db):
    emission = band_noise()
    iq = receive(rng(), emission, Reception(snr_db=snr_db), RATE_HZ, N)
    within = power_between(iq, -100e3, 100e3)
    density = power_between(iq, 200e3, 450e3) / 250e3
    assert db(within / (density * 200e3) - 1) == pytest.approx(snr_db, abs=0.5)


def test_snr_holds_at_another_rate():
    iq = receive(rng(), band_noise(n=3 * N), Reception(snr_db=12.0), 0.4e6, N // 4)
    within = power_between(iq, -100e3, 100e3, 0.4e6)
    density = power_between(iq, 120e3, 190e3, 0.4e6) / 70e3
    assert db(within / (density * 200e3) - 1) == pytest.approx(12.0, abs=0.5)


@pytest.mark.parametrize("offset_hz", [123_456.0, -321_098.0, 0.0])
def test_carrier_offset_lands_where_it_is_asked_for(offset_hz):
    iq = receive(rng(), tone(), Reception(snr_db=30, offset_hz=offset_hz), RATE_HZ, N)
    assert peak_hz(iq) == pytest.approx(offset_hz, abs=RATE_HZ / N)


@pytest.mark.parametrize("offset_hz", [60e3, -60e3])
def test_an_emission_wider_than_the_view_is_cut_not_folded(offset_hz):
    wide = tone(4e6, 0, 5 * N).iq + tone(4e6, 1.3e6, 5 * N).iq  # the second line is outside any view of 1 MHz here
    emission = Emission(wide + tone(4e6, 300e3, 5 * N).iq, 4e6, 3e6)
    iq = receive(rng(), emission, Reception(snr_db=60, offset_hz=offset_hz), RATE_HZ, N)
    for line_hz in (offset_hz, 300e3 + offset_hz):
        assert power_between(iq, line_hz - 100, line_hz + 100) / power(iq) == pytest.approx(0.5, abs=0.02)


def test_an_emission_wholly_outside_the_view_leaves_noise():
    iq = receive(rng(), tone(), Reception(snr_db=40, offset_hz=0.9e6), RATE_HZ, N)
    spectrum = np.abs(np.fft.fft(iq)) ** 2
    assert spectrum.max() / spectrum.mean() < 25


@pytest.mark.parametrize(("emission_hz", "rate_hz"), [(57600.0, 283_111.0), (1e6, 771_234.5), (30.72e6, 19.2e6)])
def test_resampling_keeps_frequencies(emission_hz, rate_hz):
    n = 1 << 17
    tone_hz = 0.23 * min(emission_hz, rate_hz)
    emission = tone(emission_hz, tone_hz, int(n * emission_hz / rate_hz * 1.01) + 64)
    iq = receive(rng(), emission, Reception(snr_db=60), rate_hz, n)
    assert peak_hz(iq, rate_hz) == pytest.approx(tone_hz, rel=channel.MAX_RATE_ERROR, abs=rate_hz / n / 8)


def test_transform_lengths_stay_near_the_ratio():
    draw = rng()
    for _ in range(200):
        n, ratio = int(draw.integers(4096, 460_000)), float(np.exp(draw.uniform(-3, 2)))
        n_fft, native = channel._transform_lengths(n, 0, ratio)
        assert n_fft >= n
        # Below some ten thousand samples not even one sample is a smaller error.
        assert abs(n_fft / native / ratio - 1) <= max(channel.MAX_RATE_ERROR, 1.5 / min(n_fft, native))


@pytest.mark.parametrize("n", [4096, 5003, 65536])
@pytest.mark.parametrize("rate_hz", [0.25e6, 1.7e6])
def test_exact_length_and_dtype(n, rate_hz):
    iq = receive(rng(), tone(n=400_000), draw_reception(rng(3), rate_hz), rate_hz, n)
    assert iq.shape == (n,)
    assert iq.dtype == np.complex64
    assert np.isfinite(iq).all()


def test_multipath_response_is_that_of_its_taps():
    delays, gains = (0.0, 1.3e-6, 4.1e-6), (0.8, 0.5j, -0.3 + 0.1j)
    impulse = np.zeros(N, np.complex64)
    impulse[100] = 1
    reception = Reception(snr_db=90, path_delays_s=delays, path_gains=gains)
    iq = receive(rng(), Emission(impulse, RATE_HZ, RATE_HZ), reception, RATE_HZ, N)
    plain = receive(rng(), Emission(impulse, RATE_HZ, RATE_HZ), Reception(snr_db=90), RATE_HZ, N)
    ratio = np.fft.fft(iq) / np.fft.fft(plain)
    frequency = np.fft.fftfreq(N, 1 / RATE_HZ)
    expected = sum(g * np.exp(-2j * np.pi * frequency * d) for g, d in zip(gains, delays, strict=True))
    scale = np.median(np.abs(ratio)) / np.median(np.abs(expected))  # the converter's level
    assert np.median(np.abs(ratio - scale * expected)) < 0.02 * scale


@pytest.mark.parametrize("at_hz", [250e3, -330e3])
def test_a_neighbour_is_at_its_place_with_its_level(at_hz):
    neighbours = ((tone(0.5e6, 0, N), at_hz, -7.0),)
    iq = receive(rng(), tone(), Reception(snr_db=50, offset_hz=20e3, neighbours=neighbours), RATE_HZ, N)
    own, other = power_between(iq, 19e3, 21e3), power_between(iq, at_hz - 1e3, at_hz + 1e3)
    assert db(other / own) == pytest.approx(-7.0, abs=0.2)


def test_image_rejection():
    iq = receive(rng(), tone(), Reception(snr_db=60, offset_hz=200e3, image_db=27.0), RATE_HZ, N)
    assert db(power_between(iq, 199e3, 201e3) / power_between(iq, -201e3, -199e3)) == pytest.approx(27.0, abs=0.3)
    clean = receive(rng(), tone(), Reception(snr_db=60, offset_hz=200e3), RATE_HZ, N)
    assert db(power_between(clean, 199e3, 201e3) / power_between(clean, -201e3, -199e3)) > 50


def test_dc_spike_over_the_noise():
    iq = receive(rng(), silence(), Reception(snr_db=0, dc_db=3.0), RATE_HZ, N)
    assert db(abs(iq.mean()) ** 2 / power_between(iq, 50e3, 450e3) * 0.4) == pytest.approx(3.0, abs=0.5)
    assert abs(receive(rng(), silence(), Reception(snr_db=0), RATE_HZ, N).mean()) ** 2 < 1e-3 * power(iq)


def test_receiver_filter_takes_the_edges():
    iq = receive(rng(), silence(), Reception(snr_db=0, rolloff=0.2, edge_db=30.0), RATE_HZ, N)
    middle = power_between(iq, -100e3, 100e3) / 200e3
    assert db(power_between(iq, 495e3, 500e3) / 5e3 / middle) == pytest.approx(-30, abs=1)
    assert db(power_between(iq, -500e3, -495e3) / 5e3 / middle) == pytest.approx(-30, abs=1)
    assert db(power_between(iq, 300e3, 395e3) / 95e3 / middle) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_converter_values_lie_on_its_grid_and_are_clipped(bits):
    iq = receive(rng(), band_noise(), Reception(snr_db=20, bits=bits, level_db=3.0), RATE_HZ, N)
    steps = iq.view(np.float32) * 2 ** (bits - 1)
    assert np.array_equal(steps, np.rint(steps))
    assert steps.min() == -(2 ** (bits - 1))
    assert steps.max() == 2 ** (bits - 1) - 1


def test_float_samples_have_the_asked_level_and_are_not_clipped():
    iq = receive(rng(), band_noise(), Reception(snr_db=20, level_db=3.0), RATE_HZ, N)
    assert db(power(iq) / 2) == pytest.approx(3.0, abs=0.1)  # RMS of I and of Q
    assert np.abs(iq.view(np.float32)).max() > 1


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_dbfs_sets_the_noise_whatever_the_signal(snr_db):
    reception = Reception(snr_db=snr_db, offset_hz=-200e3, noise_dbfs=-50.0)
    iq = receive(rng(), band_noise(), reception, RATE_HZ, N)
    assert db(power_between(iq, 50e3, 450e3) / 0.4) == pytest.approx(-50.0, abs=0.3)


def test_gain_steps_start_where_they_say():
    iq = receive(rng(), tone(), Reception(snr_db=40, gain_steps=((0.25, 6.0), (0.75, -10.0))), RATE_HZ, N)
    first, second, third = iq[: N // 4], iq[N // 4 : 3 * N // 4], iq[3 * N // 4 :]
    assert db(power(second) / power(first)) == pytest.approx(6.0, abs=0.1)
    assert db(power(third) / power(second)) == pytest.approx(-10.0, abs=0.1)


def test_drift_moves_the_carrier_by_what_is_asked():
    iq = receive(rng(), tone(), Reception(snr_db=50, drift_hz=2000.0), RATE_HZ, N)
    start, end = peak_hz(iq[: N // 16]), peak_hz(iq[-N // 16 :])
    assert end - start == pytest.approx(2000.0 * 15 / 16, abs=80)


def test_fading_changes_the_level_and_keeps_the_mean():
    levels = []
    for seed in range(12):
        iq = receive(rng(seed), tone(), Reception(snr_db=60, fading_hz=50.0, noise_dbfs=-60.0), RATE_HZ, N)
        levels.append(np.abs(iq).reshape(64, -1).mean(axis=1))
    levels = np.array(levels)
    assert levels.std(axis=1).min() > 0.02 * levels.mean()
    steady = np.abs(receive(rng(), tone(), Reception(snr_db=60, noise_dbfs=-60.0), RATE_HZ, N)).mean()
    assert levels.mean() == pytest.approx(steady, rel=0.25)


def test_nothing_on_the_air_gives_white_noise():
    iq = receive(rng(), silence(), Reception(snr_db=17.0), RATE_HZ, N)
    parts = [power_between(iq, low, low + 100e3) for low in np.arange(-500e3, 500e3, 100e3)]
    assert db(max(parts) / min(parts)) < 0.5
    assert np.abs(iq).min() < 0.1 * np.abs(iq).mean() < np.abs(iq).max() / 3


def test_the_generator_decides_everything():
    reception = draw_reception(rng(9), RATE_HZ)
    assert reception == draw_reception(rng(9), RATE_HZ)
    assert reception != draw_reception(rng(10), RATE_HZ)
    first, same, other = (receive(rng(seed), tone(), reception, RATE_HZ, 4096) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_drawn_receptions_stay_in_their_documented_ranges():
    drawn = [draw_reception(rng(seed), 2e6) for seed in range(400)]
    assert all(-5 <= r.snr_db <= 60 and 1 <= len(r.path_delays_s) <= 4 and r.bits in (0, 8, 12, 16) for r in drawn)
    assert all(np.sum(np.abs(r.path_gains) ** 2) == pytest.approx(1) and r.path_delays_s[0] == 0 for r in drawn)
    assert all(-40 <= r.level_db <= 3 and r.rolloff <= 0.3 and r.edge_db <= 40 for r in drawn)
    assert all(r.image_db >= 20 and r.dc_db <= 5 and r.fading_hz <= 51 for r in drawn)
    assert 0.1 < np.mean([r.snr_db > 30 for r in drawn]) < 0.2
    assert draw_reception(rng(), 2e6, snr_db=12.5).snr_db == 12.5


@pytest.mark.parametrize("linewidth_hz", [1.0, 20.0])
def test_phase_noise_is_a_random_walk_of_the_linewidth(linewidth_hz):
    iq = receive(rng(3), tone(), Reception(snr_db=90.0, linewidth_hz=linewidth_hz), RATE_HZ, N)
    lag = 64  # long enough that what noise is left does not count
    turned = np.angle(iq[lag:].astype(np.complex128) * np.conj(iq[:-lag]))
    assert np.var(turned) == pytest.approx(2 * np.pi * linewidth_hz * lag / RATE_HZ, rel=0.25)


def test_odd_order_distortion_puts_a_line_at_minus_three_times_the_offset():
    clean = Reception(snr_db=90.0, offset_hz=30e3, noise_dbfs=-90.0 + 10 * np.log10(RATE_HZ / 10e3))
    iq = receive(rng(4), tone(), clean, RATE_HZ, N)
    level = power(iq)  # amplitude 1 of both rails: a full-scale tone
    bent = receive(rng(4), tone(), replace(clean, cubic_db=30.0), RATE_HZ, N)
    assert level == pytest.approx(1.0, rel=0.01)
    assert db(power_between(bent, -91e3, -89e3)) == pytest.approx(-30.0, abs=0.5)
    assert db(power_between(iq, -91e3, -89e3)) < -60


@pytest.mark.parametrize("n", [4096, 100_000])
def test_noise_samples_are_gaussian_however_their_bins_were_drawn(n):
    heard = receive(rng(3), silence(n + 64), Reception(level_db=-3.0), RATE_HZ, n)
    values = heard.view(np.float32) / np.std(heard.view(np.float32))
    assert np.mean(values**4) == pytest.approx(3, abs=0.25)  # 1.8 for a uniform distribution
    frames = heard[: n // 512 * 512].reshape(-1, 512)
    cells = np.abs(np.fft.fft(frames * np.hanning(512), axis=1)) ** 2
    assert np.mean(cells**2) / np.mean(cells) ** 2 == pytest.approx(2, abs=0.25)  # of an exponential distribution


def test_smooth_numbers_have_small_factors_and_none_is_missing():
    found = channel._smooth_numbers()
    below = found[found <= 2000]
    rest = np.arange(1, 2001)
    for prime in channel.SMOOTH_PRIMES:
        while (divisible := rest % prime == 0).any():
            rest[divisible] //= prime
    assert list(below) == list(np.arange(1, 2001)[rest == 1])
