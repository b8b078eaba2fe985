# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry experiment at toy size."""

from __future__ import annotations

import pytest
import torch
from wavesfm_trainer.benchmarks import tile_geometry as geometry
from wavesfm_trainer.cli import app


@pytest.fixture()
def small(monkeypatch):
    candidates = {
        "short": {"fft_size": 64, "hop_samples": 64, "frames_averaged": 1, "rows_per_tile": 64},
        "long": {"fft_size": 128, "hop_samples": 128, "frames_averaged": 2, "rows_per_tile": 64},
    }
    monkeypatch.setattr(geometry, "CANDIDATES", candidates)


def test_every_geometry_is_judged_on_the_same_recordings_and_repeatably(small):
    first = geometry.compare(40, 20, 1, seed=3)
    assert list(first) == ["short", "long"]
    assert all(0 <= accuracy <= 1 for accuracy in first.values())
    assert geometry.compare(40, 20, 1, seed=3) == first


def test_the_probe_learns_what_is_plain_to_see(monkeypatch):
    monkeypatch.setattr(geometry, "LABELS", ("left", "right"))
    label = torch.arange(96) % 2
    picture = torch.randint(0, 40, (96, 1, 32, 32), dtype=torch.uint8)
    picture[label == 0, :, :, 4:8] += 150
    picture[label == 1, :, :8] += 150
    assert geometry._probe(picture, torch.full((96, 1), 6.0), label, 64, 6, seed=1) > 0.9


def test_the_command_prints_a_row_for_each(small, capsys):
    app(["geometry", "--train-count", "40", "--test-count", "20", "--epochs", "1"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "short" in printed and "long" in printed
