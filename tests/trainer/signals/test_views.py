# SPDX-License-Identifier: GPL-3.0-or-later
"""Zoomed views and whole bands: where the signal stands in them, how long they are, and what they depend on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES, LABELS
from wavesfm_trainer.signals.artefacts import Artefacts, apply_artefacts, draw_artefacts, one_edge
from wavesfm_trainer.signals.base import Emission
from wavesfm_trainer.signals.outliers import HELD_OUT, TRAINING, UNKNOWN
from wavesfm_trainer.signals.regions import find_region
from wavesfm_trainer.signals.views import (
    ALL_LABELS,
    MORE_VIEWS,
    ZOOM_VIEWS,
    ViewDataset,
    view_dataset,
    zoomed,
)

TILE, LEAST = 40_960, 4_096
WINDOW = np.hanning(64) * np.sqrt(8 / 3)


def test_labels_are_the_classes_and_unknown():
    assert ALL_LABELS[:-1] == LABELS
    assert ALL_LABELS[-1] == UNKNOWN
    assert set(MORE_VIEWS) == set(ZOOM_VIEWS) == set(LABELS)


@pytest.mark.parametrize("name", ["mixed", "held-out"])
def test_an_example_depends_on_seed_and_index_alone(name):
    data = view_dataset(name, 3, TILE, LEAST)
    for index in (5, 2, 9):
        first, again, plan = data[index], view_dataset(name, 3, TILE, LEAST)[index], data.plan(index)
        assert np.array_equal(first.iq, again.iq)
        assert first.label == plan.label
        assert LEAST <= len(first.iq) <= TILE
        assert first.iq.dtype == np.complex64
        assert np.isfinite(first.iq).all()


def test_plans_mix_kinds_and_families_and_keep_the_held_out_ones_apart():
    plans = [view_dataset("mixed", 1, TILE, LEAST).plan(i) for i in range(2000)]
    assert 0.55 < np.mean([plan.kind == "zoom" for plan in plans]) < 0.65
    labels = Counter(plan.label for plan in plans)
    assert set(labels) == set(ALL_LABELS)
    assert labels[UNKNOWN] > 2 * labels["gsm"]
    families = {plan.family for plan in plans if plan.label == UNKNOWN}
    assert families == set(TRAINING)
    held = {view_dataset("held-out", 1, TILE, LEAST).plan(i).family for i in range(200)}
    assert held == set(HELD_OUT)


def test_drawn_and_kind_may_be_chosen():
    data = view_dataset("zoom", 1, TILE, LEAST, ("dmr", "noise"))
    plans = [data.plan(i) for i in range(60)]
    assert {plan.label for plan in plans} == {"dmr", "noise"}
    assert {plan.kind for plan in plans} == {"zoom"}
    with pytest.raises(ValueError, match="views: found"):
        view_dataset("odd", 1, TILE, LEAST)


@pytest.mark.parametrize("label", ["gsm", "nfm-voice", "wifi", "ook-ism", "bluetooth", "radiosonde"])
def test_a_zoomed_view_holds_the_signal_in_its_middle_at_a_rate_of_its_width(label):
    inside = []
    for seed in range(8):
        example = zoomed(np.random.default_rng(seed), CLASSES[label], 30.0, TILE, LEAST)
        frames = example.iq[: len(example.iq) // 64 * 64].reshape(-1, 64)
        power = np.fft.fftshift(np.mean(np.abs(np.fft.fft(frames, axis=1)) ** 2, axis=0))
        inside.append(power[12:52].sum() / power.sum())
    assert np.median(inside) > 0.8


def test_a_region_is_found_where_a_tone_burst_is():
    rate_hz, n = 1e6, 100_000
    iq = np.zeros(n, np.complex64)
    t = np.arange(20_000)
    wide = np.exp(2j * np.pi * (0.2 * t + 3 * np.sin(0.02 * t)))
    iq[30_000:50_000] = wide
    emission = Emission(iq, rate_hz, 20e3)
    spans = [find_region(np.random.default_rng(seed), emission, 25.0) for seed in range(20)]
    single = [r for r in spans if r.stop_s - r.start_s < 0.05]
    assert len(single) >= 8
    for region in single:
        assert region.start_s == pytest.approx(0.03, abs=0.004)
        assert region.stop_s == pytest.approx(0.05, abs=0.004)
    for region in spans:
        assert region.low_hz < 200e3 < region.high_hz
        assert region.power == pytest.approx(1, rel=0.4)


def noise(n=65_536, seed=1):
    """White noise of power 1."""
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal(n) + 1j * rng.standard_normal(n)) / np.sqrt(2)).astype(np.complex64)


def spectrum_db(iq):
    """Mean power in 64 bins from the lowest frequency to the highest."""
    frames = iq[: len(iq) // 64 * 64].reshape(-1, 64)
    return 10 * np.log10(np.fft.fftshift(np.mean(np.abs(np.fft.fft(frames * WINDOW, axis=1)) ** 2, axis=0)) / 64)


def test_a_pedestal_and_a_slope_have_their_heights():
    artefacts = Artefacts(pedestal=(-0.25, 0.25, 0.02), pedestal_db=20.0)
    db = spectrum_db(apply_artefacts(np.random.default_rng(2), noise(), artefacts, 1.0))
    assert np.median(db[24:40]) == pytest.approx(0, abs=0.5)
    assert np.median(db[:10]) == pytest.approx(-20, abs=1)
    db = spectrum_db(apply_artefacts(np.random.default_rng(2), noise(), Artefacts(slope_db=12.0), 1.0))
    assert db[55] - db[8] == pytest.approx(12 * 47 / 64, abs=1)


def test_a_line_stands_as_high_as_it_says():
    rng = np.random.default_rng(11)
    iq = apply_artefacts(rng, np.zeros(65_536, np.complex64), Artefacts(lines=((0.25, 20.0),)), 1.0)
    assert 10 * np.log10(np.mean(np.abs(iq) ** 2) * 512) == pytest.approx(20, abs=0.1)


def test_gaps_are_zeros_of_their_share():
    artefacts = Artefacts(gaps=0.1, gap_samples=300)
    shares = [np.mean(apply_artefacts(np.random.default_rng(s), noise(), artefacts, 1.0) == 0) for s in range(6)]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


def test_an_empty_band_has_artefacts_more_often():
    def share(busy):
        drawn = [draw_artefacts(np.random.default_rng(s), busy) for s in range(300)]
        return np.mean([bool(a.lines or a.slope_db or a.pedestal or a.gaps) for a in drawn])

    assert share(3.0) > 1.5 * share(1.0)


def test_noise_and_unknown_have_views_too():
    data = ViewDataset(4, TILE, LEAST, zoom_share=1.0, drawn=("noise", UNKNOWN))
    for index in range(12):
        assert data[index].iq.any()


def test_a_tenth_of_the_views_is_noise():
    plans = [view_dataset("mixed", 2, TILE, LEAST).plan(i) for i in range(3000)]
    assert np.mean([plan.label == "noise" for plan in plans]) == pytest.approx(0.1, abs=0.02)


def test_many_false_alarms_are_plain_noise():
    flat = []
    for seed in range(40):
        example = zoomed(np.random.default_rng(seed), CLASSES["noise"], 10.0, TILE, LEAST)
        frames = example.iq[: len(example.iq) // 64 * 64].reshape(-1, 64)
        db = 10 * np.log10(np.mean(np.abs(np.fft.fft(frames, axis=1)) ** 2, axis=0) + 1e-12)
        flat.append(np.ptp(np.concatenate([db[1:18], db[-18:-1]])) < 3.5)
    assert np.mean(flat) > 0.15


def test_noise_never_stands_on_a_pedestal_with_two_edges():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        both = Artefacts(pedestal=(-0.2, 0.2, 0.02), pedestal_db=30.0)
        db = spectrum_db(apply_artefacts(rng, noise(), one_edge(rng, both), 1.0))
        assert min(db[4:12].mean(), db[52:60].mean()) == pytest.approx(-30, abs=1)
        assert max(db[4:12].mean(), db[52:60].mean()) == pytest.approx(0, abs=1)
