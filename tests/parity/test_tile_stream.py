# SPDX-License-Identifier: GPL-3.0-or-later
"""TileStream and prepare: positions, times, retunes, and where every sample went."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.types import StreamTime, Tile

SPEC = SpectrogramSpec(
    fft_size=32, hop_samples=32, frames_averaged=2, rows_per_tile=8, min_rows=2, height=16, width=16
)  # a tile of 512 samples, a partial one from 128
OVERLAPPING = dataclasses.replace(SPEC, hop_samples=20)


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32).view(np.complex64).ravel()


def covered(tiles: list[Tile]) -> int:
    return len({i for tile in tiles for i in range(tile.start_sample, tile.start_sample + tile.n_samples)})


def test_positions_and_times_of_tiles() -> None:
    stream = TileStream(SPEC, rate_hz=1000.0, centre_hz=868e6, time=StreamTime(100, 0.75), start_sample=5000)
    tiles = stream.push(noise(1200), arrived_s=7.5) + stream.finish()
    assert [(t.start_sample, t.n_samples, t.partial) for t in tiles] == [
        (5000, 512, False),
        (5512, 512, False),
        (6024, 160, True),
    ]
    assert [float(t.time) for t in tiles] == pytest.approx([100.75, 101.262, 101.774])
    assert tiles[1].time.full_s == 101 and tiles[1].time.frac_s == pytest.approx(0.262)
    assert {(t.rate_hz, t.centre_hz, t.arrived_s) for t in tiles} == {(1000.0, 868e6, 7.5)}
    assert (stream.samples_in, stream.samples_skipped, stream.pending_samples) == (1200, 16, 0)


def test_a_retune_ends_the_tile_and_starts_another() -> None:
    stream = TileStream(SPEC, rate_hz=1000.0, centre_hz=1e6, time=StreamTime(0, 0.0))
    x = noise(2000)
    first = stream.push(x[:700])
    ended = stream.retune(centre_hz=2e6)
    second = stream.push(x[700:1300])
    assert [(t.start_sample, t.n_samples, t.partial, t.centre_hz) for t in first + ended + second] == [
        (0, 512, False, 1e6),
        (512, 160, True, 1e6),
        (700, 512, False, 2e6),
    ]
    assert float(second[0].time) == pytest.approx(0.7)
    np.testing.assert_array_equal(second[0].data, prepare(x[700:1212], SPEC))
    assert stream.samples_skipped == 28


def test_time_goes_on_through_a_change_of_rate() -> None:
    stream = TileStream(SPEC, rate_hz=1000.0, time=StreamTime(10, 0.0))
    stream.push(noise(600))
    stream.retune(rate_hz=2000.0)
    (first, second) = stream.push(noise(1024))
    assert first.rate_hz == second.rate_hz == 2000.0
    assert float(first.time) == pytest.approx(10.6)
    assert float(second.time) == pytest.approx(10.6 + 512 / 2000)


def test_a_given_time_replaces_the_reckoned_one() -> None:
    stream = TileStream(SPEC, rate_hz=1000.0, centre_hz=5.0, time=StreamTime(10, 0.0))
    stream.push(noise(100))
    assert stream.retune(time=StreamTime(50, 0.5)) == []
    (tile,) = stream.push(noise(512))
    assert (tile.time, tile.rate_hz, tile.centre_hz, tile.start_sample) == (StreamTime(50, 0.5), 1000.0, 5.0, 100)
    assert stream.samples_skipped == 100


def test_without_a_rate_only_the_first_time_is_known() -> None:
    stream = TileStream(SPEC, time=StreamTime(3, 0.0))
    tiles = stream.push(noise(1024))
    assert [t.time for t in tiles] == [StreamTime(3, 0.0), None]
    assert [t.rate_hz for t in tiles] == [0.0, 0.0]


def test_a_retune_between_tiles_loses_nothing() -> None:
    stream = TileStream(SPEC)
    stream.push(noise(512))
    assert stream.retune(rate_hz=5.0) == []
    assert stream.retune(rate_hz=6.0) == []
    assert (stream.samples_skipped, stream.pending_samples) == (0, 0)


def test_a_bad_rate_changes_nothing() -> None:
    stream = TileStream(SPEC, rate_hz=1000.0)
    stream.push(noise(300))
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="rate_hz"):
            stream.retune(rate_hz=rate)
    assert stream.pending_samples == 300
    (tile,) = stream.push(noise(212))
    assert tile.start_sample == 0 and tile.rate_hz == 1000.0


def test_a_stream_goes_on_after_finish() -> None:
    stream = TileStream(SPEC, rate_hz=100.0, time=StreamTime(0, 0.0))
    assert stream.finish() == []
    stream.push(noise(200))
    (partial,) = stream.finish()
    (full,) = stream.push(noise(512))
    assert (partial.start_sample, full.start_sample, full.partial) == (0, 200, False)
    assert float(full.time) == pytest.approx(2.0)


def jittered(stream: TileStream, times: np.ndarray, n: int) -> list[Tile]:
    """Push n samples after each reported time, in seconds past an epoch that a float cannot hold to the microsecond."""
    tiles = []
    for seconds in times:
        tiles += stream.retune(time=StreamTime(1_700_000_000, 0.0).advanced(seconds))
        tiles += stream.push(noise(n))
    return tiles


def test_jitter_and_drift_of_reported_times_leave_full_tiles() -> None:
    rate_hz, n = 2e6, 2000
    at = np.arange(600) * n / rate_hz
    rng = np.random.default_rng(0)
    for times in (at + 2e-6 * rng.normal(size=at.size), at * (1 + 15e-6), at * (1 - 1e-6)):
        stream = TileStream(SPEC, rate_hz)
        tiles = jittered(stream, times, n)
        assert not any(t.partial for t in tiles)
        assert (stream.accounts.gaps, stream.accounts.samples_lost, stream.samples_skipped) == (0, 0, 0)
        last = tiles[-1]
        expected = times[-1] + (last.start_sample - (at.size - 1) * n) / rate_hz
        assert last.time.seconds_after(StreamTime(1_700_000_000, 0.0)) == pytest.approx(expected, abs=8e-6)


def test_reports_a_second_apart_may_drift_by_20_ppm() -> None:
    stream = TileStream(SPEC, 20_000.0)
    jittered(stream, np.arange(30) * (1 + 18e-6), 20_000)
    assert stream.accounts.gaps == 0


def test_a_packet_that_is_missing_is_a_gap_and_counted() -> None:
    rate_hz, n = 2e6, 1000
    at = np.arange(100) * n / rate_hz + 1e-6 * np.random.default_rng(0).normal(size=100)
    at[40:] += n / rate_hz
    stream = TileStream(SPEC, rate_hz)
    tiles = jittered(stream, at, n)
    accounts = stream.accounts
    assert accounts.gaps == 1 and accounts.samples_lost == pytest.approx(n, abs=10)
    assert accounts.skipped_gap + accounts.partial_tiles > 0
    (ends,) = [i for i, t in enumerate(tiles) if t.start_sample == 40 * n]
    assert tiles[ends].time.seconds_after(tiles[ends - 1].time) > n / rate_hz


@pytest.mark.parametrize("tolerance_s", [0.0, 1e-3])
def test_the_tolerance_is_a_parameter(tolerance_s: float) -> None:
    stream = TileStream(SPEC, 1e6, tolerance_s=tolerance_s)
    jittered(stream, np.array([0.0, 1e-3 + 5e-4]), 1000)
    assert stream.accounts.gaps == (tolerance_s == 0.0)
    with pytest.raises(ConfigurationError, match="tolerance_s"):
        TileStream(SPEC, tolerance_s=-1.0)


def test_what_is_reported_again_ends_no_tile() -> None:
    stream = TileStream(SPEC, 2e6, 100e6)
    for i in range(20):
        assert stream.retune(rate_hz=2e6 + (i % 2) * 1e-4, centre_hz=100e6 * (1 + (i % 2) * 1e-12)) == []
        stream.push(noise(100))
    accounts = stream.accounts
    assert (accounts.retunes, accounts.tiles, accounts.partial_tiles) == (0, 3, 0)


def test_accounts_say_why_samples_were_skipped() -> None:
    stream = TileStream(SPEC, 1e6, 100e6, StreamTime(5, 0.0))
    stream.push(noise(100))
    stream.retune(centre_hz=101e6)
    stream.push(noise(90))
    stream.retune(time=StreamTime(6, 0.0))
    stream.push(noise(512 + 80))
    stream.finish()
    accounts = stream.accounts
    assert (accounts.skipped_retune, accounts.skipped_gap, accounts.skipped_end) == (100, 90, 80)
    assert (accounts.retunes, accounts.gaps, accounts.samples_lost) == (1, 1, 1_000_000 - 190)
    assert accounts.as_dict()["samples_skipped"] == stream.samples_skipped == 270


def test_time_going_back_is_a_gap_without_lost_samples() -> None:
    stream = TileStream(SPEC, 1e6, time=StreamTime(5, 0.0))
    stream.push(noise(512))
    stream.retune(time=StreamTime(1, 0.0))
    (tile,) = stream.push(noise(512))
    assert tile.time == StreamTime(1, 0.0)
    assert (stream.accounts.gaps, stream.accounts.samples_lost) == (1, 0)


def test_silence_is_counted_and_ends_no_tile_while_it_is_short() -> None:
    stream = TileStream(SPEC, 1000.0, time=StreamTime(0, 0.0))
    silence = np.zeros(64, np.complex64)
    (tile,) = stream.push(np.concatenate([noise(256), silence, noise(256)]))
    assert (tile.n_samples, tile.n_gap_samples, tile.partial) == (512 + 64, 64, False)
    np.testing.assert_array_equal(tile.data, prepare(np.concatenate([noise(256), noise(256)]), SPEC))
    stream.push(noise(100))
    stream.push(np.full(1000, np.nan, np.complex64))
    (after,) = stream.push(noise(600))
    assert after.start_sample == 1696 and float(after.time) == after.start_sample / 1000
    accounts = stream.accounts
    assert accounts.samples_silent == accounts.samples_silent_cut + 64
    assert (accounts.skipped_silence, accounts.samples_nonfinite) == (96, 1000)


def test_prepare_refuses_silence() -> None:
    with pytest.raises(InputError, match="found digital silence in 512 of 512, expected at least 128"):
        prepare(np.zeros(512, np.complex64), SPEC)


def test_n_nonfinite_reaches_the_tile() -> None:
    x = noise(512)
    x[[3, 400]] = np.inf
    (tile,) = TileStream(SPEC).push(x)
    assert tile.n_nonfinite == 2 and np.isfinite(tile.data).all()


actions = st.lists(
    st.one_of(st.integers(0, 900), st.integers(-700, -1), st.just("retune"), st.just("finish")), max_size=15
)  # samples, digital silence where negative, or a call


@given(actions=actions, overlapping=st.booleans(), start=st.integers(0, 1 << 40))
@settings(max_examples=100, deadline=None)
def test_every_sample_is_covered_skipped_or_pending(actions: list, overlapping: bool, start: int) -> None:
    stream = TileStream(OVERLAPPING if overlapping else SPEC, start_sample=start)
    tiles: list[Tile] = []
    for action in actions:
        if isinstance(action, int):
            tiles += stream.push(noise(action) if action > 0 else np.zeros(-action, np.complex64))
        else:
            tiles += stream.retune(centre_hz=1.0) if action == "retune" else stream.finish()
        cut = stream.accounts.samples_silent_cut
        assert stream.samples_in == covered(tiles) + stream.samples_skipped + cut + stream.pending_samples
    tiles += stream.finish()
    assert stream.pending_samples == 0
    assert stream.samples_in == sum(abs(a) for a in actions if isinstance(a, int))
    in_tiles = sum(t.n_gap_samples for t in tiles)
    assert stream.accounts.samples_silent == stream.accounts.samples_silent_cut + in_tiles or overlapping
    assert all(start <= t.start_sample <= start + stream.samples_in - t.n_samples for t in tiles)


def test_prepare_is_the_streams_tile() -> None:
    for spec in (SPEC, OVERLAPPING):
        x = noise(spec.tile_samples)
        (tile,) = TileStream(spec).push(x)
        np.testing.assert_array_equal(prepare(x, spec), tile.data)
        stream = TileStream(spec)
        stream.push(x[:300])
        (partial,) = stream.finish()
        np.testing.assert_array_equal(prepare(x[:300], spec), partial.data)


def test_prepare_takes_what_numpy_1_makes() -> None:
    x = noise(512)
    np.testing.assert_array_equal(prepare(x.astype(np.complex128), SPEC), prepare(x, SPEC))
    np.testing.assert_array_equal(prepare(np.repeat(x, 2)[::2], SPEC), prepare(x, SPEC))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (noise(127), "found 127, expected 128 to 512"),
        (noise(0), "found 0, expected 128 to 512"),
        (noise(513), "found 513, expected 128 to 512"),
        (np.zeros(512, np.float32), "found float32, expected a numpy array of complex64"),
        (noise(512).reshape(2, 256), "expected one dimension"),
        ([0j] * 512, "found list, expected a numpy array of complex64"),
    ],
)
def test_prepare_refuses(samples: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(samples, SPEC)


def test_push_refuses_and_goes_on() -> None:
    stream = TileStream(SPEC)
    with pytest.raises(InputError, match="stream: samples: found int16"):
        stream.push(np.zeros(512, np.int16))
    assert stream.samples_in == 0
    assert len(stream.push(noise(512))) == 1
