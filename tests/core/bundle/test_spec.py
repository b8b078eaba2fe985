# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs to JSON and back, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_grids import COMB, PAPER
from wavesfm_core.bundle.bundle import Bundle, read_spec
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import HeadSpec, from_dict, preprocess_from_dict, to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import BundleError

IMAGE = ImageSpec(3, low=-0.1, high=50.0, mean=(0.5, 0.6, 0.7), std=(0.1, 0.2, 0.3))
SHIPPED = Path(__file__).parents[3] / "models" / "rf20-nano"


def through_json(values: object) -> Any:
    return json.loads(json.dumps(values))


def test_the_shipped_bundle_is_read_and_would_be_written_byte_for_byte() -> None:
    text = (SHIPPED / "bundle.json").read_text()
    spec = Bundle.open(SHIPPED).spec
    assert isinstance(spec.preprocess, SpectrogramSpec)
    assert len(spec.head.labels) == 21
    assert json.dumps({"schema_version": 1, **to_dict(spec)}, indent=2) + "\n" == text
    assert read_spec(SHIPPED / "bundle.json") == spec


@pytest.mark.parametrize(
    "spec", [IMAGE, dataclasses.replace(IMAGE, decibel_floor=1e-12, range_low=-1.0), SpectrogramSpec(fft_size=1024)]
)
def test_preprocessing_survives_json_by_its_kind(spec: ImageSpec | SpectrogramSpec) -> None:
    assert preprocess_from_dict(through_json(to_dict(spec)), "x") == spec
    assert preprocess_from_dict(through_json({**to_dict(spec), "kind": spec.kind}), "x") == spec
    assert from_dict(type(spec), through_json(to_dict(spec)), "x") == spec


def test_images_say_their_kind_and_spectrograms_need_not() -> None:
    assert to_dict(IMAGE)["kind"] == "image"
    assert "kind" not in to_dict(SpectrogramSpec())


@pytest.mark.parametrize("kind", ["picture", None, 3, ["image"]])
def test_an_unknown_kind_is_named(kind: object) -> None:
    with pytest.raises(BundleError, match=r"x: kind: found .*, expected one of spectrogram, image"):
        preprocess_from_dict({**to_dict(IMAGE), "kind": kind}, "x")


def test_a_kind_of_the_other_class_is_named() -> None:
    with pytest.raises(BundleError, match=r"x: kind: found 'image', expected spectrogram"):
        from_dict(SpectrogramSpec, to_dict(IMAGE), "x")


@pytest.mark.parametrize("values", [None, [], "image", 3])
def test_preprocessing_that_is_no_object(values: object) -> None:
    with pytest.raises(BundleError, match=r"x: SpectrogramSpec: found .*, expected an object"):
        preprocess_from_dict(values, "x")


HEADS = {
    "classification": HeadSpec("classification", ("a", "b"), 0.5),
    "position": HeadSpec("position", axes=("x", "y"), low_m=(0.0, 1.0), high_m=(2.0, 3.0)),
    "channel": HeadSpec("channel", grid=(16, 14, 48), scale=0.5),
}


@pytest.mark.parametrize("task", HEADS)
def test_heads_survive_json_with_the_fields_of_their_task(task: str) -> None:
    values = through_json(to_dict(HEADS[task]))
    assert from_dict(HeadSpec, values, "x") == HEADS[task]
    others = {"labels", "threshold", "axes", "low_m", "high_m", "grid", "scale"} - set(values)
    assert len(others) == (5 if task != "position" else 4)


def test_output_shapes() -> None:
    assert [head.output_shape for head in HEADS.values()] == [(2,), (2,), (2, 16, 672)]


def test_unscaled_leaves_all_but_the_standardisation() -> None:
    assert IMAGE.unscaled() == dataclasses.replace(IMAGE, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert SpectrogramSpec(fft_size=1024).unscaled() == SpectrogramSpec(fft_size=1024, mean=0.0, std=1.0)


WRONG_IMAGES = {
    "channels": ({"channels": 0, "mean": (), "std": ()}, "channels: found 0, expected 1 to 64"),
    "range": ({"high": -0.1}, "high: found -0.1, expected more than low"),
    "low": ({"low": float("nan")}, "low: found nan"),
    "few means": ({"mean": (0.5,)}, r"mean: found \(0.5,\), expected 3 finite numbers"),
    "std of zero": ({"std": (0.1, 0.0, 0.1)}, "std: found .*expected 3 positive numbers"),
    "mapped range": ({"range_low": 1.0}, "range_high: found 1.0, expected more than range_low"),
    "no floor": ({"decibel_floor": 0.0}, "decibel_floor: found 0.0, expected a positive number"),
    "width": ({"width": 4097}, "width: found 4097, expected 1 to 4096"),
    "all together": (
        {"channels": 64, "mean": (0.0,) * 64, "std": (1.0,) * 64, "height": 4096, "width": 4096},
        "tile_shape: .* at most 67108864 values",
    ),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_a_wrong_image_spec_is_named(case: str) -> None:
    change, message = WRONG_IMAGES[case]
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(IMAGE, **change)


WRONG_HEADS = {
    "task": ({"task": "poetry"}, "task: found poetry, expected one of classification, position, channel"),
    "labels": ({"task": "classification", "labels": ["a", "a"]}, "labels: .*two or more different labels"),
    "nothing": ({"task": "position"}, "axes: found nothing, expected one or more different names"),
    "axes": ({"task": "position", "axes": ["x", "x"], "low_m": [0, 0], "high_m": [1, 1]}, "axes: .*different names"),
    "low": ({"task": "position", "axes": ["x", "y"], "low_m": [0], "high_m": [1, 1]}, "low_m: .*expected 2 finite"),
    "high": ({"task": "position", "axes": ["x"], "low_m": [1], "high_m": [1]}, "high_m: .*more than low_m"),
    "grid": ({"task": "channel", "grid": [16, 14]}, "grid: .*antennas, symbols and subcarriers"),
    "empty grid": ({"task": "channel", "grid": [16, 0, 48]}, "grid: .*each 1 or more"),
    "vast grid": ({"task": "channel", "grid": [1 << 20, 1 << 20, 48]}, "grid: .*at most 16777216 together"),
    "scale": ({"task": "channel", "grid": [1, 1, 1], "scale": -1.0}, "scale: found -1.0"),
    "other task": ({"task": "position", "labels": ["a", "b"]}, "labels: .*no such field for position"),
}


@pytest.mark.parametrize("case", WRONG_HEADS)
def test_a_wrong_head_is_named(case: str) -> None:
    values, message = WRONG_HEADS[case]
    with pytest.raises(BundleError, match=message):
        from_dict(HeadSpec, values, "bundle.json: head")


GRID_IMAGE = ImageSpec(2, -12.0, 13.0, (0.1, 0.2), (0.3, 0.4), -1.0, 1.0)
GRIDS = {
    "least_squares": PilotGridSpec(PAPER, "least_squares"),
    "image": PilotGridSpec(PAPER, "image", GRID_IMAGE),
}


@pytest.mark.parametrize("layout", GRIDS)
def test_a_pilot_grid_comes_back_from_json(layout: str) -> None:
    values = json.loads(json.dumps(to_dict(GRIDS[layout])))
    assert values["kind"] == "pilot_grid" and values["numerology"]["pilot_symbols"] == [2, 11]
    assert preprocess_from_dict(values, "bundle.json") == GRIDS[layout]


def test_the_tiles_of_pilot_grids() -> None:
    assert GRIDS["least_squares"].tile_shape == (4, 16, 48)
    assert PilotGridSpec(COMB, "least_squares").tile_shape == (4, 4, 60)
    assert GRIDS["image"].tile_shape == (2, 224, 224)


def test_unscaled_pilot_grids() -> None:
    assert GRIDS["least_squares"].unscaled() == GRIDS["least_squares"]
    assert GRIDS["image"].unscaled().image == dataclasses.replace(GRID_IMAGE, mean=(0.0, 0.0), std=(1.0, 1.0))


WRONG_PILOT_GRIDS = {
    "layout": ({"layout": "grid"}, "layout: found 'grid', expected one of image, least_squares"),
    "image not asked for": ({"layout": "least_squares"}, "image: .*expected null, since the layout is least_squares"),
    "no image": ({"image": None}, "image: found None, expected an image of 2 channels"),
    "channels": ({"image": IMAGE}, "image: .*expected an image of 2 channels"),
}


@pytest.mark.parametrize("case", WRONG_PILOT_GRIDS)
def test_a_wrong_pilot_grid_is_named(case: str) -> None:
    change, message = WRONG_PILOT_GRIDS[case]
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(GRIDS["image"], **change)
