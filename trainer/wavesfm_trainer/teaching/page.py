# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a teaching as one HTML page: figures, confusion, and doubtful boxes as pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.types import UNKNOWN

from .boxes import Box
from .learn import REJECTED
from .teach import Taught
from .verdicts import Verdict, accuracy, confusion

MOST_DOUBTS = 48
"""Doubtful boxes on the page, at most; the table has all."""
SURE = 0.6
"""Confidence from which on a right answer is not doubtful."""
COLOURS = matplotlib.colormaps["viridis"]
BRIGHTEST = 0.6
"""Share of the tile's range that is shown in the brightest colour: 28 dB over the median, with the usual range."""


class LabelRow(NamedTuple):
    """A row of the table of labels."""

    label: str
    boxes: int
    files: int
    groups: int
    judged: int
    right: float | None
    unknown: float | None


def doubtful(taught: Taught) -> list[Verdict]:
    """Boxes that were answered wrongly or without confidence, the surest errors first."""
    return sorted(
        (each for each in taught.verdicts if not each.right or each.confidence < SURE), key=lambda each: -each.doubt
    )


def page_text(taught: Taught, bundle: Bundle, doubts: Sequence[Verdict], table: str, seconds: float) -> str:
    """The page.

    Parameters
    ----------
    taught : the classifier.
    bundle : as it was written.
    doubts : see `doubtful`.
    table : file name of the table of corrections.
    seconds : duration of the work.
    """
    shown = [name for name in taught.head.labels if any(each.label == name for each in taught.verdicts)]
    answers, counts = confusion(taught.verdicts, shown)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), undefined=StrictUndefined, autoescape=True
    )
    return environment.get_template("page.html.j2").render(
        name=bundle.spec.name,
        bundle_id=bundle.id,
        start=taught.start.name,
        method=_method(taught),
        seconds=seconds,
        notes=taught.collected.notes,
        split=taught.folds.words,
        facts=_facts(taught),
        labels=[_label_row(taught, name) for name in taught.collected.labels],
        answers=answers,
        confusion=_shares(shown, counts),
        old=taught.old,
        doubts=[_doubt(taught, each) for each in doubts[:MOST_DOUBTS]],
        n_doubts=len(doubts),
        table=table,
        recordings=[each for each in taught.recordings if not each.right],
    )


def _method(taught: Taught) -> str:
    rank = taught.options.adapters.rank
    head = f"linear head ({taught.fitted.name}) on the frozen encoder"
    return head if taught.options.method == "head" else f"LoRA adapters of rank {rank}, from a {head}"


def _facts(taught: Taught) -> list[tuple[str, str]]:
    """Figures in the order of the page."""
    head, n_boxes, n_files = taught.head, len(taught.verdicts), len(taught.recordings)
    rows = [
        ("accuracy by box, mean over labels", f"{accuracy(taught.verdicts):.3f} ({n_boxes} boxes judged)"),
        ("accuracy by recording, mean over labels", f"{accuracy(taught.recordings):.3f} ({n_files} judged)"),
        ("temperature", f"{head.temperature:.3g}"),
    ]
    if UNKNOWN in head.labels:
        rows.append(("unknown from a probability of", f"{head.unknown_from:.3g}"))
    if head.threshold:
        rows.append(("unknown below a confidence of", f"{head.threshold:.3g}"))
    rows.append(("chosen so that the user's views are called unknown", f"in at most {REJECTED:.0%}"))
    if taught.rejected[1]:
        called, n = taught.rejected
        rows.append(("generated signals of kinds not learnt from, called unknown or noise", f"{called} of {n}"))
    return rows


def _label_row(taught: Taught, name: str) -> LabelRow:
    boxes = [box for box in taught.collected.boxes if box.label == name]
    judged = [each for each in taught.verdicts if each.label == name]
    shares = [np.mean([test(each) for each in judged]) if judged else None for test in (_is_right, _is_unknown)]
    files, groups = {box.source.name for box in boxes}, {box.group for box in boxes}
    return LabelRow(name, len(boxes), len(files), len(groups), len(judged), *shares)


def _is_right(verdict: Verdict) -> bool:
    return verdict.right


def _is_unknown(verdict: Verdict) -> bool:
    return verdict.found == UNKNOWN


def _shares(labels: Sequence[str], counts: NDArray[np.int64]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of the confusion: label, and (count, share of the row) of each answer."""
    return [
        (label, [(int(n), float(n) / max(1, int(row.sum()))) for n in row])
        for label, row in zip(labels, counts, strict=True)
    ]


def _doubt(taught: Taught, verdict: Verdict) -> dict[str, Any]:
    """What the page shows of a doubtful box."""
    box = taught.collected.boxes[verdict.box]
    mine = np.flatnonzero((taught.views.box == verdict.box) & ~taught.views.drawn)
    zoomed = mine[~taught.views.whole[mine]]
    row = int(zoomed[-1] if len(zoomed) else mine[0])
    return {
        "picture": picture(taught.views.picture[row]),
        "place": _place(box, float(taught.views.log10_rate[row])),
        "verdict": verdict,
    }


def _place(box: Box, log10_rate: float) -> str:
    """Where a box lies, in words."""
    text = f"{box.source.name}, samples {box.start} to {box.stop}"
    if box.low_hz is not None and box.high_hz is not None:
        text += f", {box.low_hz / 1e3:.4g} to {box.high_hz / 1e3:.4g} kHz from the middle"
    return text + (f"; shown at {10**log10_rate / 1e3:.4g} kS/s" if log10_rate else "; sample rate unknown")


def picture(tile: NDArray[np.uint8]) -> str:
    """A tile [H, W] as the URL of a PNG: time downwards, frequency to the right."""
    colours = COLOURS(np.clip(tile / (255 * BRIGHTEST), 0, 1))[..., :3]
    buffer = BytesIO()
    Image.fromarray((colours * 255).astype(np.uint8)).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
