# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes of signals side by side: the same from the same seed, their truth where the power is, and their score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from wavesfm_trainer.evaluation.band_scenes import BandScene, Box, Truth, make_band_scene, score

LABELS = ("fsk-ism", "wbfm", "pocsag", "gsm")


@pytest.fixture(scope="module")
def scene() -> BandScene:
    return make_band_scene(3, rate_hz=2e6, duration_s=0.25, count=4, snr_db=(20.0, 30.0), labels=LABELS)


def box(truth: Truth, **changes: float) -> Box:
    return replace(Box(truth.label, truth.start_s, truth.stop_s, truth.low_hz, truth.high_hz), **changes)


def test_a_seed_gives_one_scene(scene: BandScene) -> None:
    again = make_band_scene(3, rate_hz=2e6, duration_s=0.25, count=4, snr_db=(20.0, 30.0), labels=LABELS)
    assert again.truths == scene.truths and again.iq.tobytes() == scene.iq.tobytes()
    assert scene.iq.dtype == np.complex64 and len(scene.truths) >= 3
    assert np.abs(scene.iq.view(np.float32)).max() < 2.0


def test_the_power_is_where_the_truth_says(scene: BandScene) -> None:
    power = np.abs(np.fft.fftshift(np.fft.fft(scene.iq))) ** 2
    f = (np.arange(power.size) / power.size - 0.5) * scene.rate_hz
    noise = np.median(power)
    for truth in scene.truths:
        inside = power[(f >= truth.low_hz) & (f < truth.high_hz)].mean()
        beside = np.median(power[(f >= truth.high_hz + 5e3) & (f < truth.high_hz + 15e3)])
        assert inside > 5 * beside and inside > 5 * noise


def test_perfect_boxes_score_full(scene: BandScene) -> None:
    count = len(scene.truths)
    got = score(scene.truths, [box(truth) for truth in scene.truths])
    assert (got.truths, got.found, got.named, got.boxes, got.false, got.edged, got.timed) == (count,) * 4 + (
        0,
        count,
        count,
    )


def test_wrong_boxes_score_what_they_are(scene: BandScene) -> None:
    truth = scene.truths[0]
    width = truth.high_hz - truth.low_hz
    late = box(truth, start_s=truth.start_s + 5e-3)
    wide = box(truth, high_hz=truth.high_hz + 0.5 * width)
    assert score([truth], [late]).timed == 0 and score([truth], [late]).edged == 1
    assert score([truth], [wide]).edged == 0 and score([truth], [wide]).found == 1
    named = replace(box(truth), label="dab")
    assert score([truth], [named]).named == 0
    elsewhere = box(truth, low_hz=truth.low_hz + 9e6, high_hz=truth.high_hz + 9e6)
    assert score([truth], [elsewhere]).false == 1 and score([truth], [elsewhere]).found == 0
    assert (score([truth], [late]) + score([truth], [wide])).found == 2
