# SPDX-License-Identifier: GPL-3.0-or-later
"""The data set of labelled IQ: what (seed, index) gives."""

from __future__ import annotations

import numpy as np
import pytest
from wavesfm_trainer.signals import CLASSES, LABELS
from wavesfm_trainer.signals.base import Emission, SignalClass, SilentWindow, View
from wavesfm_trainer.signals.dataset import SignalDataset, make_example

TILE, LEAST = 24_000, 4_096


def dataset(seed=3, **options):
    return SignalDataset(seed, TILE, LEAST, **options)


def test_there_are_twenty_classes():
    assert len(LABELS) == len(set(LABELS)) == 20
    assert all(CLASSES[label].label == label for label in LABELS)


@pytest.mark.parametrize("index", range(len(LABELS)))
def test_one_example_of_each_class_end_to_end(index):
    example = dataset(partial_share=0.0)[index]
    signal = CLASSES[LABELS[index]]
    assert example.label == LABELS[index]
    assert example.iq.shape == (TILE,)
    assert example.iq.dtype == np.complex64
    assert np.isfinite(example.iq).all()
    assert np.abs(example.iq).any()
    assert any(view.low_hz <= example.rate_hz <= view.high_hz for view in signal.views)
    assert example.snr_db == example.reception.snr_db


def test_an_example_depends_on_seed_and_index_alone():
    late = dataset()
    for index in (44, 7):  # another order than below
        late[index]
    for index in (7, 44):
        first, again = dataset()[index], late[index]
        assert np.array_equal(first.iq, again.iq)
        assert (first.rate_hz, first.label, first.snr_db) == (again.rate_hz, again.label, again.snr_db)


def test_seeds_and_indices_differ():
    a, b, c = dataset(1)[4], dataset(2)[4], dataset(1)[24]
    assert a.label == b.label == c.label
    assert len({(e.rate_hz, e.snr_db) for e in (a, b, c)}) == 3


def test_classes_take_turns_and_may_be_chosen():
    chosen = dataset(labels=("ais", "noise", "lora"))
    assert [chosen[i].label for i in range(6)] == ["ais", "noise", "lora"] * 2


def test_lengths_lie_between_the_shortest_and_a_tile():
    chosen = dataset(labels=("noise",), partial_share=0.5)
    lengths = np.array([len(chosen[i].iq) for i in range(120)])
    assert lengths.min() >= LEAST
    assert lengths.max() == TILE
    assert 0.35 < np.mean(lengths < TILE) < 0.65
    short = lengths[lengths < TILE]
    assert np.mean(short < np.sqrt(LEAST * TILE)) == pytest.approx(0.5, abs=0.2)  # log-uniform
    whole = dataset(labels=("noise",), partial_share=0.0)
    assert {len(whole[i].iq) for i in range(10)} == {TILE}


def test_snr_range():
    chosen = dataset(labels=("noise",), snr_db=(7.0, 9.0))
    values = [chosen[i].snr_db for i in range(40)]
    assert min(values) >= 7
    assert max(values) <= 9
    assert max(values) - min(values) > 1
    default = [dataset(labels=("noise",))[i].snr_db for i in range(60)]
    assert min(default) < 5
    assert max(default) > 25


def test_rate_and_snr_may_be_given():
    example = make_example(np.random.default_rng(1), CLASSES["wifi"], 8000, snr_db=11.0, rate_hz=20e6)
    assert (example.rate_hz, example.snr_db, len(example.iq)) == (20e6, 11.0, 8000)


def test_a_silent_draw_is_drawn_again_but_not_for_ever():
    calls = []

    def make(rng, duration_s, view_hz):
        calls.append(duration_s)
        if len(calls) < 4:
            raise SilentWindow("nothing")
        return Emission(np.ones(int(duration_s * view_hz) + 1, np.complex64), view_hz, 1e4)

    signal = SignalClass("made up", "none", (View(1e6, 1e6),), make)
    assert len(make_example(np.random.default_rng(1), signal, 5000).iq) == 5000
    assert len(calls) == 4

    def never(rng, duration_s, view_hz):
        raise SilentWindow("nothing")

    with pytest.raises(SilentWindow, match="made up"):
        make_example(np.random.default_rng(1), SignalClass("made up", "none", (View(1e6, 1e6),), never), 5000)


def test_a_signal_is_seen_over_the_noise():
    for label in ("wbfm", "zigbee", "dmr"):
        example = make_example(np.random.default_rng(4), CLASSES[label], TILE, snr_db=30.0)
        spectrum = np.abs(np.fft.fft(example.iq.reshape(-1, 500), axis=1)) ** 2
        assert spectrum.max() > 30 * np.median(spectrum)


def test_wrong_views_are_refused_by_label():
    with pytest.raises(ValueError, match="odd: views"):
        SignalClass("odd", "none", (View(2e6, 1e6),), lambda *_: None)


def test_classes_that_are_drawn_more_often_keep_their_label():
    dataset = SignalDataset(1, 8192, 4096, drawn=("wifi", "noise", "wifi"))
    assert [dataset[i].label for i in range(4)] == ["wifi", "noise", "wifi", "wifi"]
    assert dataset.labels == LABELS
