# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals stand out of the noise of their tiles, measured on the samples."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals.base import Emission, SilentWindow
from wavesfm_trainer.signals.channel import Reception, receive
from wavesfm_trainer.signals.dataset import make_example
from wavesfm_trainer.signals.visibility import FRAME, LEAST_DEFLECTION, deflection, raised_snr_db

RATE_HZ, N = 1e6, FRAME * 80


def burst(length, rate_hz=RATE_HZ):
    """Noise of power 1 and a fifth of the rate wide, on the air for the first `length` samples."""
    rng = np.random.default_rng(1)
    spectrum = np.zeros(N, np.complex64)
    wide = N // 5
    spectrum[:wide] = rng.standard_normal(2 * wide, np.float32).view(np.complex64)
    iq = np.fft.ifft(spectrum).astype(np.complex64)
    iq /= np.sqrt(np.mean(np.abs(iq) ** 2))
    iq[length:] = 0
    return Emission(iq, rate_hz, rate_hz / 5)


def measured(emission, snr_db):
    """Energy in the cells of the signal over the mean of noise alone, in its standard deviations, of 60 receptions."""
    used = int(np.count_nonzero(emission.iq)) // FRAME
    energies = {}
    for name, iq in (("signal", emission.iq), ("none", 0 * emission.iq)):
        sent = Emission(iq, emission.rate_hz, emission.occupied_hz)
        energies[name] = []
        for seed in range(60):
            heard = receive(np.random.default_rng(seed), sent, Reception(snr_db=snr_db, level_db=0.0), RATE_HZ, N)
            power = np.abs(np.fft.fft(heard.reshape(-1, FRAME), axis=1)) ** 2
            floor = power[:, FRAME // 4 :].mean()
            energies[name].append(power[:used, : FRAME // 5].sum() / floor)
    return (np.mean(energies["signal"]) - np.mean(energies["none"])) / np.std(energies["none"])


@pytest.mark.parametrize("frames", [4, 40])
def test_deflection_is_what_an_energy_detector_measures(frames):
    emission = burst(frames * FRAME)
    assert deflection(emission, -3.0, RATE_HZ, N) == pytest.approx(measured(emission, -3.0), rel=0.3)


def test_deflection_does_not_depend_on_the_rate_of_the_emission():
    slow, fast = burst(N), burst(N)
    fast = Emission(np.repeat(fast.iq, 4), 4 * RATE_HZ, slow.occupied_hz)
    assert deflection(fast, 0.0, RATE_HZ, N) == pytest.approx(deflection(slow, 0.0, RATE_HZ, N), rel=0.01)


def test_a_weak_burst_is_raised_until_it_stands_out_and_a_strong_one_stays():
    emission = burst(FRAME)
    raised = raised_snr_db(emission, -20.0, RATE_HZ, N)
    assert deflection(emission, raised, RATE_HZ, N) == pytest.approx(LEAST_DEFLECTION, rel=1e-3)
    assert raised_snr_db(emission, 40.0, RATE_HZ, N) == 40.0
    near = Emission(emission.iq, RATE_HZ, RATE_HZ / 5, least_snr_db=30.0)
    assert raised_snr_db(near, -20.0, RATE_HZ, N) == 30.0


def test_a_window_without_the_signal_is_refused():
    emission = burst(FRAME)
    with pytest.raises(SilentWindow, match="visibility"):
        raised_snr_db(Emission(0 * emission.iq, RATE_HZ, 1e5), 10.0, RATE_HZ, N)


def test_examples_are_raised_only_where_asked():
    def snr_db(visible):
        rng = np.random.default_rng(3)
        return make_example(rng, CLASSES["ook-ism"], 40_960, -30.0, 250e3, 40_960, visible).snr_db

    assert snr_db(False) == -30.0
    assert snr_db(True) > -15.0
