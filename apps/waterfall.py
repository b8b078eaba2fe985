# SPDX-License-Identifier: GPL-3.0-or-later
"""A waterfall picture of a recording with its findings written beside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.recordings.findings import Finding
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.recordings.tiles import cut_tiles, new_stream
from wavesfm_core.types import NOISE, UNKNOWN, Tile

DPI = 100
WIDTH = 1400
LEFT, TOP, BOTTOM, LABELS = 90, 56, 116, 430  # pixels around the waterfall; LABELS with the strip of colours
TILE_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 48, 480, 1600  # pixels of the waterfall itself
LINE_HEIGHT = 19  # pixels that one label needs
LONGEST_TEXT = 52
SHORT_S = 0.2  # shorter recordings have their time in ms
GREYS = {NOISE: "#d0d0d0", UNKNOWN: "#707070"}
WRONG = "#c00000"


@dataclass(frozen=True)
class Shown:
    """A finding as the picture labels it."""

    finding: Finding
    truth: str = ""
    """The label that is right, "" when it is not known."""

    @property
    def wrong(self) -> bool:
        """Whether the label is not the truth, where that is known."""
        return bool(self.truth) and self.finding.label != self.truth

    def text(self, with_centre: bool) -> str:
        """Frequency, label, confidence, and the truth where it is another."""
        finding = self.finding
        where = f"{finding.centre_hz / 1e6:.6g} MHz  " if with_centre and finding.centre_hz is not None else ""
        share = "" if finding.confidence is None else f" {finding.confidence:.0%}"
        truth = f"  (true: {self.truth})" if self.wrong else ""
        text = f"{where}{finding.label}{'?' if finding.rate_note else ''}{share}{truth}"
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def draw(
    path: Path,
    recording: Recording,
    spec: SpectrogramSpec,
    findings: Sequence[Finding],
    title: str,
    truths: Sequence[str] = (),
) -> None:
    """Write a PNG, WIDTH pixels wide: time downwards, frequency across, labels at the right side.

    Parameters
    ----------
    path : Path
        Of the PNG.
    recording : Recording
        An open one.
    spec : SpectrogramSpec
        Of the model that made the findings.
    findings : sequence of Finding
        In order.
    title : str
        Above the picture.
    truths : sequence of str
        The right label of each finding; empty when they are not known.
    """
    found = [Shown(finding, truth) for finding, truth in itertools.zip_longest(findings, truths, fillvalue="")]
    n_tiles = sum(finding.tiles for finding in findings)
    height = int(np.clip(TILE_HEIGHT * n_tiles, LEAST_HEIGHT, MOST_HEIGHT))
    total = TOP + height + BOTTOM
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI)
    FigureCanvasAgg(figure)

    def area(left: float, bottom: float, width: float, height: float) -> Any:
        return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))

    width = WIDTH - LEFT - LABELS
    axes = area(LEFT, BOTTOM, width, height)
    image = _show(axes, waterfall(recording, spec, height), recording)
    for each in found[1:] if len(found) * LINE_HEIGHT < height else ():
        axes.axhline(_time(recording, each.finding.start_sample), color="white", linewidth=0.6, alpha=0.7)
    bar = figure.colorbar(image, cax=area(LEFT, 40, width, 14), orientation="horizontal")
    bar.set_label("power in one FFT bin, dB relative to full scale", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    _write_labels(area(LEFT + width, BOTTOM, LABELS, height), found, recording, height)
    figure.text(LEFT / WIDTH, 1 - 34 / total, title, fontsize=12, fontweight="bold")
    figure.savefig(path, dpi=DPI)


def waterfall(recording: Recording, spec: SpectrogramSpec, rows: int) -> NDArray[np.float32]:
    """Power per FFT bin, float32 [rows, spec.width] in dB relative to full scale; NaN in rows that no tile covers.

    Of a long recording each row is the mean power of the tiles' rows in it. Powers outside the range of a tile (spec)
    are at its limits.
    """
    power = np.zeros((rows, spec.width))
    weight = np.zeros((rows, 1))
    begin, length = recording.start_sample, recording.stop_sample - recording.start_sample
    for tile in cut_tiles(recording, new_stream(recording, spec)):
        first = (tile.start_sample - begin) * rows // length
        stop = max(first + 1, (tile.start_sample - begin + tile.n_samples) * rows // length)
        lines = 10 ** (_decibels(tile, spec) / 10)
        if stop - first >= spec.height:
            lines = lines[np.arange(stop - first) * spec.height // (stop - first)]
        else:
            edges = np.arange(stop - first + 1) * spec.height // (stop - first)
            lines = np.add.reduceat(lines, edges[:-1], axis=0) / np.diff(edges)[:, None]
        power[first:stop] += lines
        weight[first:stop] += 1
    with np.errstate(invalid="ignore"):
        return (10 * np.log10(power / weight)).astype(np.float32)


def _decibels(tile: Tile, spec: SpectrogramSpec) -> NDArray[np.float64]:
    """A tile before it was standardised and referred to its median."""
    share = tile.data[0].astype(np.float64) * spec.std + spec.mean
    reference_db = max(tile.floor_db, tile.peak_db - spec.high_db) if spec.reference == "median" else 0.0
    return spec.low_db + share * (spec.high_db - spec.low_db) + reference_db


def _seconds(recording: Recording) -> float:
    """Length of the part that is shown; 0 when the rate is unknown."""
    length = recording.stop_sample - recording.start_sample
    return length / recording.rate_hz if recording.rate_hz else 0.0


def _time(recording: Recording, sample: int) -> float:
    """What the time axis shows: seconds, milliseconds, or samples when the rate is unknown."""
    if not recording.rate_hz:
        return float(sample)
    return sample / recording.rate_hz * (1e3 if _seconds(recording) < SHORT_S else 1.0)


def _show(axes: Any, decibels: NDArray[np.float32], recording: Recording) -> Any:
    half = recording.rate_hz / 2e6 or 0.5
    seen = decibels[np.isfinite(decibels)]
    low, high = np.quantile(seen, [0.12, 0.9995]) if seen.size else (-100.0, 0.0)
    image = axes.imshow(
        decibels,
        aspect="auto",
        interpolation="nearest",
        extent=(-half, half, _time(recording, recording.stop_sample), _time(recording, recording.start_sample)),
        cmap="viridis",
        vmin=low,
        vmax=max(high, low + 20),
    )
    axes.set_facecolor("#404040")
    centres = {segment.centre_hz for segment in recording.segments}
    centre_hz = centres.pop() if len(centres) == 1 else None
    where = "" if centre_hz is None else f" from {centre_hz / 1e6:.6g} MHz"
    unit = "MHz" if recording.rate_hz else "sample rates (it is not known)"
    axes.set_xlabel(f"frequency offset{where}, {unit}", fontsize=9)
    unit = "samples" if not recording.rate_hz else "ms" if _seconds(recording) < SHORT_S else "s"
    axes.set_ylabel(f"time, {unit}", fontsize=9)
    axes.tick_params(labelsize=9)
    return image


def _write_labels(axes: Any, found: Sequence[Shown], recording: Recording, height: int) -> None:
    """A strip with the colour of each label, and the texts, moved apart until none is over another."""
    axes.set(xlim=(0, LABELS), ylim=(height, 0))
    axes.axis("off")
    colours = _colours(found)
    begin, length = recording.start_sample, recording.stop_sample - recording.start_sample
    middles: list[tuple[float, Shown]] = []
    for each in found:
        finding = each.finding
        top, stop = ((sample - begin) / length * height for sample in (finding.start_sample, finding.end_sample))
        axes.fill_between((6, 20), top, max(stop, top + 1), color=colours[finding.label], linewidth=0)
        axes.plot((6, 20), (top, top), color="white", linewidth=0.8 if len(found) * LINE_HEIGHT < height else 0.0)
        middles.append(((top + stop) / 2, each))
    room = height // LINE_HEIGHT
    longest = sorted(middles, key=lambda pair: -pair[1].finding.n_samples)
    shown = sorted(longest[: room if len(found) <= room else room - 1], key=lambda pair: pair[1].finding.start_sample)
    tuned = len({each.finding.centre_hz for each in found}) > 1
    for (middle, each), place in zip(shown, spread([middle for middle, _ in shown], LINE_HEIGHT, height)):
        colour = WRONG if each.wrong else "#808080" if each.finding.label in GREYS else "black"
        axes.plot((20, 30, 40), (middle, place, place), color="#909090", linewidth=0.7)
        weight = "bold" if each.wrong else "normal"
        axes.text(44, place, each.text(tuned), fontsize=10, va="center", color=colour, fontweight=weight)
    if len(shown) < len(found):
        more = f"and {len(found) - len(shown)} shorter ones, which only the strip shows"
        axes.text(44, height + LINE_HEIGHT / 2, more, fontsize=9, va="center", style="italic", color="#606060")


def _colours(found: Sequence[Shown]) -> dict[str, Any]:
    names = (each.finding.label for each in found)
    labels = list(dict.fromkeys(label for label in names if label not in GREYS))
    return {**GREYS, **{label: colormaps["tab20"](i % 20) for i, label in enumerate(labels)}}


def spread(centres: Sequence[float], distance: float, height: float) -> list[float]:
    """Ascending places near `centres`, `distance` apart, within half a distance of 0 and height where they fit."""
    places: list[float] = []
    for centre in centres:
        least = places[-1] + distance if places else distance / 2
        places.append(max(centre, least))
    most = height - distance / 2
    for i in reversed(range(len(places))):
        places[i] = min(places[i], most)
        most = places[i] - distance
    return places
