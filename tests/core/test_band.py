# SPDX-License-Identifier: GPL-3.0-or-later
"""Emitters, events and views of made streams, with a namer that only counts."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from support.band_streams import LABELS, RATE, WidthNamer, band_signal, noise, run
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.refine import refine
from wavesfm_core.band.ring import SampleRing
from wavesfm_core.band.types import SCHEMA, Event, boxes
from wavesfm_core.band.views import View, Zoomed, smooth_size, zoom
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.types import StreamTime


@pytest.fixture(scope="module")
def two_signals() -> np.ndarray:
    """A wide one throughout, a narrow one for the middle 0.2 s of 0.5, and a line."""
    n = int(0.5 * RATE)
    x = noise(n) + band_signal(n, -3e5, -1.5e5, 20, 1)
    burst = band_signal(n, 2e5, 2.15e5, 25, 2)
    burst[: int(0.15 * RATE)] = burst[int(0.35 * RATE) :] = 0
    return x + burst + np.complex64(0.02) * np.exp(2j * np.pi * 0.4 * np.arange(n)).astype(np.complex64)


def test_two_signals_are_found_zoomed_in_on_and_named(two_signals: np.ndarray) -> None:
    events, analyser, namer = run(two_signals, centre_hz=100e6, time=StreamTime(10, 0.0))
    wide, narrow = boxes(events)
    assert (wide.label, narrow.label) == ("wide", "narrow")
    assert abs(wide.low_hz + 3e5) < 15e3 and abs(wide.high_hz + 1.5e5) < 15e3
    assert abs(narrow.low_hz - 2e5) < 1.5e3 and abs(narrow.high_hz - 2.15e5) < 1.5e3
    assert abs(narrow.start_sample / RATE - 0.15) < 2e-3
    assert abs((narrow.start_sample + narrow.n_samples) / RATE - 0.35) < 2e-3
    assert abs(narrow.snr_db - 25) < 2 and abs(wide.snr_db - 20) < 2
    assert narrow.n_bursts == 1 and narrow.duty > 0.95 and wide.n_samples > 0.49 * RATE
    assert narrow.time is not None and abs(float(narrow.time) - 10.15) < 2e-3
    assert 0.85 < narrow.confidence < 0.95 and narrow.n_looks >= 1
    assert all(tile.data.shape == (1, 224, 224) for tile in namer.tiles)
    assert any(emitter.kind == "line" for emitter in analyser.emitters())
    assert analyser.samples_in == two_signals.size and analyser.n_nonfinite == 0


def test_events_come_in_order_and_say_what_changed(two_signals: np.ndarray) -> None:
    events, _, _ = run(two_signals)
    number = next(e.emitter.number for e in boxes_events(events) if e.emitter.label == "narrow")
    story = [event for event in events if event.emitter.number == number]
    assert story[0].happening == "appeared" and story[-1].happening == "ended"
    assert all(event.happening == "changed" and event.changes for event in story[1:-1])
    assert "label" in {change for event in story for change in event.changes}
    assert story[-1].sample > story[0].sample
    for event in events:
        told = json.loads(json.dumps(event.as_dict()))
        assert told["schema"] == SCHEMA and told["event"] == event.happening and "low_hz" in told


def boxes_events(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.happening == "ended" and event.emitter.kind == "signal"]


@pytest.mark.parametrize("chunk", [4096, 77_777])
def test_any_chunking_gives_the_same_events(two_signals: np.ndarray, chunk: int) -> None:
    assert run(two_signals, chunk)[0] == run(two_signals)[0]


def test_noise_is_nothing() -> None:
    events, analyser, namer = run(noise(int(0.5 * RATE)))
    assert events == [] and namer.tiles == [] and analyser.emitters() == []


def test_bursts_of_one_place_are_one_emitter() -> None:
    n = int(0.6 * RATE)
    part = band_signal(n, -1e5, 1e5, 20, 3)
    on = (np.arange(n) % 50_000) < 5_000  # 5 ms of every 50
    (box,) = boxes(run(noise(n) + part * on)[0])
    assert 11 <= box.n_bursts <= 13 and 0.08 < box.duty < 0.16
    assert abs(box.n_samples / RATE - 0.555) < 5e-3


def test_an_emitter_ends_while_the_stream_goes_on() -> None:
    n = int(1.2 * RATE)
    part = band_signal(n, 1e5, 2e5, 20, 4)
    part[int(0.3 * RATE) :] = 0
    analyser = BandAnalyser(SpectrogramSpec(), LABELS, RATE, namer=WidthNamer())
    events = analyser.push(noise(n) + part).events
    assert [event.happening for event in boxes_events(events)] == ["ended"]
    assert abs(boxes_events(events)[0].sample / RATE - 0.3) < 2e-3


def test_without_a_namer_the_looks_come_out() -> None:
    n = int(0.3 * RATE)
    analyser = BandAnalyser(SpectrogramSpec(), LABELS, RATE)
    looks = analyser.push(noise(n) + band_signal(n, 1e5, 2e5, 20, 5)).looks
    assert looks and looks[0].tile.rate_hz > 1.5e5
    analyser.named(looks[0], np.array([0.0, 0.2, 0.8]))
    (emitter,) = analyser.emitters()
    assert emitter.label == "wide" and emitter.n_looks == 1
    with pytest.raises(InputError, match="probabilities"):
        analyser.named(looks[0], np.array([1.0]))


def test_the_budget_leaves_some_without_a_name() -> None:
    n = int(0.3 * RATE)
    x = noise(n)
    for k in range(12):
        x = x + band_signal(n, -4.5e5 + 7.5e4 * k, -4.4e5 + 7.5e4 * k, 20, 6 + k)
    _, analyser, namer = run(x, options=BandOptions(looks_per_s=0.0))
    assert analyser.budget.left > 0 and len(analyser.emitters()) == 12
    assert len(namer.tiles) <= 12 + 8


def test_a_threshold_makes_it_unknown(two_signals: np.ndarray) -> None:
    events, _, _ = run(two_signals, options=BandOptions(threshold=0.99))
    assert {box.label for box in boxes(events)} == {"unknown"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fft_size": 1000}, "fft_size"),
        ({"block_rows": 2}, "block_rows"),
        ({"view_width": 1.0}, "view_width"),
        ({"hold_s": float("nan")}, "hold_s"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_options_name_what_is_wrong(change: dict, field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        BandOptions(**change)


def test_the_analyser_names_what_it_cannot_take() -> None:
    with pytest.raises(ConfigurationError, match="rate_hz"):
        BandAnalyser(SpectrogramSpec(), LABELS, 0.0)
    with pytest.raises(InputError, match="samples"):
        BandAnalyser(SpectrogramSpec(), LABELS, 1e6).push(np.zeros(3))


def test_bins_follow_the_rate() -> None:
    sizes = {rate: BandOptions().bins(rate) for rate in (48e3, 2.5e5, 2.4e6, 20e6, 56e6)}
    assert sizes == {48e3: 128, 2.5e5: 128, 2.4e6: 1024, 20e6: 8192, 56e6: 32768}


def test_the_ring_keeps_the_last_samples_in_bounded_memory() -> None:
    ring = SampleRing(8 * 1000, 100)
    x = np.arange(5000).astype(np.complex64)
    early = None
    for at in range(0, 5000, 70):
        ring.push(x[at : at + 70])
        early = ring.span(0, 70) if early is None else early
        assert ring.stop == min(at + 70, 5000)
        assert ring.stop - ring.start >= min(500, ring.stop) and ring.stop - ring.start <= 1000
        np.testing.assert_array_equal(ring.samples(ring.start, ring.stop), x[ring.start : ring.stop])
    np.testing.assert_array_equal(ring.samples(0, 10**9), x[ring.start :])
    assert ring.samples(0, 10).size == 0
    np.testing.assert_array_equal(early[0], x[:70])  # a span outlives what comes after it


def test_views_share_a_transform_and_keep_their_times() -> None:
    n = 200_000
    t = np.arange(n) / RATE
    x = np.exp(2j * np.pi * 123e3 * t).astype(np.complex64)
    narrow, wide, all_of_it = zoom(
        [x[:77_777], x[77_777:]],
        50,
        RATE,
        [View(1050, 101_050, 120e3, 20e3), View(50, n, 480e3, 100e3), View(60, 160, 0.0, RATE)],
    )
    assert narrow.rate_hz >= 20e3 and abs(narrow.centre_hz - 120e3) < 50
    times = (narrow.start - 50) / RATE + np.arange(narrow.samples.size) / narrow.rate_hz
    offset = 123e3 - narrow.centre_hz
    phase = np.exp(2j * np.pi * (offset * times)) * np.exp(0j)
    got = narrow.samples * np.conj(phase)
    assert np.abs(got[50:-50] - got[100]).max() < 5e-3  # a tone at its place, its phase running with its times
    assert abs(np.abs(got[100]) - 1) < 1e-3
    assert wide.centre_hz <= 0.5 * RATE - wide.rate_hz / 2 + 1  # moved inwards
    np.testing.assert_array_equal(all_of_it.samples, x[10:110])


def test_sizes_have_small_factors() -> None:
    assert [smooth_size(n) for n in (1, 128, 129, 8 * 11)] == [8, 128, 144, 96]


def test_edges_are_refined_and_lines_are_told_from_carriers_with_sidebands() -> None:
    n = 1 << 16
    t = np.arange(n) / 50e3
    noise_power = 2e-4 / 256
    carrier = np.ones(n)
    voice = 1 + 0.5 * np.sin(2 * np.pi * 900 * t) + 0.3 * np.sin(2 * np.pi * 2100 * t)
    for wave, is_line in ((carrier, True), (voice, False)):
        (view,) = zoom([(wave + noise(n)).astype(np.complex64)], 0, 50e3, [View(0, n, 0.0, 50e3)])
        edges = refine(view, -10e3, 10e3, noise_power)
        assert edges is not None and edges.is_line == is_line
        if not is_line:
            assert abs(edges.low_hz + 2.1e3) < 600 and abs(edges.high_hz - 2.1e3) < 600


@pytest.mark.parametrize("pedestal", [True, False])
def test_what_another_receiver_distorts_is_not_part_of_a_signal_it_recorded(pedestal: bool) -> None:
    """A keyed carrier and a weak hump: amid the steady noise of another receiver the carrier alone counts."""
    rng = np.random.default_rng(4)
    rate, n = 500e3, 200_000
    t = np.arange(n)
    keyed = t // 5000 % 4 == 0

    def block(low_hz: float, high_hz: float, power: float) -> np.ndarray:
        spectrum = np.fft.fft(rng.standard_normal((n, 2)) @ [1, 1j]) / np.sqrt(2)
        hz = np.fft.fftfreq(n, 1 / rate)
        return np.fft.ifft(np.where((hz > low_hz) & (hz < high_hz), spectrum, 0)) * np.sqrt(
            power * rate / (high_hz - low_hz)
        )

    iq = keyed * (np.exp(-2j * np.pi * 60e3 / rate * t) + block(-20e3, 60e3, 0.08))
    iq = iq + block(-rate / 2, rate / 2, 1e-6) + pedestal * block(-125e3, 125e3, 3e-3)
    edges = refine(Zoomed(iq.astype(np.complex64), 0, 0.0, rate), -130e3, 130e3, 1e-6 / 256)
    assert edges is not None and edges.low_hz == pytest.approx(-60e3, abs=4e3)
    if pedestal:
        assert edges.high_hz == pytest.approx(-60e3, abs=4e3)
    else:
        assert edges.high_hz == pytest.approx(60e3, abs=6e3)
