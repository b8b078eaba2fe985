# SPDX-License-Identifier: GPL-3.0-or-later
"""Satellites, agile radars, hoppers, drone links and slow pictures: rates, widths and timing on the samples."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_trainer.signals import outlier_links as links
from wavesfm_trainer.signals.outlier_waves import KNOWN_WIDTHS_HZ


def made(maker, seed, duration_s, view_hz):
    """An emission of a family."""
    return maker(np.random.default_rng(seed), duration_s, view_hz)


def width_hz(iq, rate_hz, share):
    """Band that holds `share` of the power."""
    power = np.fft.fftshift(np.abs(np.fft.fft(iq)) ** 2)
    total = np.cumsum(power) / power.sum()
    low, high = np.searchsorted(total, [(1 - share) / 2, (1 + share) / 2])
    return (high - low) * rate_hz / len(iq)


def test_a_satellite_fills_the_band_that_it_states():
    ratios = []
    for seed in range(12):
        emission = made(links.satellite, seed, 0.5, 48e3)
        ratios.append(width_hz(emission.iq, emission.rate_hz, 0.95) / emission.occupied_hz)
    assert 0.5 < np.median(ratios) < 1.1
    assert max(ratios) < 1.4


def test_frames_begin_with_alternating_symbols():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        data = rng.integers(2, 4, 60_000)  # 0 and 1 are the preamble's
        on = links._frames(rng, data, 9600.0)
        starts = np.flatnonzero(np.diff(on.astype(int)) == 1) + 1
        assert on.any()
        lead = data < 2
        assert on[lead].all()
        if lead.any() and len(starts):
            assert lead[starts].all()
            pairs = lead[1:] & lead[:-1]
            pairs[np.maximum(starts - 1, 0)] = False
            assert (np.diff(data)[pairs] != 0).all()


def test_agile_pulses_have_a_constant_envelope_and_several_carriers():
    pulse = links._agile_pulse(np.random.default_rng(1), 512)
    assert np.abs(pulse) == pytest.approx(1, abs=1e-5)
    spread = [width_hz(links._agile_pulse(np.random.default_rng(s), 512), 1.0, 0.9) for s in range(20)]
    assert max(spread) > 3 * min(spread)
    assert max(spread) < 1.0


def test_a_hopper_stays_in_the_view_and_hops():
    emission = made(links.hopper, 4, 0.2, 2e6)
    frames = emission.iq[: len(emission.iq) // 2048 * 2048].reshape(-1, 2048)
    power = np.abs(np.fft.fft(frames, axis=1)) ** 2
    strongest = np.fft.fftfreq(2048, 1 / emission.rate_hz)[power.argmax(axis=1)]
    assert np.ptp(strongest[power.sum(axis=1) > 1]) > 0.2e6
    assert width_hz(emission.iq, emission.rate_hz, 0.98) < 2e6


def test_a_drone_link_has_no_width_of_a_class():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        used = links._unlike_classes(rng, 20e6, 15e3)
        assert min(abs(used * 15e3 / known - 1) for known in KNOWN_WIDTHS_HZ) > 0.05


def test_a_slow_picture_repeats_line_by_line_within_an_audio_band():
    emission = made(links.slow_scan, 6, 5.0, 12e3)
    assert width_hz(emission.iq, emission.rate_hz, 0.95) < 1.6e3
    assert np.abs(emission.iq).std() < 1e-3
