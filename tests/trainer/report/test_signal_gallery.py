# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/signals.md: a section and a picture for each class, drawn by the gallery, with the rates that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_trainer.report import signal_gallery as gallery
from wavesfm_trainer.signals import CLASSES, LABELS

DOCS = Path(__file__).parents[3] / "docs"
SIZE = (
    gallery.LEFT + 2 * gallery.PANEL + gallery.GAP + gallery.RIGHT,
    gallery.TOP + gallery.PANEL + gallery.BOTTOM,
)


@pytest.fixture(scope="module")
def sections():
    page = (DOCS / "signals.md").read_text()
    return dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))


@pytest.mark.parametrize("label", LABELS)
def test_every_class_has_its_section(sections, label):
    text = " ".join(sections[label].split())
    assert CLASSES[label].standard in text
    for view in CLASSES[label].views:
        assert f"{view.low_hz / 1e6:g} to {view.high_hz / 1e6:g} MS/s (weight {view.weight:g})" in text
    assert "*Simplified:*" in text
    assert f"(images/signals/{label}.png)" in text


@pytest.mark.parametrize("label", LABELS)
def test_every_class_has_its_picture(label):
    with Image.open(DOCS / "images" / "signals" / f"{label}.png") as picture:
        assert picture.size == SIZE
        assert len(picture.convert("RGB").getcolors()) > 10


def test_pictures_are_small_and_of_classes_that_exist():
    files = sorted((DOCS / "images" / "signals").iterdir())
    assert {f.stem for f in files} == set(LABELS)
    assert sum(f.stat().st_size for f in files) < 1.5e6


def test_the_gallery_draws_the_tile_of_the_kernel():
    signal = CLASSES["wbfm"]
    picture = gallery.draw(signal, SpectrogramSpec(rows_per_tile=32, min_rows=4))
    assert picture.size == SIZE
    pixels = np.asarray(picture.convert("RGB"))
    top, left = gallery.TOP, gallery.LEFT
    panel = pixels[top : top + gallery.PANEL, left : left + gallery.PANEL][8:-8, 8:-8]
    colours = {tuple(c) for c in np.rint(gallery.COLOURS(np.arange(gallery.COLOURS.N))[:, :3] * 255).astype(int)}
    assert {tuple(c) for c in panel.reshape(-1, 3)} <= colours
    assert np.array_equal(panel[::2][:-1, 1:-1:2], panel[1::2][:-1, 1:-1:2])  # every pixel of the tile is 2 x 2


def test_the_usual_rate_is_inside_the_usual_view():
    for signal in CLASSES.values():
        view = gallery.usual_view(signal)
        assert view.weight == max(v.weight for v in signal.views)
        assert view.low_hz <= gallery.usual_rate_hz(signal) <= view.high_hz
