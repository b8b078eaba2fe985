# SPDX-License-Identifier: GPL-3.0-or-later
"""Analogue voice, broadcast FM and narrow-band data: the contract of an emission, and measured properties of each
standard.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from wavesfm_trainer.signals import narrowband

MODULES = ("wbfm", "nfm_voice", "am_voice", "ais", "dmr", "pocsag", "ax25_packet", "radiosonde")


def load(name):
    return import_module(f"wavesfm_trainer.signals.classes.{name}")


def make(name, seed, duration_s, view_hz=0.25e6):
    return load(name).SIGNAL.make(np.random.default_rng(seed), duration_s, view_hz)


def single(name, duration_s, seeds, view_hz=0.25e6):
    """The emissions of one channel among `seeds`: those that the receiver may find anywhere."""
    found = [e for e in (make(name, seed, duration_s, view_hz) for seed in seeds) if not e.placed]
    assert found
    return found


def frequency(emission):
    """Instantaneous frequency in Hz [n - 1], not a number where nothing is on the air."""
    steps = np.angle(emission.iq[1:] * np.conj(emission.iq[:-1])) * emission.rate_hz / (2 * np.pi)
    return np.where(np.abs(emission.iq[1:] * emission.iq[:-1]) > 1e-2, steps, np.nan)


def bandwidth(emission, share=0.99):
    """Bandwidth in Hz between the points that leave (1 - share)/2 of the power on either side."""
    power = np.abs(np.fft.fftshift(np.fft.fft(emission.iq.astype(np.complex128)))) ** 2
    total = np.cumsum(power) / power.sum()
    edge = (1 - share) / 2
    return (np.searchsorted(total, 1 - edge) - np.searchsorted(total, edge)) * emission.rate_hz / len(power)


def bursts_s(iq, rate_hz, threshold=0.05):
    """Starts and lengths in seconds of the bursts that begin and end inside the window."""
    on = np.convolve(np.abs(iq), np.ones(9) / 9, "same") > threshold
    edges = np.diff(on.astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(stops) and (not len(starts) or stops[0] < starts[0]):
        stops = stops[1:]
    starts = starts[: len(stops)]
    return starts / rate_hz, (stops - starts) / rate_hz


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("view_hz", [0.25e6, 1.1e6, 25e6])
@pytest.mark.parametrize("duration_s", [0.2e-3, 5e-3, 0.03])
def test_emission_contract(name, view_hz, duration_s):
    for seed in range(3):
        emission = make(name, seed, duration_s, view_hz)
        power = np.abs(emission.iq.astype(np.complex128)) ** 2
        assert emission.iq.dtype == np.complex64
        assert len(emission.iq) >= duration_s * emission.rate_hz
        assert np.isfinite(power).all()
        assert power[power > 0].mean() == pytest.approx(1, rel=1e-3)
        assert 0 < emission.occupied_hz <= max(view_hz, 0.3e6)


@pytest.mark.parametrize("name", MODULES)
def test_on_air_in_short_windows(name):
    for seed in range(25):
        emission = make(name, seed, 0.5e-3)
        assert np.abs(emission.iq[: int(0.5e-3 * emission.rate_hz)]).max() > 0.3


@pytest.mark.parametrize("name", MODULES)
def test_deterministic_and_varied(name):
    signal = load(name).SIGNAL
    assert all(0.25e6 <= view.low_hz <= view.high_hz <= 25e6 for view in signal.views)
    np.testing.assert_array_equal(make(name, 9, 0.05).iq, make(name, 9, 0.05).iq)
    assert len({make(name, seed, 0.02).iq.tobytes() for seed in range(6)}) == 6


def test_wbfm_has_a_pilot_and_stays_within_its_deviation():
    pilots = 0
    for emission in single("wbfm", 0.2, range(8)):
        hertz = frequency(emission)
        assert 5e3 < np.nanmax(np.abs(hertz)) < 85e3
        assert bandwidth(emission) < 230e3
        spectrum = np.abs(np.fft.rfft(hertz * np.hanning(len(hertz))))
        at = np.fft.rfftfreq(len(hertz), 1 / emission.rate_hz)
        near = spectrum[np.abs(at - 19e3) < 20].max()
        pilots += near > 20 * np.median(spectrum[np.abs(at - 17.5e3) < 500])
    assert 5 <= pilots <= 8


def test_wbfm_shows_several_stations_in_a_wide_view():
    counts = []
    for seed in range(6):
        emission = make("wbfm", seed, 0.01, 5e6)
        power = np.abs(np.fft.fft(emission.iq)) ** 2
        kilohertz = np.abs(np.fft.fftfreq(len(power), 1 / emission.rate_hz)).astype(int)
        counts.append((np.bincount(kilohertz // 100000, power) > 1e-4 * power.sum()).sum())
    assert max(counts) >= 5


def test_nfm_voice_fits_its_channel():
    widths = []
    for emission in single("nfm_voice", 0.8, range(12)):
        assert np.nanmax(np.abs(frequency(emission))) < 7e3  # full deviation, tone and carrier error
        widths.append(bandwidth(emission))
    assert max(widths) < 16e3
    assert np.median(widths) > 1.5e3


def test_am_voice_is_a_carrier_with_sidebands():
    shares = []
    for emission in single("am_voice", 0.8, range(12)):
        on = emission.iq[np.abs(emission.iq) > 0.02]
        power = np.abs(np.fft.fft(on)) ** 2
        at = np.fft.fftfreq(len(on), 1 / emission.rate_hz)
        shares.append(power[np.abs(at - at[power.argmax()]) < 60].sum() / power.sum())
        assert bandwidth(emission, 0.98) < 20e3
    assert np.median(shares) > 0.7  # the carrier has two thirds of the power at full modulation
    assert min(shares) < 0.97


def test_ais_bursts_fill_one_slot_on_two_channels():
    lengths, sides = [], []
    for seed in range(10):
        emission = make("ais", seed, 0.6)
        power = np.abs(np.fft.fft(emission.iq)) ** 2
        at = np.fft.fftfreq(len(power), 1 / emission.rate_hz)
        peak = at[power.argmax()]
        both = [power[np.abs(at - peak - side) < 8e3].sum() for side in (-50e3, 50e3)]
        sides.append(max(both) / power.sum() > 1e-3)
        lengths.extend(bursts_s(emission.iq, emission.rate_hz)[1])
    lengths = np.array(lengths)
    assert sum(sides) >= 3
    # Ramp, training, two flags, 168 + 16 bits and stuffing at 9600 bit/s.
    assert ((lengths > 22e-3) & (lengths < 26.67e-3)).mean() > 0.3


def test_dmr_deviation_and_slots():
    dmr = load("dmr")
    steady = dmr._frequency(np.full(60, 3, np.float32))[250:350]
    assert steady == pytest.approx(1944, abs=15)
    periods, lengths = [], []
    for emission in single("dmr", 0.6, range(14)):
        assert bandwidth(emission) < 9.5e3
        starts, durations = bursts_s(emission.iq, emission.rate_hz, 0.3)
        if len(starts) > 4 and np.median(durations) < 0.04:
            periods.append(np.median(np.diff(starts)))
            lengths.append(np.median(durations))
    assert len(periods) >= 2
    assert np.allclose(np.array(periods), 0.06, atol=1e-3) or min(periods) == pytest.approx(0.03, abs=1e-3)
    assert np.allclose(lengths, 28.5e-3, atol=1.5e-3)


def test_pocsag_codewords_and_humps():
    pocsag = load("pocsag")
    for word in (pocsag.IDLE, pocsag.SYNC):  # both are valid words of the code
        np.testing.assert_array_equal(pocsag._code(word[None, :21])[0], word)
    stream = pocsag._stream(np.random.default_rng(0), 3000)
    np.testing.assert_array_equal(stream[576:608], pocsag.SYNC)
    np.testing.assert_array_equal(stream[:6], [1, 0, 1, 0, 1, 0])
    for emission in single("pocsag", 0.5, range(6)):
        hertz = frequency(emission)
        hertz = hertz[np.isfinite(hertz)]
        middle = (np.percentile(hertz, 2) + np.percentile(hertz, 98)) / 2
        gap = np.median(hertz[hertz > middle]) - np.median(hertz[hertz < middle])
        assert gap == pytest.approx(9000, rel=0.15)


def test_ax25_has_its_two_tones_or_9600_bits():
    kinds = set()
    for emission in single("ax25_packet", 1.0, range(16)):
        hertz = np.nan_to_num(frequency(emission))
        power = np.abs(np.fft.rfft(hertz)) ** 2
        at = np.fft.rfftfreq(len(hertz), 1 / emission.rate_hz)
        heard = power[(at > 400) & (at < 6000)].sum()
        tones = power[(at > 900) & (at < 2600)].sum() / heard
        kinds.add("afsk" if tones > 0.85 else "fsk")
        assert bandwidth(emission) < 21e3
    assert kinds == {"afsk", "fsk"}


def test_stuffing_breaks_runs_of_ones():
    stuffed = narrowband.stuffed(np.ones(23, np.int8))
    assert stuffed.tolist() == ([1] * 5 + [0]) * 4 + [1] * 3
    assert narrowband.nrzi(np.array([0, 0, 1, 1, 0], np.int8)).tolist() == [1, 0, 0, 0, 1]


def test_radiosonde_frames_are_once_a_second():
    lengths, starts_apart = [], []
    for emission in single("radiosonde", 2.2, range(16)):
        assert bandwidth(emission) < 26e3
        starts, durations = bursts_s(emission.iq, emission.rate_hz)
        lengths.extend(durations)
        starts_apart.extend(np.diff(starts))
    assert np.allclose(starts_apart, 1.0, atol=2e-3)
    assert np.isclose(lengths, 0.6, atol=3e-3).any()  # RS41: 320 preamble bits and 320 octets at 4800 bit/s


def test_multiplex_puts_a_channel_at_its_offset():
    tone = np.exp(2j * np.pi * 1e3 / 48e3 * np.arange(4800)).astype(np.complex64)
    iq, rate_hz = narrowband.multiplex([tone], [60e3], 48e3)
    assert len(iq) / rate_hz >= 0.1
    power = np.abs(np.fft.fft(iq)) ** 2
    at = np.fft.fftfreq(len(iq), 1 / rate_hz)
    assert at[power.argmax()] == pytest.approx(61e3, abs=15)
    np.testing.assert_allclose(np.abs(iq[200:-200]), 1, atol=0.02)
