# SPDX-License-Identifier: GPL-3.0-or-later
"""The OFDM kernels against their oracles.

Tolerances: the grid within 2e-6 of its largest element, what single precision leaves of an FFT of 2048; the image to
the bit, because it only moves numbers; the correlation within 2e-6 (its range is 0 to 1), two FFTs' rounding.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support import ofdm_oracle as oracle
from wavesfm_core._kernels import (
    OFDMDemodulator,
    pilot_image,
    waveform_correlation,
)
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import make_demodulator
from wavesfm_core.preprocess.pilot_grid import at_pilots, noise_modes, observer

SPECS = {
    "paper": OFDMSpec(16, 14, 48, 48, (6,) * 14, 30e3, (2, 11), "0123" * 24),
    "5g nr": OFDMSpec(3, 14, 1272, 2048, (176,) + (144,) * 13, 30e3, (2, 11), "31" * 636, pilot_step=2),
    "odd, dc null, comb 3": OFDMSpec(2, 4, 31, 45, (3, 0, 7, 1), 15e3, (0, 1, 3), "2" * 30, 3, 1, True),
    "one of everything": OFDMSpec(1, 1, 1, 2, (0,), 1.0, (0,), "0"),
}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*shape, 2)).astype(np.float32).view(np.complex64)[..., 0]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_grids(spec: OFDMSpec) -> None:
    samples = noise(spec.antennas, spec.slot_samples)
    got = make_demodulator(spec).demodulate(samples)
    expected = oracle.grid(samples, spec)
    assert got.dtype == np.complex64 and got.shape == spec.grid_shape and got.flags.c_contiguous
    assert np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max()


def test_power_stays_what_it_is() -> None:
    spec = SPECS["paper"]
    grid = make_demodulator(spec).demodulate(noise(spec.antennas, spec.slot_samples))
    assert np.mean(np.abs(grid) ** 2) == pytest.approx(2.0, rel=0.05)  # each part of the noise has power 1


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_images_of_pilots(spec: OFDMSpec) -> None:
    grid = noise(*spec.grid_shape)
    got = pilot_image(grid, spec.pilots, spec.pilot_symbols, spec.pilot_subcarriers)
    assert got.dtype == np.float32 and got.shape == (2, 1 + spec.antennas, len(spec.pilot_quadrants))
    np.testing.assert_array_equal(got, oracle.pilot_image(grid, spec))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_the_pilots_say(spec: OFDMSpec) -> None:
    grids = noise(3, *spec.grid_shape)
    ls, noise_power, signal_power = observer(spec).observe(list(grids))
    expected = at_pilots(grids.astype(np.complex128), spec) * spec.pilots.conj()
    np.testing.assert_allclose(ls, expected, atol=1e-5)
    total = np.mean(np.abs(expected) ** 2, axis=(1, 2, 3))
    in_modes = np.mean(np.abs(expected @ noise_modes(spec)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(noise_power, np.maximum(in_modes, 1e-8 * total), rtol=1e-5)
    np.testing.assert_allclose(signal_power, np.maximum(total - noise_power, 1e-4 * noise_power), rtol=1e-3)
    alone = observer(spec).observe([grids[1]])
    assert (alone[1][0], alone[2][0]) == (noise_power[1], signal_power[1])  # whatever the batch
    channels = noise(3, *spec.grid_shape, seed=1)
    errors = np.mean(np.abs(expected - at_pilots(channels, spec)) ** 2, axis=(1, 2, 3)) / noise_power
    np.testing.assert_allclose(observer(spec).residuals(channels, ls, noise_power), errors, rtol=1e-5)


def test_the_papers_image() -> None:
    assert oracle.pilot_image(noise(16, 14, 48), SPECS["paper"]).shape == (2, 17, 96)


@pytest.mark.parametrize(
    ("antennas", "n", "k"), [(1, 1, 1), (4, 1500, 48), (2, 5000, 2048), (3, 97, 90), (16, 803, 48)]
)
def test_correlations(antennas: int, n: int, k: int) -> None:
    samples, waveform = noise(antennas, n), noise(k, seed=1)
    samples[:, n // 2 : n // 2 + 10] *= 1000  # strong samples must not spoil the others'
    got = waveform_correlation(samples, waveform)
    assert got.dtype == np.float32 and got.shape == (n - k + 1,)
    np.testing.assert_allclose(got, oracle.waveform_correlation(samples, waveform), atol=2e-6)


def test_correlation_finds_a_waveform_and_no_silence() -> None:
    samples, waveform = np.zeros((2, 700), np.complex64), noise(48, seed=1)
    samples[0, 300:348] = -3j * waveform
    got = waveform_correlation(samples, waveform)
    assert got[300] == pytest.approx(0.5, abs=1e-6)  # all of antenna 0, nothing of the silent one
    assert not got[:252].any() and not got[349:].any() and np.isfinite(got).all()


def test_one_demodulator_for_many_threads() -> None:
    spec = SPECS["paper"]
    demodulator = make_demodulator(spec)
    slots = [noise(spec.antennas, spec.slot_samples, seed=i) for i in range(8)]
    expected = [demodulator.demodulate(slot) for slot in slots]
    got: list[np.ndarray] = [np.empty(0)] * 8

    def work(i: int) -> None:
        for _ in range(20):
            got[i] = demodulator.demodulate(slots[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, expected):
        np.testing.assert_array_equal(one, other)


def test_refusals() -> None:
    demodulator = OFDMDemodulator(8, [2, 2], [0, 7], 2)
    assert demodulator.slot_samples == 20
    with pytest.raises(ValueError, match=r"samples: found \[2, 19\], expected \[2, 20\]"):
        demodulator.demodulate(noise(2, 19))
    with pytest.raises(TypeError):
        demodulator.demodulate(np.zeros((2, 20)))
    with pytest.raises(ValueError, match="bins: found 8, expected 0 to 7"):
        OFDMDemodulator(8, [2], [8], 1)
    with pytest.raises(ValueError, match="pilot_symbols: found 4, expected below 4"):
        pilot_image(noise(2, 4, 8), noise(1, 2), [4], [0, 1])
    with pytest.raises(ValueError, match="pilot_subcarriers: found 8, expected below 8"):
        pilot_image(noise(2, 4, 8), noise(1, 2), [3], [0, 8])
    with pytest.raises(ValueError, match=r"pilots: found \[1, 2\], expected \[1, 3\]"):
        pilot_image(noise(2, 4, 8), noise(1, 2), [3], [0, 1, 2])
    with pytest.raises(ValueError, match=r"grid: found \[2, 4\]"):
        pilot_image(noise(2, 4), noise(1, 2), [3], [0, 1])
    with pytest.raises(ValueError, match=r"waveform: found \[5\], expected 1 to 4 samples"):
        waveform_correlation(noise(2, 4), noise(5))
