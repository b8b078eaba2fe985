# SPDX-License-Identifier: GPL-3.0-or-later
"""What receivers do to a band, and what must not become an emitter or a flood of events."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from support.band_streams import LABELS, RATE, band_signal, noise, run
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.look_thread import JOBS, LookThread
from wavesfm_core.band.naming import add_look, probabilities_of
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.pieces import Block, Piece
from wavesfm_core.band.track import BURSTS_KEPT, PIECES_KEPT, Track
from wavesfm_core.band.tracker import Tracker
from wavesfm_core.band.types import boxes
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.types import Tile

N = int(0.4 * RATE)


def happenings(events: Sequence) -> Counter:
    return Counter(event.happening for event in events)


@pytest.fixture(scope="module")
def strong() -> np.ndarray:
    """A signal of 50 kHz, 45 dB over the noise, on the air for the middle of 0.4 s."""
    x = band_signal(N, 2.5e5, 3e5, 45, 1)
    x[: N // 8] = x[N - N // 8 :] = 0
    return x


def test_an_image_is_flagged_and_no_second_emitter(strong: np.ndarray) -> None:
    image = np.float32(0.03) * strong.conj()  # 30 dB, as of a receiver without correction
    events, analyser, _ = run(strong + image + noise(N))
    (box,) = boxes(events)
    assert box.low_hz > 2.4e5
    (flagged,) = [each for each in analyser.emitters() if each.kind == "image"]
    assert abs(flagged.low_hz + 3e5) < 8e3 and abs(flagged.high_hz + 2.5e5) < 8e3
    assert flagged.n_looks == 0


def test_another_signal_at_the_mirrored_place_is_an_emitter(strong: np.ndarray) -> None:
    other = band_signal(N, -3e5, -2.5e5, 15, 2)
    other[: N // 8] = other[N - N // 8 :] = 0
    events, analyser, _ = run(strong + other + noise(N))
    assert len(boxes(events)) == 2
    assert all(each.kind != "image" for each in analyser.emitters())


@pytest.mark.parametrize("step_db", [20.0, -20.0])
def test_a_step_of_the_gain_is_no_event(step_db: float) -> None:
    gain = np.where(np.arange(N) < 0.55 * N, 1, 10 ** (step_db / 20)).astype(np.float32)
    events, _, _ = run((noise(N) + band_signal(N, 1e5, 1.5e5, 20, 3)) * gain)
    (box,) = boxes(events)
    assert abs(box.low_hz - 1e5) < 6e3 and abs(box.high_hz - 1.5e5) < 6e3
    assert box.n_samples > 0.95 * N and box.n_bursts == 1
    assert {event.emitter.number for event in events} == {box.number}


def test_a_sweep_is_one_emitter_a_block_at_most() -> None:
    t = np.arange(N) / RATE
    sweep = 0.1 * np.exp(2j * np.pi * (-4e5 * t + 1e6 * t**2))  # from -400 to 400 kHz
    events, analyser, _ = run(noise(N) + sweep.astype(np.complex64))
    blocks = -(-N // (512 * 128))
    assert 1 <= len(boxes(events)) <= blocks and len(analyser.emitters()) <= blocks
    assert sum(happenings(events).values()) <= 3 * blocks


def test_after_a_signal_that_fills_the_band_the_rest_is_as_before() -> None:
    x = noise(N) + band_signal(N, 1e5, 1.5e5, 20, 4)
    x[int(0.25 * N) : int(0.5 * N)] += 30 * noise(N, 5)[: int(0.25 * N)]
    events, _, _ = run(x)
    narrow = [box for box in boxes(events) if box.width_hz < 1e5]
    assert len(narrow) == 1 and abs(narrow[0].low_hz - 1e5) < 6e3 and abs(narrow[0].high_hz - 1.5e5) < 6e3
    assert narrow[0].start_sample < 0.02 * N and narrow[0].start_sample + narrow[0].n_samples > 0.98 * N
    assert len(boxes(events)) <= 2


def test_a_sloping_receiver_and_the_ends_of_the_band() -> None:
    x = noise(N) + band_signal(N, -4.9e5, -4.6e5, 25, 6) + band_signal(N, 4.5e5, 4.8e5, 25, 7)
    f = np.fft.fftfreq(N)
    slope_db = 10 * f - 20 * np.clip((np.abs(f) - 0.45) / 0.05, 0, 1) ** 2
    shaped = np.fft.ifft(np.fft.fft(x) * 10 ** (slope_db / 20)).astype(np.complex64)
    found = sorted(boxes(run(shaped)[0]), key=lambda box: box.low_hz)
    edges = [(box.low_hz, box.high_hz) for box in found]
    assert np.allclose(edges, [(-4.9e5, -4.6e5), (4.5e5, 4.8e5)], atol=3e3)


def test_a_channel_of_12_khz_is_found_in_20_ms() -> None:
    rate_hz = 20e6
    n = int(0.06 * rate_hz)
    x = noise(n) + band_signal(n, 3.0e6, 3.0e6 + 10e3, 15, 8, rate_hz)
    (box,) = boxes(run(x, rate_hz=rate_hz)[0])
    assert abs(box.low_hz - 3.0e6) < 1e3 and abs(box.high_hz - 3.01e6) < 1e3


def test_neighbours_one_channel_apart_are_two() -> None:
    x = noise(N) + band_signal(N, 1e5, 1.08e5, 25, 9) + band_signal(N, 1.25e5, 1.33e5, 15, 10)
    low, high = sorted(boxes(run(x)[0]), key=lambda box: box.low_hz)
    assert abs(low.high_hz - 1.08e5) < 2e3 and abs(high.low_hz - 1.25e5) < 2e3


def test_two_that_ran_into_one_another_at_first_are_told_apart() -> None:
    """A wide signal beside a narrow one for the first 0.1 s; then only its carrier stays."""
    n = N
    wide = band_signal(n, -1.2e5, -0.62e5, 30, 11)
    wide[int(0.1 * RATE) :] = 0
    carrier = band_signal(n, -0.95e5, -0.9e5, 30, 12)
    narrow = band_signal(n, -0.6e5, -0.55e5, 20, 13)
    found = boxes(run(noise(n) + wide + carrier + narrow)[0])
    late = [box for box in found if box.start_sample + box.n_samples > 0.95 * n]
    assert len(late) == 2
    assert any(-7.2e4 < box.low_hz < -5.7e4 and abs(box.high_hz + 5.5e4) < 3e3 for box in late)


def test_nan_in_the_middle_of_an_emitter_does_not_end_it() -> None:
    x = noise(N) + band_signal(N, 1e5, 1.5e5, 20, 14)
    x[N // 2 : N // 2 + 500] = np.nan
    events, analyser, _ = run(x)
    assert len(boxes(events)) == 1 and analyser.n_nonfinite == 500


def test_a_label_near_the_threshold_does_not_flap() -> None:
    answers = iter([0.62, 0.52] * 200)

    def namer(tiles: Sequence[Tile]) -> np.ndarray:
        return np.array([[0.0, p, 1 - p] for p in (next(answers) for _ in tiles)])

    n = int(2.5 * RATE)
    options = BandOptions(threshold=0.57, relook_s=0.1, looks_per_emitter=1)
    events, analyser, _ = run(noise(n) + band_signal(n, 1e5, 1.2e5, 20, 15), options=options, namer=namer)
    assert max(each.n_looks for each in analyser.emitters()) > 8
    assert sum("label" in event.changes for event in events) <= 2


def test_an_emitter_near_the_detectors_threshold_does_not_flap() -> None:
    n = int(1.5 * RATE)
    events, _, _ = run(noise(n) + band_signal(n, 1e5, 1.06e5, 4.5, 16))
    per_emitter = Counter(event.emitter.number for event in events if event.happening == "appeared")
    assert per_emitter and max(per_emitter.values()) <= 2


def test_an_hour_of_emitters_stays_in_bounded_memory() -> None:
    tracker = Tracker(8192, hold_rows=600, memory_rows=24_000, most=64)
    rng = np.random.default_rng(1)
    floor = np.ones(8192, np.float32)
    for row in range(0, 9_000_000, 18_000):  # 7 s a step of an hour
        pieces = []
        for low in rng.integers(0, 8000, 4):
            rows, width = 100, int(rng.integers(4, 100))
            edges = np.full(rows, low), np.full(rows, low + width)
            energy = np.full(width, 1e3 * rows)
            pieces.append(
                Piece(row, row + rows, low, low + width, low, low + width, energy, floor[:width], rows * width, *edges)
            )
        tracker.take(Block(row, row + 128, floor, floor, np.ones(128, np.float32), pieces, 0))
        for track in tracker.silences(row + 8000):
            track.ended = True
        tracker.forget(row + 128)
    assert 0 < len(tracker.tracks) <= 64
    assert all(len(track.bursts) <= BURSTS_KEPT and len(track.recent) <= PIECES_KEPT for track in tracker.tracks)


def test_a_slow_engine_does_not_hold_the_detector_back() -> None:
    """All samples are searched while the engine hangs; the looks that it has no time for are counted."""
    answering = threading.Event()

    def namer(tiles: Sequence[Tile]) -> np.ndarray:
        assert answering.wait(60)
        return np.array([[0.05, 0.05, 0.9]] * len(tiles))

    looks = LookThread()
    x = np.resize(noise(N) + band_signal(N, -4e5, -3e5, 20, 17) + band_signal(N, 1e5, 2e5, 20, 18), int(1.2 * RATE))
    analyser = BandAnalyser(SpectrogramSpec(), LABELS, RATE, namer=namer, submit=looks.submit)
    events = [event for at in range(0, x.size, 65536) for event in analyser.push(x[at : at + 65536]).events]
    assert analyser.samples_in == x.size and happenings(events)["appeared"] == 2
    assert all(event.emitter.n_looks == 0 for event in events)
    assert [looks.submit(lambda: None) for _ in range(JOBS)][-1] is False
    answering.set()
    assert looks.wait(60)
    events = analyser.finish().events
    assert [box.label for box in boxes(events)] == ["wide", "wide"]
    looks.close()
    assert not looks.submit(lambda: None)


def test_an_exception_of_the_engine_comes_out_of_push() -> None:
    def namer(tiles: Sequence[Tile]) -> np.ndarray:
        raise RuntimeError("no engine")

    with pytest.raises(RuntimeError, match="no engine"):
        run(noise(N) + band_signal(N, 1e5, 2e5, 20, 19), namer=namer)


def test_the_receivers_dc_says_nothing_of_when_a_signal_over_it_began() -> None:
    signal = band_signal(N, -5e4, 6e4, 15, 20)
    signal[: N // 2] = signal[int(0.9 * N) :] = 0
    events, _, _ = run(noise(N) + signal + np.complex64(0.004))
    (box,) = boxes(events)
    assert abs(box.start_sample - N // 2) < 2e-3 * RATE
    assert abs(box.start_sample + box.n_samples - 0.9 * N) < 2e-3 * RATE


def test_a_steady_signal_under_the_splashes_of_a_stronger_one_stays_an_emitter() -> None:
    """Hard keying 14 dB stronger splashes over a third of the band now and then."""
    steady = band_signal(N, 1e5, 1.1e5, 13, 21)
    keyed = band_signal(N, 2e5, 2.5e5, 27, 22) * (np.arange(N) // 9000 % 3 == 0)
    splash = 1.5 * noise(N, 23) * (np.arange(N) % 27_000 < 300)
    (box,) = [box for box in boxes(run(noise(N) + steady + keyed + splash)[0]) if 8e4 < box.low_hz < 1.5e5]
    assert abs(box.low_hz - 1e5) < 4e3 and abs(box.high_hz - 1.1e5) < 4e3
    assert box.start_sample < 0.02 * N and box.start_sample + box.n_samples > 0.98 * N


def test_a_long_look_counts_more_than_a_short_one() -> None:
    track = Track(1, 0, 1, 0.0, 1.0, 0, 1)
    add_look(track, np.array([0.8, 0.2]), 1000)
    add_look(track, np.array([0.2, 0.8]), 9000)
    assert probabilities_of(track)[1] == pytest.approx(1 / (1 + 4**-0.8))
    assert track.n_looks == 2
