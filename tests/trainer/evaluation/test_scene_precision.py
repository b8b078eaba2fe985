# SPDX-License-Identifier: GPL-3.0-or-later
"""Mean average precision of boxes in scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from wavesfm_trainer.evaluation.band_scenes import Box, Truth
from wavesfm_trainer.evaluation.scene_precision import area_iou, average_precision, mean_average_precision

TRUTH = Truth("gsm", 0.0, 1.0, 0.0, 200e3, 20.0)
OTHER = Truth("dab", 0.0, 1.0, 1e6, 2.5e6, 20.0)


def box(truth: Truth, confidence: float = 1.0, **changes: float) -> Box:
    made = Box(truth.label, truth.start_s, truth.stop_s, truth.low_hz, truth.high_hz, confidence)
    return replace(made, **changes)


def test_the_overlap_is_of_time_and_frequency() -> None:
    assert area_iou(TRUTH, box(TRUTH)) == 1.0
    assert area_iou(TRUTH, box(TRUTH, stop_s=0.5)) == pytest.approx(0.5)
    assert area_iou(TRUTH, box(TRUTH, stop_s=0.5, high_hz=100e3)) == pytest.approx(0.25)
    assert area_iou(TRUTH, box(OTHER)) == 0.0


def test_perfect_boxes_have_full_precision() -> None:
    mean, of_class = mean_average_precision([[TRUTH, OTHER]], [[box(TRUTH), box(OTHER)]])
    assert mean == 1.0 and of_class == {"dab": 1.0, "gsm": 1.0}


def test_a_sure_false_box_costs_more_than_an_unsure_one() -> None:
    elsewhere = box(TRUTH, 0.9, low_hz=5e6, high_hz=6e6)
    assert average_precision([[TRUTH]], [[elsewhere, box(TRUTH, 0.5)]], "gsm") == 0.5
    assert average_precision([[TRUTH]], [[replace(elsewhere, confidence=0.1), box(TRUTH, 0.5)]], "gsm") == 1.0


def test_a_second_box_of_one_truth_is_false_and_a_missed_truth_counts() -> None:
    second = replace(TRUTH, low_hz=3e6, high_hz=3.2e6)
    twice = [box(TRUTH, 0.9), box(TRUTH, 0.8), box(second, 0.7)]
    assert average_precision([[TRUTH, second]], [twice], "gsm") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([[TRUTH], [TRUTH]], [[box(TRUTH)], []], "gsm") == 0.5
    assert mean_average_precision([[TRUTH]], [[replace(box(TRUTH), label="dab")]])[0] == 0.0
    assert np.isnan(average_precision([[TRUTH]], [[]], "dab"))
