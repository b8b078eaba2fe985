# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of the paper from arrays. Each function returns a matplotlib Figure, drawn without a display.

Sizes are those of a printed page: one column 3.5 inch, two 7.2. The colours are Okabe and Ito's, which colour-blind
readers can tell apart. Series also differ in line style and marker, for prints in grey.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray
from scipy import stats
from wavesfm_core.errors import ConfigurationError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 2)), (0, (2, 1)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMN_IN, PAGE_IN = 3.5, 7.2
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "wavesfm",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Curve:
    """A line with a spread."""

    x: NDArray
    """[X]."""
    values: NDArray
    """[runs, X], NaN if a run has no value."""
    reference: bool = False
    """Another method, drawn dashed."""


@dataclass(frozen=True)
class Points:
    """Results against numbers of trainable parameters."""

    parameters: NDArray
    """Numbers of parameters, [P]."""
    values: NDArray
    """Means, [P]."""
    half: NDArray
    """Half intervals, [P]; NaN: none."""


def encode(figure: Figure, file_format: str = "svg", dpi: int = 200) -> str:
    """The figure as a data URI ("svg" or "png"); the same figure gives the same bytes."""
    data = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[file_format]
    with rc_context(STYLE):
        figure.savefig(data, format=file_format, dpi=dpi, metadata=metadata)
    kind = {"svg": "svg+xml", "png": "png"}[file_format]
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


def save(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write the figure in the format of the path's suffix (.png, .svg, .pdf)."""
    with rc_context(STYLE):
        figure.savefig(path, dpi=dpi)


@rc_context(STYLE)
def reconstructions(
    original: NDArray,
    ratios: Sequence[float],
    reconstructed: Sequence[NDArray],
    hidden: Sequence[NDArray],
    names: Sequence[str] = (),
    channel: int = 0,
) -> Figure:
    """Fig. 5: a row for each tile: the original, and for each mask ratio the visible patches and the reconstruction.

    Visible patches are shown as they are, because the loss does not cover the decoder's output for them. Colours span
    the original's 0.5 to 99.5 % quantiles, for each row.

    Parameters
    ----------
    original : [K, C, H, W].
    ratios : mask ratios, shares of 1.
    reconstructed : [K, C, H, W] for each ratio.
    hidden : bool [K, patches] for each ratio, row by row, of square patches.
    names : of the tiles.
    channel : which channel is shown.
    """
    _equal("reconstructions", "hidden", len(hidden), len(ratios))
    _equal("reconstructions", "reconstructed", len(reconstructed), len(ratios))
    k, n_columns = len(original), 1 + 2 * len(ratios)
    side = PAGE_IN / (n_columns + 0.5)
    figure, axes = _figure(PAGE_IN, k * side * 1.03 + 0.35, rows=k, columns=n_columns)
    for row, (tile, line) in enumerate(zip(original[:, channel], axes)):
        low, high = np.quantile(tile, (0.005, 0.995))
        panels = [tile]
        for decoded, masked in zip(reconstructed, hidden):
            cover = _cover(masked[row], tile.shape)
            panels += [np.where(cover, np.nan, tile), np.where(cover, decoded[row, channel], tile)]
        for ax, panel in zip(line, panels):
            picture = ax.imshow(
                panel, vmin=low, vmax=high, cmap=_greyed("viridis"), interpolation="nearest", aspect="auto"
            )
            _bare(ax)
        bar = figure.colorbar(picture, ax=line[-1], fraction=0.08, pad=0.04, ticks=[low, high], format="%.1f")
        bar.ax.tick_params(length=0, labelsize=6)
        bar.outline.set_visible(False)
        if names:
            line[0].set_ylabel(names[row])
    titles = ["original"] + [t for r in ratios for t in (f"{r:.0%} hidden", "reconstructed")]
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=7.5)
    return figure


@rc_context(STYLE)
def confusions(matrices: Mapping[str, NDArray], labels: Sequence[str]) -> Figure:
    """Fig. 6a, 6b and 9: confusion matrices, as per cent of the true class.

    Up to 12 labels, two panels stand side by side. A row without samples is hatched.

    Parameters
    ----------
    matrices : counts [true, predicted] by name.
    labels : of the classes.
    """
    n = len(labels)
    for name, matrix in matrices.items():
        _equal("confusions", name, matrix.shape, (n, n))
    beside = 2 if len(matrices) > 1 and n <= 12 else 1
    rows = -(-len(matrices) // beside)
    width = PAGE_IN if beside == 2 or n > 12 else COLUMN_IN + 0.6
    height = rows * (width / beside * 0.92 + 0.25)
    figure, axes = _figure(width, height, rows=rows, columns=beside)
    cell_pt = 72 * width / beside * 0.72 / n
    for ax, (name, matrix) in zip(axes.flat, matrices.items()):
        _confusion(ax, matrix, labels, cell_pt)
        ax.set_title(name)
    for ax in axes.flat[len(matrices) :]:
        ax.remove()
    return figure


def _confusion(ax: Axes, matrix: NDArray, labels: Sequence[str], cell_pt: float) -> None:
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(100 * matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    ax.imshow(share, vmin=0, vmax=100, cmap="Blues")
    for i, j in np.argwhere(np.round(share) >= 1):
        ink = "white" if share[i, j] > 55 else "#222222"
        ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", color=ink, fontsize=min(8, cell_pt * 0.42))
    for i in np.flatnonzero(total[:, 0] == 0):
        ax.axhspan(i - 0.5, i + 0.5, facecolor="none", edgecolor="#bbbbbb", hatch="////", linewidth=0)
    size = min(7.5, cell_pt * 0.55)
    slanted = max(map(len, labels)) * size * 0.55 > cell_pt
    ax.set_xticks(range(len(labels)), labels, rotation=90 if slanted else 0, fontsize=size)
    ax.set_yticks(range(len(labels)), labels, fontsize=size)
    ax.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    ax.grid(False)
    ax.grid(True, which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true (rows sum to 100 %)")


@rc_context(STYLE)
def position_errors(errors_m: Mapping[str, NDArray]) -> Figure:
    """Fig. 6c and its integral: density and cumulative share of the positioning error of each model, in metres.

    The density is a Gaussian kernel estimate, reflected at 0, where a distance ends. Ticks on the axis are the means.
    Both panels end at 99 % of the worst model's errors.

    Parameters
    ----------
    errors_m : distances [N] by name.
    """
    figure, axes = _figure(PAGE_IN, 2.6, columns=2)
    density, cumulative = axes[0]
    end = max(float(np.quantile(e, 0.99)) for e in errors_m.values()) or 1.0
    grid = np.linspace(0, end, 400)
    for (name, error), (colour, dash, marker) in zip(errors_m.items(), _looks()):
        kernel = stats.gaussian_kde(error) if len(error) > 1 and np.ptp(error) > 0 else None
        if kernel is not None:
            density.plot(grid, kernel(grid) + kernel(-grid), color=colour, linestyle=dash)
        mean = float(error.mean())
        density.plot([mean], [0], color=colour, marker=marker, clip_on=False, zorder=5, markersize=5)
        ordered = np.sort(error)
        share = 100 * np.arange(1, len(error) + 1) / len(error)
        label = f"{name} (mean {mean:.2f} m)"
        cumulative.step(ordered, share, where="post", color=colour, linestyle=dash, label=label)
    density.set(xlim=(0, end), ylim=(0, None), xlabel="positioning error (m)", ylabel="probability density (1/m)")
    density.text(
        0.98, 0.96, "marks on the axis: means", transform=density.transAxes, ha="right", va="top", color="#555555"
    )
    cumulative.axhline(90, color="#888888", linewidth=0.7)
    cumulative.text(end, 89, "90 %", ha="right", va="top", color="#666666", fontsize=7)
    cumulative.set(xlim=(0, end), ylim=(0, 100), xlabel="positioning error (m)", ylabel="samples below (%)")
    cumulative.legend(loc="lower right")
    return figure


@rc_context(STYLE)
def over_snr(curves: Mapping[str, Curve], decibel: bool = False) -> Figure:
    """Fig. 6d: error of channel estimation over SNR. Line: mean over runs; band: lowest to highest run.

    Parameters
    ----------
    curves : x in dB; values MSE (log axis), or NMSE in dB.
    decibel : values are in dB.
    """
    label = "NMSE (dB)" if decibel else "mean squared error"
    figure = _lines(curves, "signal-to-noise ratio (dB)", label, marked=True)
    if not decibel:
        figure.axes[0].set_yscale("log")
    return figure


@rc_context(STYLE)
def trends(curves: Mapping[str, Curve], label: str, log: bool = False) -> Figure:
    """Fig. 7: a figure of merit over epochs. Line: mean over seeds; band: lowest to highest seed.

    Parameters
    ----------
    curves : by name.
    label : of the y axis.
    log : the y axis is logarithmic.
    """
    figure = _lines(curves, "epoch", label, marked=False)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        figure.axes[0].set_yscale("log")
    return figure


@rc_context(STYLE)
def lora_pareto(
    lines: Mapping[str, Points], references: Mapping[str, Points], label: str, higher_is_better: bool = True
) -> Figure:
    """Fig. 8: a result against the number of trainable parameters, a line for each alpha.

    Ringed points are those that no other point with fewer or equal parameters reaches.

    Parameters
    ----------
    lines : points of the ranks by name (alpha).
    references : one point each (last blocks, from scratch), drawn as a level line with a mark at its parameter count.
    label : of the y axis.
    higher_is_better : direction of the result.
    """
    figure, axes = _figure(PAGE_IN * 0.72, 3.2)
    ax = axes[0, 0]
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, max(len(lines), 2)))
    for (name, p), shade, marker in zip(lines.items(), shades, cycle(MARKERS)):
        order = np.argsort(p.parameters)
        half = np.nan_to_num(p.half[order])
        ax.errorbar(
            p.parameters[order],
            p.values[order],
            half,
            color=shade,
            marker=marker,
            capsize=2,
            elinewidth=0.8,
            label=name,
        )
    for (name, p), colour, dash in zip(references.items(), (PALETTE[1], PALETTE[6], PALETTE[3]), DASHES[1:]):
        ax.axhline(p.values[0], color=colour, linestyle=dash, linewidth=1.1)
        text = f"{name} ({p.parameters[0] / 1e6:.2g} M)"
        ax.plot(p.parameters[:1], p.values[:1], color=colour, linestyle=dash, marker="*", markersize=9, label=text)
    if lines:
        x = np.concatenate([p.parameters for p in lines.values()])
        y = np.concatenate([p.values for p in lines.values()])
        front = pareto_front(x, y if higher_is_better else -y)
        ring = {"markerfacecolor": "none", "markeredgecolor": "#444444", "label": "Pareto front"}
        ax.plot(x[front], y[front], "o", markersize=9, zorder=5, **ring)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for setter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        setter(FuncFormatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e5 else f"{x / 1e3:g} k"))
    ax.tick_params(axis="x", which="both", labelsize=STYLE["xtick.labelsize"], length=3, pad=3)
    ax.set(xlabel="trainable parameters", ylabel=label)
    handles, names = ax.get_legend_handles_labels()
    alphas_first = sorted(range(len(names)), key=lambda i: (names[i] not in lines, names[i] not in references, i))
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend([handles[i] for i in alphas_first], [names[i] for i in alphas_first], **beside)
    return figure


def pareto_front(parameters: NDArray, values: NDArray) -> NDArray[np.int64]:
    """Indices of the points that no other point with as few or fewer parameters equals, by parameters; both [P]."""
    order = np.lexsort((-values, parameters))
    best, front = -np.inf, []
    for i in order:
        if values[i] > best:
            best = values[i]
            front.append(i)
    return np.array(front, np.int64)


def _lines(curves: Mapping[str, Curve], xlabel: str, ylabel: str, marked: bool) -> Figure:
    figure, axes = _figure(PAGE_IN * 0.72, 2.8)
    ax = axes[0, 0]
    ranked = sorted(curves.items(), key=lambda item: item[1].reference)
    for (name, curve), (colour, dash, marker) in zip(ranked, _looks()):
        _equal("figure", name, curve.values.shape[1:], curve.x.shape)
        drawn = np.isfinite(curve.values).any(axis=0)
        x, values = curve.x[drawn], curve.values[:, drawn]
        style = (0, (2, 1.5)) if curve.reference else dash if not marked else "-"
        n_runs = f" (n = {len(values)})" if len(values) > 1 else ""
        ax.plot(
            x,
            np.nanmean(values, axis=0),
            color=colour,
            linestyle=style,
            marker=marker if marked else "" if len(x) > 1 else "o",
            label=name + n_runs,
        )
        if len(values) > 1:
            ax.fill_between(
                x, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.15, linewidth=0
            )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.02)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _figure(width_in: float, height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, NDArray]:
    """A figure with its own canvas (pyplot's state is global and not thread-safe), and its axes [rows, columns]."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _looks() -> Iterator[tuple]:
    """Colour, dashes and marker of successive series; the first 49 differ from each other."""
    n = len(PALETTE)
    return ((PALETTE[i % n], DASHES[(i + i // n) % n], MARKERS[(i + i // n) % n]) for i in count())


def _greyed(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad="#c9c9c9")


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _cover(hidden: NDArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of pixels [H, W] from a mask of square patches [N], row by row."""
    patch = round((shape[0] * shape[1] / len(hidden)) ** 0.5)
    rows, columns = shape[0] // patch, shape[1] // patch
    _equal("reconstructions", "hidden", len(hidden), rows * columns)
    return hidden.reshape(rows, columns).repeat(patch, axis=0).repeat(patch, axis=1)


def _equal(where: str, field: str, found: object, expected: object) -> None:
    if found != expected:
        raise ConfigurationError(where, field, found, str(expected))
