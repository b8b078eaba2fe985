# SPDX-License-Identifier: GPL-3.0-or-later
"""The classifier refuses a bundle of images at construction."""

from __future__ import annotations

from pathlib import Path

import pytest
from gnuradio import wavesfm
from support import tiny_bundles
from wavesfm_core.errors import ConfigurationError


@pytest.mark.parametrize("task", tiny_bundles.HEADS)
def test_the_classifier_refuses_it_at_construction(tmp_path: Path, task: str) -> None:
    bundle = tiny_bundles.make_image_bundle(tmp_path / "b", task)
    with pytest.raises(ConfigurationError) as refused:
        wavesfm.classifier(str(bundle))
    expected = f"{bundle}: preprocess: found a model for images, expected one for spectrograms"
    assert str(refused.value).startswith(expected)
    assert "\n" not in str(refused.value)
