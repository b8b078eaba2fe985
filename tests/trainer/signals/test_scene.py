# SPDX-License-Identifier: GPL-3.0-or-later
"""The scene: stops without gaps, the same noise at each, deterministic, and the truth where it says."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals.scene import CENTRES_HZ, NOISE_DBFS, SNR_DB, STAY_TILES, labels_at, make_scene

TILE = 65_536
RATE_HZ = 2.048e6


@pytest.fixture(scope="module")
def scene():
    return make_scene(3, tile_samples=TILE)


def test_every_class_of_the_rate_has_one_stop(scene):
    assert sorted(span.label for span in scene.spans) == sorted(CENTRES_HZ)
    for span in scene.spans:
        assert span.centre_hz == CENTRES_HZ[span.label]
        assert STAY_TILES[0] * TILE - 1 <= span.n_samples <= STAY_TILES[1] * TILE
        assert SNR_DB[0] <= span.snr_db <= SNR_DB[1]


def test_stops_follow_without_gaps(scene):
    ends = np.cumsum([span.n_samples for span in scene.spans])
    assert [span.start_sample for span in scene.spans] == [0, *ends[:-1]]
    assert scene.iq.shape == (ends[-1],)
    assert scene.iq.dtype == np.complex64
    assert np.abs(scene.iq.view(np.float32)).max() < 1


@pytest.mark.parametrize("rate_hz", [0.25e6, 2.048e6, 20e6])
def test_only_classes_seen_at_the_rate(rate_hz):
    seen = {label: any(view.low_hz <= rate_hz <= view.high_hz for view in CLASSES[label].views) for label in CENTRES_HZ}
    assert labels_at(rate_hz) == tuple(label for label, usual in seen.items() if usual)
    assert "noise" in labels_at(rate_hz)
    assert len(labels_at(rate_hz)) < len(CENTRES_HZ) or rate_hz == RATE_HZ


def test_a_class_that_is_not_seen_is_refused():
    with pytest.raises(ValueError, match="lora"):
        make_scene(0, rate_hz=20e6, labels=("lora",))
    with pytest.raises(ValueError, match="labels"):
        make_scene(0, labels=())


def test_deterministic_and_shuffled_by_the_seed(scene):
    again = make_scene(3, tile_samples=TILE)
    assert again.iq.tobytes() == scene.iq.tobytes()
    assert again.spans == scene.spans
    orders = {tuple(span.label for span in make_scene(seed, tile_samples=2048, labels=("noise", "wbfm", "dab")).spans)
              for seed in range(8)}  # fmt: skip
    assert len(orders) > 2


def test_a_stop_does_not_depend_on_the_others(scene):
    alone = make_scene(3, tile_samples=TILE, labels=("gsm",))
    (span,) = (span for span in scene.spans if span.label == "gsm")
    assert alone.iq.tobytes() == scene.iq[span.start_sample :][: span.n_samples].tobytes()


def powers_db(scene, span):
    """Power of 64 equal parts of the band over a stop, ascending, in dB of full scale per sample of the whole band."""
    iq = scene.iq[span.start_sample :][: span.n_samples // 512 * 512].reshape(-1, 512)
    bins = (np.abs(np.fft.fft(iq * np.hanning(512))) ** 2).mean(0) / (np.hanning(512) ** 2).sum()
    return 10 * np.log10(np.sort(bins.reshape(64, 8).mean(1)))


def test_the_noise_is_the_same_at_every_stop(scene):
    for span in scene.spans:
        floor_db = np.median(powers_db(scene, span)) if span.label == "noise" else powers_db(scene, span)[8]
        if span.label in ("cellular", "dab", "bluetooth", "ads-b", "gsm", "zigbee"):
            assert floor_db > NOISE_DBFS - 2  # these may fill the band
        else:
            assert floor_db == pytest.approx(NOISE_DBFS, abs=1), span


def test_there_is_a_signal_at_every_stop_but_one(scene):
    for span in scene.spans:
        iq = scene.iq[span.start_sample :][: span.n_samples]
        power_db = 10 * np.log10(np.mean(np.abs(iq[: len(iq) // 64 * 64].reshape(-1, 64)) ** 2, axis=1))
        over_db = max(powers_db(scene, span)[-1], np.quantile(power_db, 0.999)) - NOISE_DBFS
        assert over_db < 2 if span.label == "noise" else over_db > 3, span
