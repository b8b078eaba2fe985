# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures: what is drawn is what was given, and every figure can be written without a display."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.report import figures
from wavesfm_trainer.report.figures import Curve, Points


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def texts(ax) -> dict[tuple[float, float], str]:
    return {t.get_position(): t.get_text() for t in ax.texts}


def test_reconstructions_hide_what_was_hidden_and_keep_what_was_seen(rng):
    original = rng.normal(size=(2, 3, 32, 32))
    back = [np.full_like(original, 9.0), np.full_like(original, 8.0)]
    hidden = [rng.random((2, 16)) < 0.7 for _ in range(2)]
    figure = figures.reconstructions(original, (0.7, 0.9), back, hidden, ("a", "b"), channel=1)
    panels = [ax for ax in figure.axes if ax.images and ax.get_label() != "<colorbar>"]
    assert len(panels) == 2 * 5
    drawn = [np.ma.filled(ax.images[0].get_array().astype(float), math.nan) for ax in panels]
    assert np.array_equal(drawn[5], original[1, 1])
    cover = hidden[0][1].reshape(4, 4).repeat(8, 0).repeat(8, 1)
    assert np.isnan(drawn[6][cover]).all() and np.array_equal(drawn[6][~cover], original[1, 1][~cover])
    assert (drawn[7][cover] == 9).all() and np.array_equal(drawn[7][~cover], original[1, 1][~cover])
    assert [ax.get_title() for ax in panels[:5]] == [
        "original",
        "70% hidden",
        "reconstructed",
        "90% hidden",
        "reconstructed",
    ]
    assert [panels[0].get_ylabel(), panels[5].get_ylabel()] == ["a", "b"]


def test_reconstructions_refuse_patches_that_do_not_tile(rng):
    original = rng.normal(size=(1, 1, 32, 32))
    with pytest.raises(ConfigurationError, match="reconstructions: hidden: found 15, expected 16"):
        figures.reconstructions(original, (0.7,), [original], [np.ones((1, 15), bool)])


def test_confusions_are_per_cent_of_the_row():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 1, 199]])
    figure = figures.confusions({"one": matrix, "two": np.eye(3, dtype=int)}, ("a", "b", "c"))
    ax = figure.axes[0]
    assert texts(ax) == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}  # 0.5 % is not worth a number
    assert ax.get_title() == "one"
    assert [t.get_text() for t in ax.get_yticklabels()][:3] == ["a", "b", "c"]
    assert sum(patch.get_hatch() is not None for patch in ax.patches) == 1  # the class without samples
    with pytest.raises(ConfigurationError, match=r"confusions: one: found \(3, 3\), expected \(2, 2\)"):
        figures.confusions({"one": matrix}, ("a", "b"))


def test_twenty_labels_stand_below_each_other_and_stay_readable():
    labels = tuple(f"label-{i}" for i in range(20))
    figure = figures.confusions({"a": np.eye(20, dtype=int), "b": np.eye(20, dtype=int)}, labels)
    width, height = figure.get_size_inches()
    assert height > 1.5 * width
    assert min(t.get_fontsize() for t in figure.axes[0].texts) >= 6


def test_position_density_integrates_to_one_and_the_share_ends_at_100(rng):
    errors = {"a": rng.gamma(2, 0.2, 500), "b": rng.gamma(2, 0.5, 500)}
    density, cumulative = figures.position_errors(errors).axes
    x, y = density.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)  # although half of the kernel at 0 lies below 0
    assert density.lines[1].get_xdata()[0] == pytest.approx(errors["a"].mean())
    share = cumulative.lines[1].get_ydata()
    assert share[-1] == 100 and (np.diff(share) > 0).all()
    assert "(m)" in density.get_xlabel() and "(1/m)" in density.get_ylabel()


def test_equal_errors_are_drawn_without_a_density():
    density, _ = figures.position_errors({"a": np.full(10, 0.5)}).axes
    assert len(density.lines) == 1


def test_over_snr_takes_any_number_of_curves_and_dashes_the_references(rng):
    snr = np.array([-10.0, 0, 10])
    curves = {"LS": Curve(snr, np.array([[3.0, 1, 0.1]]), reference=True)}
    curves |= {f"net {i}": Curve(snr, rng.random((2, 3)) + 0.1) for i in range(9)}
    ax = figures.over_snr(curves).axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert len(lines) == 10
    assert lines["LS"].get_linestyle() == "--" and lines["net 0 (n = 2)"].get_linestyle() == "-"
    assert np.allclose(lines["net 3 (n = 2)"].get_ydata(), curves["net 3"].values.mean(axis=0))
    looks = {(to_rgb(line.get_color()), line.get_marker()) for line in ax.lines}
    assert len(looks) == 10
    assert ax.get_yscale() == "log" and figures.over_snr(curves, decibel=True).axes[0].get_yscale() == "linear"
    assert "dB" in ax.get_xlabel()


def test_trends_band_is_lowest_to_highest_seed_and_gaps_are_no_zeros():
    values = np.array([[1.0, 2.0, math.nan, math.nan], [3.0, math.nan, math.nan, 7.0]])
    ax = figures.trends({"a": Curve(np.array([1, 2, 3, 4]), values)}, "accuracy (%)").axes[0]
    x, mean = ax.lines[0].get_data()
    assert x.tolist() == [1, 2, 4] and mean.tolist() == [2.0, 2.0, 7.0]
    corners = ax.collections[0].get_paths()[0].vertices
    assert {(1.0, 1.0), (1.0, 3.0)} <= {tuple(c) for c in corners}
    assert ax.get_xlabel() == "epoch" and ax.get_ylabel() == "accuracy (%)"


def test_a_curve_of_another_length_is_refused():
    with pytest.raises(ConfigurationError, match=r"figure: a: found \(3,\), expected \(2,\)"):
        figures.trends({"a": Curve(np.array([1, 2]), np.ones((1, 3)))}, "y")


def test_pareto_front_needs_more_for_more_parameters():
    parameters = np.array([1, 2, 2, 3, 4])
    assert figures.pareto_front(parameters, np.array([5, 4, 6, 6, 7])).tolist() == [0, 2, 4]


def test_lora_pareto_rings_the_front_and_orders_ranks():
    lines = {
        "alpha = 1": Points(np.array([4e5, 2e5]), np.array([82.0, 80.0]), np.array([math.nan, 1.0])),
        "alpha = 8": Points(np.array([2e5, 4e5]), np.array([85.0, 84.0]), np.array([1.0, 1.0])),
    }
    references = {"from scratch": Points(np.array([3.8e7]), np.array([88.0]), np.array([0.5]))}
    figure = figures.lora_pareto(lines, references, "accuracy (%)")
    by_label = {line.get_label(): line for line in figure.axes[0].lines}
    assert by_label["Pareto front"].get_data()[1].tolist() == [85.0]
    assert figure.axes[0].lines[0].get_xdata().tolist() == [2e5, 4e5]
    names = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert names == ["alpha = 1", "alpha = 8", "from scratch (38 M)", "Pareto front"]
    lower = figures.lora_pareto(lines, {}, "error (m)", higher_is_better=False)
    front = {line.get_label(): line for line in lower.axes[0].lines}["Pareto front"]
    assert front.get_data()[1].tolist() == [80.0]


def test_figures_are_encoded_repeatably_and_saved(tmp_path):
    curves = {"a": Curve(np.array([1, 2]), np.array([[1.0, 2.0]]))}
    svg, again = (figures.encode(figures.trends(curves, "y")) for _ in range(2))
    assert svg == again
    assert b"</svg>" in base64.b64decode(svg.removeprefix("data:image/svg+xml;base64,"))
    png = figures.encode(figures.trends(curves, "y"), "png", dpi=50)
    assert base64.b64decode(png.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    figures.save(figures.trends(curves, "y"), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
