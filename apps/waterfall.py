# SPDX-License-Identifier: GPL-3.0-or-later
"""A waterfall picture of a recording with its findings drawn into it and written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gnuradio.wavesfm.display.palette import label_colour, power_colours
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from scene import box_of
from wavesfm_core.recordings.findings import Finding
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.types import NOISE, UNKNOWN
from wavesfm_trainer.evaluation.band_scenes import Truth, false_boxes, match

DPI = 100
COLUMNS = 1024  # pixels of the waterfall, and bins of its transforms
LEFT, TOP, BOTTOM, LABELS = 90, 56, 116, 430  # pixels around the waterfall; LABELS with the strip of colours
WIDTH = LEFT + COLUMNS + LABELS
HEIGHT, MOST_HEIGHT = 620, 1600  # pixels of the waterfall itself, more where there are many findings
LINE_HEIGHT = 19  # pixels that one label needs
LEAST_BOX = 7  # pixels
LETTER_WIDTH = 6.5  # pixels, of the labels at boxes
LONGEST_TEXT = 52
SHORT_S = 0.2  # shorter recordings have their time in ms
QUIET = (NOISE, UNKNOWN)
WRONG = "#c00000"
EMPTY = "#404040"


@dataclass(frozen=True)
class Shown:
    """A finding, or a signal that was not found, as the picture labels it."""

    finding: Finding | None
    """None: this truth was not found."""
    truth: str | None = None
    """The label that is right, "" for a box where nothing was sent, None when it is not known."""
    missed: Truth | None = None
    """The signal that was not found."""

    @property
    def wrong(self) -> bool:
        """Whether the label is not the truth, where that is known."""
        return self.finding is None or (self.truth is not None and self.finding.label != self.truth)

    def text(self, with_centre: bool) -> str:
        """Frequency, label, confidence, and the truth where it is another."""
        finding = self.finding
        if finding is None:
            return f"not found  sent: {self.truth}"
        edges = finding.edges_hz() if finding.band_hz is not None else None
        middle_hz = finding.centre_hz if edges is None else sum(edges) / 2
        digits = 6 if edges is None else 7
        where = f"{middle_hz / 1e6:.{digits}g} MHz  " if with_centre and middle_hz is not None else ""
        share = "" if finding.confidence is None else f" {finding.confidence:.0%}"
        truth = "" if self.truth is None else f"  sent: {self.truth or 'nothing'}"
        text = f"{where}{finding.label}{'?' if finding.rate_note else ''}{share}{truth}"
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def shown(findings: Sequence[Finding], truths: Sequence[Truth] = ()) -> list[Shown]:
    """Findings with the truth of each, and the truths that were not found."""
    if not truths:
        return [Shown(finding) for finding in findings]
    found = {box_of(each): each for each in findings if each.band_hz is not None}
    sent = {id(found[box]): "" for box in false_boxes(truths, list(found))}
    missed = []
    for matched in (match(truth, list(found)) for truth in truths):
        sent |= {id(found[box]): matched.truth.label for box in matched.boxes}
        missed += [] if matched.boxes else [Shown(None, matched.truth.label, matched.truth)]
    return [Shown(finding, sent.get(id(finding))) for finding in findings] + missed


def draw(
    path: Path, recording: Recording, findings: Sequence[Finding], title: str, truths: Sequence[Truth] = ()
) -> None:
    """Write a PNG, WIDTH pixels wide: time downwards, frequency across, labels at the right side.

    Findings with edges are boxes in the waterfall with a number, which stands before the label at the right. Findings
    of the whole band are a strip of colour beside the waterfall. The truth is a dashed frame.

    Parameters
    ----------
    path : Path
        Of the PNG.
    recording : Recording
        An open one.
    findings : sequence of Finding
        In order.
    title : str
        Above the picture.
    truths : sequence of Truth
        What was sent; empty when it is not known.
    """
    found = shown(findings, truths)
    height = int(np.clip(LINE_HEIGHT * len(found), HEIGHT, MOST_HEIGHT))
    total = TOP + height + BOTTOM
    figure = Figure(figsize=(WIDTH / DPI, total / DPI), dpi=DPI)
    FigureCanvasAgg(figure)

    def area(left: float, bottom: float, width: float, height: float) -> Any:
        return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))

    axes = area(LEFT, BOTTOM, COLUMNS, height)
    image = _show(axes, waterfall(recording, height), recording)
    places = _Places(recording, height)
    whole = [each for each in found if each.finding is not None and each.finding.band_hz is None]
    in_band = sorted((each for each in found if each not in whole), key=_low_hz)
    for each in whole[1:] if not in_band and len(whole) * LINE_HEIGHT < height else ():
        axes.axhline(places.time(each.finding.start_sample), color="white", linewidth=0.6, alpha=0.7)
    for truth in truths:
        _frame(axes, places, truth.low_hz, truth.high_hz, truth.start_s, truth.stop_s, "white", dashed=True)
    for number, each in enumerate(in_band, 1):
        _draw_box(axes, places, each, number)
    bar = figure.colorbar(image, cax=area(LEFT, 40, COLUMNS, 14), orientation="horizontal")
    bar.set_label("power in one FFT bin, dB relative to full scale", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    beside = area(LEFT + COLUMNS, BOTTOM, LABELS, height)
    if in_band:
        _write_list(beside, in_band, whole, height)
    else:
        _write_strip(beside, whole, recording, height)
    if truths:
        title += "    dashed: what was sent"
    figure.text(LEFT / WIDTH, 1 - 34 / total, title, fontsize=12, fontweight="bold")
    figure.savefig(path, dpi=DPI)
    with Image.open(path) as drawn:  # a third of the size
        drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def waterfall(recording: Recording, rows: int, columns: int = COLUMNS) -> NDArray[np.float32]:
    """Power in one bin, float32 [rows, columns] in dB relative to full scale; NaN in rows that no transform covers.

    Each row is the mean of all transforms whose middle lies in it; they overlap where the recording is short.
    """
    length = recording.stop_sample - recording.start_sample
    hop = max(1, min(columns, length // rows))
    window = np.hanning(columns).astype(np.float32)
    power, weight = np.zeros((rows, columns)), np.zeros((rows, 1))
    rest, at = np.zeros(0, np.complex64), 0
    for block in recording.blocks():
        samples = np.concatenate([rest, block])
        count = max(0, (len(samples) - columns) // hop + 1)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(samples, columns)[: count * hop : hop]
            middles = at + np.arange(count) * hop + columns // 2
            _add(power, weight, np.minimum(middles * rows // max(length, 1), rows - 1), frames, window)
        rest, at = samples[count * hop :], at + count * hop
    with np.errstate(invalid="ignore", divide="ignore"):
        decibels = 10 * np.log10(power / weight / window.sum() ** 2)
    return decibels.astype(np.float32)


def _add(power: Any, weight: Any, rows: Any, frames: Any, window: Any, most: int = 4096) -> None:
    """Add the transforms to their rows, a few at a time."""
    for first in range(0, len(frames), most):
        spectra = np.fft.fftshift(np.fft.fft(frames[first : first + most] * window, axis=1), axes=1)
        squared = np.nan_to_num(spectra.real**2 + spectra.imag**2)
        mine = rows[first : first + most]
        starts = np.flatnonzero(np.diff(mine, prepend=-1))
        power[mine[starts]] += np.add.reduceat(squared, starts, axis=0)
        np.add.at(weight, mine, 1.0)


class _Places:
    """From samples and Hz to the axes of the picture, and where its labels have room."""

    def __init__(self, recording: Recording, height: int) -> None:
        self.recording = recording
        self.rate_hz = recording.rate_hz
        length = recording.stop_sample - recording.start_sample
        self.pixel_samples = length / height
        self.seconds = length / self.rate_hz if self.rate_hz else 0.0
        self.height, self.taken = height, list[tuple[float, float, float]]()

    def free(self, corner: tuple[float, float], letters: int) -> tuple[float, float]:
        """Pixels from the lower left corner for a text above a box, lower down where others are in the way."""
        width = LETTER_WIDTH * letters
        left = min((corner[0] * 1e6 / self.rate_hz + 0.5) * COLUMNS, COLUMNS - width)
        top = self.time(self.recording.start_sample)
        down = max((corner[1] - top) / self.time(self.pixel_samples) - LINE_HEIGHT / 2, LINE_HEIGHT / 2)
        while any(
            left < stop and first < left + width and abs(down - y) < LINE_HEIGHT - 3 for first, stop, y in self.taken
        ):
            down += LINE_HEIGHT - 3
        self.taken.append((left, left + width, down))
        return left, self.height - down

    def time(self, sample: float) -> float:
        """What the time axis shows: seconds, milliseconds, or samples when the rate is unknown."""
        if not self.rate_hz:
            return float(sample)
        return sample / self.rate_hz * (1e3 if self.seconds < SHORT_S else 1.0)

    @property
    def unit(self) -> str:
        """Of the time axis."""
        return "samples" if not self.rate_hz else "ms" if self.seconds < SHORT_S else "s"


def _low_hz(each: Shown) -> tuple[float, float]:
    if each.missed is not None:
        return each.missed.low_hz, each.missed.start_s
    assert each.finding is not None and each.finding.band_hz is not None
    return each.finding.band_hz[0], float(each.finding.start_sample)


def _show(axes: Any, decibels: NDArray[np.float32], recording: Recording) -> Any:
    half, places = recording.rate_hz / 2e6 or 0.5, _Places(recording, len(decibels))
    seen = decibels[np.isfinite(decibels)]
    low, high = np.quantile(seen, [0.05, 0.9995]) if seen.size else (-100.0, 0.0)
    image = axes.imshow(
        decibels,
        aspect="auto",
        interpolation="nearest",
        extent=(-half, half, places.time(recording.stop_sample), places.time(recording.start_sample)),
        cmap=ListedColormap(power_colours() / 255),
        vmin=low,
        vmax=max(high, low + 20),
    )
    axes.set_facecolor(EMPTY)
    centres = {segment.centre_hz for segment in recording.segments}
    centre_hz = centres.pop() if len(centres) == 1 else None
    where = "" if centre_hz is None else f" from {centre_hz / 1e6:.6g} MHz"
    unit = "MHz" if recording.rate_hz else "sample rates (it is not known)"
    axes.set_xlabel(f"frequency offset{where}, {unit}", fontsize=9)
    axes.set_ylabel(f"time, {places.unit}", fontsize=9)
    axes.tick_params(labelsize=9)
    return image


def _frame(axes: Any, places: _Places, low: float, high: float, start_s: float, stop_s: float, colour: str, **how: Any):
    """A rectangle of at least LEAST_BOX pixels; returns its left and upper edge."""
    least_hz = LEAST_BOX * places.rate_hz / COLUMNS
    spare_hz = max(0.0, least_hz - (high - low)) / 2
    spare_s = max(0.0, LEAST_BOX * places.pixel_samples / places.rate_hz - (stop_s - start_s)) / 2
    left, right = (low - spare_hz) / 1e6, (high + spare_hz) / 1e6
    top, bottom = (places.time(s * places.rate_hz) for s in (start_s - spare_s, stop_s + spare_s))
    style = {"linestyle": (0, (4, 3)), "linewidth": 0.9} if how.get("dashed") else {"linewidth": 1.8}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, **style))
    return left, top


def _draw_box(axes: Any, places: _Places, each: Shown, number: int) -> None:
    """The box of a finding with its number; of what was missed only the number, at the frame of the truth."""
    if each.finding is None:
        assert each.missed is not None
        at = each.missed.low_hz / 1e6, places.time(each.missed.start_s * places.rate_hz)
        text = f"{number} missed"
    else:
        box = box_of(each.finding)
        colour = label_colour(each.finding.label)
        at = _frame(axes, places, box.low_hz, box.high_hz, box.start_s, box.stop_s, colour)
        text = f"{number} {each.finding.label}"
    style = {"facecolor": WRONG if each.wrong else "black", "alpha": 0.75, "pad": 1.5, "linewidth": 0}
    column, row = places.free(at, len(text))
    axes.annotate(
        text, (column, row), xycoords="axes pixels", fontsize=8, color="white", va="center", bbox=style, clip_on=True
    )


def _write_list(axes: Any, in_band: Sequence[Shown], whole: Sequence[Shown], height: int) -> None:
    """A line for each box by its number, then those of the whole band."""
    axes.set(xlim=(0, LABELS), ylim=(height, 0))
    axes.axis("off")
    lines = [(str(number), each) for number, each in enumerate(in_band, 1)] + [("", each) for each in whole]
    room = height // LINE_HEIGHT
    for row, (number, each) in enumerate(lines[: room if len(lines) <= room else room - 1]):
        y = (row + 0.5) * LINE_HEIGHT
        label = "" if each.finding is None else each.finding.label
        axes.fill_between((8, 20), y - 6, y + 6, color=label_colour(label), linewidth=0)
        axes.text(42, y, number, fontsize=9, va="center", ha="right", color="#606060")
        colour, weight = (WRONG, "bold") if each.wrong else ("black", "normal")
        axes.text(50, y, each.text(True), fontsize=9, va="center", color=colour, fontweight=weight)
    if len(lines) > room:
        more = f"and {len(lines) - room + 1} more"
        axes.text(50, height - LINE_HEIGHT / 2, more, fontsize=9, va="center", style="italic", color="#606060")


def _write_strip(axes: Any, found: Sequence[Shown], recording: Recording, height: int) -> None:
    """A strip with the colour of each label, and the texts, moved apart until none is over another."""
    axes.set(xlim=(0, LABELS), ylim=(height, 0))
    axes.axis("off")
    begin, length = recording.start_sample, recording.stop_sample - recording.start_sample
    middles: list[tuple[float, Shown]] = []
    for each in found:
        finding = each.finding
        top, stop = ((sample - begin) / length * height for sample in (finding.start_sample, finding.end_sample))
        axes.fill_between((6, 20), top, max(stop, top + 1), color=label_colour(finding.label), linewidth=0)
        axes.plot((6, 20), (top, top), color="white", linewidth=0.8 if len(found) * LINE_HEIGHT < height else 0.0)
        middles.append(((top + stop) / 2, each))
    room = height // LINE_HEIGHT
    longest = sorted(middles, key=lambda pair: -pair[1].finding.n_samples)
    chosen = sorted(longest[: room if len(found) <= room else room - 1], key=lambda pair: pair[1].finding.start_sample)
    tuned = len({each.finding.centre_hz for each in found}) > 1
    for (middle, each), place in zip(chosen, spread([middle for middle, _ in chosen], LINE_HEIGHT, height)):
        colour = WRONG if each.wrong else "#808080" if each.finding.label in QUIET else "black"
        axes.plot((20, 30, 40), (middle, place, place), color="#909090", linewidth=0.7)
        axes.text(44, place, each.text(tuned), fontsize=10, va="center", color=colour)
    if len(chosen) < len(found):
        more = f"and {len(found) - len(chosen)} shorter ones, which only the strip shows"
        axes.text(44, height + LINE_HEIGHT / 2, more, fontsize=9, va="center", style="italic", color="#606060")


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
