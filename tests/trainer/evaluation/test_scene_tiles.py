# SPDX-License-Identifier: GPL-3.0-or-later
"""Training tiles from scenes: the truth of a look, real recordings among generated signals, and the split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.data.tile_dataset import read_shards
from wavesfm_trainer.evaluation import scene_tiles
from wavesfm_trainer.evaluation.band_scenes import Truth
from wavesfm_trainer.evaluation.evaluate_recordings import (
    OPEN_TASK_FILE,
    ManifestRow,
    Verdict,
    read_manifest,
    recordings_report,
)
from wavesfm_trainer.evaluation.real_sources import extent, real_sources, whole_band_tiles
from wavesfm_trainer.evaluation.scene_tiles import Scene, SceneTiles, true_label, write_scene_shards, write_whole_shards
from wavesfm_trainer.signals.views import ALL_LABELS

RATE_HZ = 1e6
SPEC = SpectrogramSpec(rows_per_tile=64, min_rows=4)


@dataclass
class FakeLook:
    tile: SimpleNamespace


def look(start_s=0.1, stop_s=0.2):
    count = int((stop_s - start_s) * RATE_HZ)
    return FakeLook(SimpleNamespace(start_sample=int(start_s * RATE_HZ), n_samples=count))


def emitter(low_hz, high_hz):
    return SimpleNamespace(low_hz=low_hz, high_hz=high_hz)


GSM = Truth("gsm", 0.0, 0.3, 200e3, 300e3, 12.0)
LORA = Truth("lora", 0.0, 0.3, -300e3, -260e3, 9.0)
BLOCK = Truth("", 0.0, 0.3, -480e3, -400e3, 0.0)
SCENE = Scene(np.zeros(0, np.complex64), [GSM, LORA], [GSM, LORA, BLOCK])


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (205e3, 290e3, ("gsm", 12.0)),
        (200e3, 250e3, ("gsm", 12.0)),  # a part of it
        (-310e3, -255e3, ("lora", 9.0)),
        (-310e3, 310e3, None),  # both
        (310e3, 330e3, None),  # its skirts
        (-470e3, -450e3, None),  # the noise of a recording
        (-20e3, -10e3, ("noise", 0.0)),
    ],
)
def test_the_truth_of_a_look(low, high, found):
    assert true_label(look(), emitter(low, high), RATE_HZ, SCENE) == found


def test_a_look_after_the_signal_went_off_is_noise():
    assert true_label(look(0.31, 0.4), emitter(205e3, 290e3), RATE_HZ, SCENE) == ("noise", 0.0)


@pytest.fixture
def recording(tmp_path):
    """A carrier keyed on and off at 60 kHz in noise, 0.2 s at 250 kS/s."""
    rng = np.random.default_rng(3)
    t = np.arange(50_000)
    keyed = (t // 500 % 2 == 0) & (t > 10_000) & (t < 40_000)
    iq = keyed * np.exp(2j * np.pi * 60e3 / 250e3 * t) + 0.01 * (rng.standard_normal((50_000, 2)) @ [1, 1j])
    iq.astype(np.complex64).tofile(tmp_path / "key.cf32")
    return ManifestRow(tmp_path / "key.cf32", "ook-ism", 250e3, "cf32", True)


def test_where_the_signal_stands_in_a_recording(recording):
    (source,) = real_sources([recording, replace(recording, rate_hz=0.0)])
    assert source.label == "ook-ism" and np.mean(np.abs(source.iq) ** 2) == pytest.approx(1, rel=1e-3)
    assert source.low_hz < 60e3 < source.high_hz and source.high_hz - source.low_hz < 20e3
    assert abs(source.first - 10_000) < 600 and abs(source.last - 40_000) < 600


def test_noise_alone_is_all_of_the_band():
    rng = np.random.default_rng(1)
    iq = (rng.standard_normal((400_000, 2)) @ [1, 1j]).astype(np.complex64)
    low, high, first, last = extent(iq, 1e6)
    assert (low, high, first, last) == (-5e5, 5e5, 0, 400_000)


def test_tiles_of_a_recording_depend_on_the_seed_alone(recording, tmp_path):
    sources = real_sources([recording])
    tiles = whole_band_tiles([1, 0], SPEC, sources, 3)
    again = whole_band_tiles([1, 0], SPEC, sources, 3)
    other = whole_band_tiles([2, 0], SPEC, sources, 3)
    assert np.array_equal(tiles.picture, again.picture) and not np.array_equal(tiles.picture, other.picture)
    assert {ALL_LABELS[k] for k in tiles.label} == {"ook-ism"} and np.ptp(tiles.picture[0].astype(int)) > 20
    write_whole_shards(tmp_path / "tiles", 1, SPEC, sources, 3)
    assert np.array_equal(read_shards(tmp_path / "tiles").picture, tiles.picture)
    with pytest.raises(InputError, match="seed: found 1, expected 2"):
        write_whole_shards(tmp_path / "tiles", 2, SPEC, sources, 3)


def test_no_recordings_no_tiles(tmp_path):
    with pytest.raises(ConfigurationError, match="recordings: sources: found none"):
        whole_band_tiles([1], SPEC, [], 3)


def test_scenes_hold_the_recording_and_what_is_seen_of_it_has_its_label(recording, monkeypatch, tmp_path):
    monkeypatch.setattr(scene_tiles, "SAMPLES", 400_000)
    monkeypatch.setattr(scene_tiles, "RATES_HZ", (1e6,))
    monkeypatch.setattr(scene_tiles, "RECORDED_SHARE", 1.0)
    monkeypatch.setattr(scene_tiles, "REAL_SHARE", 1.0)
    scenes = SceneTiles(5, SPEC, real_sources([recording]))
    write_scene_shards(tmp_path, scenes, 4)
    tiles = read_shards(tmp_path)
    assert len(tiles) == 4 and {ALL_LABELS[k] for k in tiles.label} == {"ook-ism"}
    assert np.all(10**tiles.log10_rate < 0.7e6)  # zoomed


@pytest.mark.parametrize("recorded", [0.0, 1.0])
def test_scenes_of_generated_signals(recorded, monkeypatch):
    monkeypatch.setattr(scene_tiles, "RECORDED_SHARE", recorded)
    monkeypatch.setattr(scene_tiles, "EMPTY_SHARE", 0.0)
    monkeypatch.setattr(scene_tiles, "SAMPLES", 300_000)
    monkeypatch.setattr(scene_tiles, "RATES_HZ", (1e6,))
    monkeypatch.setattr(scene_tiles, "CLASSES", {"lora": scene_tiles.CLASSES["lora"]})
    monkeypatch.setattr(scene_tiles, "UNKNOWN_SHARE", 0.0)
    rows = SceneTiles(2, SPEC).tiles(0) + SceneTiles(2, SPEC).tiles(1)
    assert {ALL_LABELS[row[1]] for row in rows} == {"lora"}


def test_no_transmitter_stands_on_both_sides(tmp_path):
    """Recordings of one cell, sensor or instrument of the public manifest are all trained on, or none is."""
    names = {
        "lte_cellscanner/f1890_s19.2_bw20_0.08s_hackrf_home2.cs8": True,
        "lte_cellscanner/f1890_s1.92_g0_1s_rtlsdr.cu8": True,
        "lte_cellscanner/f2360_s19.2_bw20_0.08s_hackrf.cs8": False,
        "lte_cellscanner/f2360_s1.92_bw1.2_1s_hackrf.cu8": False,
        "ism433_rtl433/g001_433.92M_250k.cu8": True,
    }
    lines = ["file,label,sample_rate_hz,format", *(f"{name},lte_tdd,1920000,cs8" for name in names)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    rows = read_manifest(tmp_path / "manifest.csv", OPEN_TASK_FILE)
    assert [row.trained_on for row in rows] == list(names.values())
    report = recordings_report([Verdict(row, "cellular", 0.9, 1, 0) for row in rows], ALL_LABELS, tmp_path)
    assert report["classes"] == {"cellular": (2, 2)} and report["trained_on_right"] == (3, 3)
