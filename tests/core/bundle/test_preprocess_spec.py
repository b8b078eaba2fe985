# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of preprocessing answers for itself, and core asks no spec for its class."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import numpy as np
import pytest
from support.tiny_grids import SMALL
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.preprocess_spec import PreprocessSpec
from wavesfm_core.bundle.spec import SOURCES, TASKS, Preprocess, preprocess_from_dict, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.preprocess.tile import PREPARERS, prepare

KINDS: tuple[type[PreprocessSpec], ...] = typing.get_args(Preprocess)
SPECS = [SpectrogramSpec(), ImageSpec(3, 0.0, 1.0, (0.0,) * 3, (1.0,) * 3), PilotGridSpec(SMALL, "least_squares")]
ROOT = Path(__file__).parents[3]


def test_every_kind_has_a_name_and_input_of_its_own_and_a_preparer() -> None:
    assert len({kind.kind for kind in KINDS}) == len({kind.input_name for kind in KINDS}) == len(KINDS)
    assert PREPARERS.keys() == {kind.kind for kind in KINDS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_kind_says_all_that_a_bundle_asks(spec: Preprocess) -> None:
    assert spec.tasks and set(spec.tasks) <= set(TASKS)
    assert set(spec.side_inputs) <= set(SOURCES)
    assert ("snr_db" in spec.side_inputs) == (PREPARERS[spec.kind].snr_db is not None)
    assert spec.input_rows() and spec.steps() and spec.limits().endswith(".")
    assert preprocess_from_dict(to_dict(spec), "test") == spec


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_an_input_of_another_type_rank_or_shape_is_named(spec: Preprocess) -> None:
    shape = tuple(7 if isinstance(n, str) else n for n in spec.input_shape)
    right = np.zeros(shape, spec.input_dtype)
    assert spec.input_mismatch(right) == ""
    assert spec.input_mismatch(np.zeros(shape)).startswith(spec.input_dtype)
    assert spec.input_mismatch(right[None]) != ""
    if not isinstance(spec.input_shape[0], str):
        assert spec.input_mismatch(right[1:]) != ""


def test_only_these_places_ask_for_the_class_of_a_spec() -> None:
    """`Bundle.preprocess_as` narrows a type; anything else belongs into the class of the kind."""
    pattern = re.compile(r"isinstance\([^()]*(?:SpectrogramSpec|ImageSpec|PilotGridSpec)")
    found = {
        str(path.relative_to(ROOT)): n
        for path in (ROOT / "python").rglob("*.py")
        if (n := len(pattern.findall(path.read_text())))
    }
    assert found == {
        "python/wavesfm_core/bundle/image_spec.py": 1,  # two specifications of one kind
        "python/wavesfm_core/cli/benchmarks.py": 2,  # benchmarks of one kind
        "python/wavesfm_core/pipeline.py": 1,  # the power gate, which only spectrograms have
    }


def test_images_are_rescaled_as_if_they_were_prepared_with_the_other_range() -> None:
    array = np.random.default_rng(1).uniform(-1, 3, (1, 40, 40)).astype(np.float32)
    ours = ImageSpec(1, -1.0, 3.0, (0.0,), (1.0,), -1.0, 1.0, height=16, width=16)
    theirs = dataclasses.replace(ours, low=-4.0, high=5.0)
    rescaled = ours.rescaled(prepare(array, theirs)[None], theirs)[0]
    np.testing.assert_allclose(rescaled, prepare(array, ours), atol=1e-6)
    assert np.abs(rescaled - prepare(array, theirs)).max() > 0.1
    same = prepare(array, ours)
    assert ours.rescaled(same, dataclasses.replace(ours, mean=(1.0,))) is same
