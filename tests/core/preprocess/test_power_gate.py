# SPDX-License-Identifier: GPL-3.0-or-later
"""The power gate on tiles whose power is given, and on the kernel's tiles."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.bundle.spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.power_gate import RISE_DB_PER_TILE, PowerGate
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.types import Tile

DATA = np.zeros((1, 1, 1), np.float32)


def tile(floor_db: float, peak_db: float, rate_hz: float = 1e6, centre_hz: float | None = None) -> Tile:
    return Tile(DATA, 0, 1, rate_hz, centre_hz, floor_db=floor_db, peak_db=peak_db)


def test_a_lone_tile_is_measured_against_its_own_floor() -> None:
    assert not PowerGate(10).passes(tile(-60, -50.1))
    assert PowerGate(10).passes(tile(-60, -50))


def test_a_wideband_signal_that_lifts_its_own_floor_passes() -> None:
    gate = PowerGate(10)
    assert not gate.passes(tile(-60, -55))
    assert all(gate.passes(tile(-45, -40)) for _ in range(50))


def test_the_floor_falls_at_once_and_rises_slowly() -> None:
    gate = PowerGate(10)
    gate.passes(tile(-40, -35))
    gate.passes(tile(-60, -55))
    louder = tile(-45, -41)  # for good: noise of another receiver gain
    passed = sum(gate.passes(louder) for _ in range(1000))
    assert passed == pytest.approx((60 - 41 - 10) / RISE_DB_PER_TILE, abs=1)


@pytest.mark.parametrize("change", [{"rate_hz": 2e6}, {"centre_hz": 1e9}])
def test_a_retune_starts_anew(change: dict[str, float]) -> None:
    gate = PowerGate(10)
    gate.passes(tile(-80, -75))
    assert not gate.passes(tile(-60, -55, **change))


def test_reset_starts_anew() -> None:
    gate = PowerGate(10)
    gate.passes(tile(-80, -75))
    gate.reset()
    assert not gate.passes(tile(-60, -55))


def test_off_passes_all_and_can_be_set_while_running() -> None:
    gate = PowerGate(None)
    assert gate.passes(tile(-60, -60))
    gate.gate_db = 3
    assert not gate.passes(tile(-60, -60))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_wrong_value(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"gate_db"):
        PowerGate(value)


def test_digital_silence_teaches_no_floor() -> None:
    spec = SpectrogramSpec()
    gate = PowerGate(10, spec)
    assert not gate.passes(tile(-160, -160))
    assert gate.passes(tile(-160, -20))
    assert not gate.passes(tile(-60, -55))
    assert not gate.passes(tile(-160, -160))


GEOMETRIES = [
    {},
    {"frames_averaged": 1, "rows_per_tile": 224},
    {"fft_size": 64, "hop_samples": 64, "frames_averaged": 1, "rows_per_tile": 32},
    {"fft_size": 256, "hop_samples": 128, "frames_averaged": 4, "rows_per_tile": 224},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_noise_alone_is_held_back_in_any_geometry(geometry: dict, part: float, tone: Callable[..., np.ndarray]) -> None:
    spec = dataclasses.replace(SpectrogramSpec(), **geometry)
    n_samples = spec.min_samples + int(part * (spec.tile_samples - spec.min_samples))
    gate = PowerGate(spec=spec)
    passed = 0
    for seed in range(5):
        stream = TileStream(spec)
        tiles = stream.push(tone(0.1, n_samples, seed, snr_db=-200)) + stream.finish()
        gate.reset()
        passed += gate.passes(tiles[0])
    assert passed <= 1


def test_a_weak_carrier_passes(tone: Callable[..., np.ndarray]) -> None:
    spec = SpectrogramSpec()
    stream = TileStream(spec)
    tiles = stream.push(tone(0.1, spec.tile_samples, snr_db=0.0))
    assert PowerGate(spec=spec).passes(tiles[0])


def test_real_recordings(shared_data: Path) -> None:
    gate = PowerGate(spec=SpectrogramSpec())
    heard: dict[str, list[bool]] = {}
    with (shared_data / "MANIFEST.csv").open() as file:
        for row in csv.DictReader(file):
            if row["format"].removesuffix("_le") not in ("cu8", "cs8", "cs16", "cf32"):
                continue
            gate.reset()
            stream = TileStream(SpectrogramSpec())
            with open_recording(shared_data / row["file"]) as recording:
                tiles = [made for block in recording.blocks() for made in stream.push(block)] + stream.finish()
            heard.setdefault(row["label"], []).extend(gate.passes(made) for made in tiles)
    assert not any(heard.pop("noise"))
    passed = [passes for each in heard.values() for passes in each]
    assert np.mean(passed) > 0.9


@pytest.mark.parametrize(("share", "passes"), [(0.75, True), (1.0, False)])
def test_a_steady_signal_that_fills_most_of_the_band_passes(share: float, passes: bool) -> None:
    """It is the median of its own tile (DAB in 2.048 MS/s, say); only the empty edges tell. White over all is noise."""
    spec = SpectrogramSpec(frames_averaged=2, rows_per_tile=64)
    rng = np.random.default_rng(3)
    n = spec.tile_samples
    spectrum = rng.standard_normal((n, 2), dtype=np.float32).view(np.complex64).ravel()
    outside = np.abs(np.fft.fftfreq(n)) > share / 2
    spectrum[outside] *= 10 ** (-12 / 20)
    samples = np.fft.ifft(spectrum).astype(np.complex64)
    made = (stream := TileStream(spec)).push(samples) + stream.finish()
    assert made[0].peak_db - made[0].floor_db < 8.5
    assert PowerGate(8.5, spec).passes(made[0]) is passes
