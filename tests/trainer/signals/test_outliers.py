# SPDX-License-Identifier: GPL-3.0-or-later
"""Families of unknown signals: widths and symbol rates measured on the samples, and what depends on what."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals import outlier_carriers as carriers
from wavesfm_trainer.signals import outlier_waves as waves
from wavesfm_trainer.signals.outliers import HELD_OUT, TRAINING, WEIGHTS

FAMILIES = {**TRAINING, **HELD_OUT}


def width_hz(iq, rate_hz, share=0.99):
    """Band that holds `share` of the power."""
    power = np.fft.fftshift(np.abs(np.fft.fft(iq)) ** 2)
    total = np.cumsum(power) / power.sum()
    low, high = np.searchsorted(total, [(1 - share) / 2, (1 + share) / 2])
    return (high - low) * rate_hz / len(iq)


def line_hz(iq, rate_hz, low_hz, high_hz):
    """Strongest line of the envelope's power between two frequencies: of a linear modulation, its symbol rate."""
    power = np.abs(iq) ** 2
    spectrum = np.abs(np.fft.rfft((power - power.mean()) * np.hanning(len(power))))
    frequency = np.fft.rfftfreq(len(power), 1 / rate_hz)
    inside = (frequency > low_hz) & (frequency < high_hz)
    return frequency[inside][np.argmax(spectrum[inside])]


def test_no_family_is_a_class_and_none_is_trained_and_held_out():
    assert not set(FAMILIES) & set(CLASSES)
    assert not set(TRAINING) & set(HELD_OUT)
    assert set(WEIGHTS) == set(TRAINING)
    assert len(HELD_OUT) >= 5


@pytest.mark.parametrize("name", FAMILIES)
def test_an_emission_has_unit_power_fits_its_view_and_repeats(name):
    family = FAMILIES[name]
    view_hz = family.draw_rate(np.random.default_rng(1))
    made = [family.make(np.random.default_rng(2), 20_000 / view_hz, view_hz) for _ in range(2)]
    assert np.array_equal(made[0].iq, made[1].iq)
    emission = made[0]
    assert emission.iq.dtype == np.complex64
    power = np.abs(emission.iq) ** 2
    assert power[power > 0].mean() == pytest.approx(1, rel=0.1)
    assert 0 < emission.occupied_hz <= 2 * max(view_hz, emission.rate_hz)


def test_tetra_has_18_kilobaud_and_fits_25_khz():
    emission = emission_of(carriers.tetra, 5, 1.0, 100e3)
    assert line_hz(emission.iq, emission.rate_hz, 10e3, 30e3) == pytest.approx(18e3, rel=1e-3)
    assert width_hz(emission.iq, emission.rate_hz) < 25e3


def test_a_linear_modulation_is_as_wide_as_its_roll_off_says():
    symbols = np.exp(0.5j * np.pi * np.random.default_rng(3).integers(0, 4, 20_000)).astype(np.complex64)
    for rolloff in (0.2, 0.5):
        iq = carriers.linear(symbols, rolloff)
        assert width_hz(iq, carriers.PER_SYMBOL, 0.999) == pytest.approx(1 + rolloff, abs=0.15)
        assert line_hz(iq, carriers.PER_SYMBOL, 0.8, 1.2) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("order", [2, 4, 8, 16, 32, 64, 256])
def test_constellations_have_their_order_and_unit_power(order):
    points = carriers.constellation(np.random.default_rng(order), order)
    assert len(np.unique(np.round(points, 5))) == order
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1, rel=1e-5)


def test_four_level_fsk_keeps_away_from_dmr():
    for seed in range(30):
        emission = emission_of(carriers.four_level, seed, 0.05, 48e3)
        symbol_hz = emission.occupied_hz  # at least the symbol rate
        assert symbol_hz > 600


def test_a_picture_repeats_its_lines():
    emission = emission_of(waves.television, 4, 0.05, 1e6)
    found = line_hz(emission.iq, emission.rate_hz, 14e3, 17e3)
    assert min(abs(found - hz) for hz in waves.LINE_HZ.values()) < 60


def test_a_sweep_stays_in_its_band():
    emission = emission_of(waves.sweep, 6, 0.02, 2e6)
    assert width_hz(emission.iq, emission.rate_hz, 0.95) <= emission.occupied_hz * 1.2


def test_single_sideband_is_on_one_side():
    emission = emission_of(waves.single_sideband, 2, 1.0, 16e3)
    spectrum = np.abs(np.fft.fft(emission.iq)) ** 2
    sides = spectrum[1 : len(spectrum) // 2].sum(), spectrum[len(spectrum) // 2 :].sum()
    assert max(sides) > 50 * min(sides)
    assert width_hz(emission.iq, emission.rate_hz) < 3.2e3


def test_multicarrier_is_away_from_the_classes_widths():
    for seed in range(40):
        emission = emission_of(waves.multicarrier, seed, 1e-3, 20e6)
        assert min(abs(emission.occupied_hz / known - 1) for known in waves.KNOWN_WIDTHS_HZ) >= 0.05


def test_bursts_are_never_empty():
    for seed in range(60):
        assert carriers.gated(np.random.default_rng(seed), np.ones(500, np.complex64), 1.0).any()


def emission_of(make, seed, duration_s, view_hz):
    """An emission of a family."""
    return make(np.random.default_rng(seed), duration_s, view_hz)
