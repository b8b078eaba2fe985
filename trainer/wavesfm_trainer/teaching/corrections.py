# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels that were corrected in the table that a report writes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wavesfm_core.errors import InputError

from .boxes import Box, Collected
from .sources import number, read_rows
from .verdicts import Verdict

NEEDED = ("file", "start", "count")
OPTIONAL = ("label", "low_hz", "high_hz", "was", "found", "confidence")


def corrections_text(boxes: Sequence[Box], doubtful: Sequence[Verdict]) -> str:
    """The table of doubtful boxes: `label` is to be edited, an empty one leaves the box out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "start", "count", "low_hz", "high_hz", "label", "was", "found", "confidence"))
    for each in doubtful:
        box = boxes[each.box]
        edges = ["" if edge is None else f"{edge:.6g}" for edge in (box.low_hz, box.high_hz)]
        name, start, count = box.key
        writer.writerow((name, start, count, *edges, box.label, box.label, each.found, f"{each.confidence:.3f}"))
    return text.getvalue()


def correct(collected: Collected, path: Path) -> Collected:
    """Boxes with the labels of a corrected table. Boxes that are not in it stay; the edges in it are ignored.

    Raises
    ------
    InputError : a row that is of no box, or of several that `was` does not tell apart.
    """
    boxes = list(collected.boxes)
    rows: dict[tuple[str, int, int], list[int]] = {}
    for at, box in enumerate(boxes):
        rows.setdefault(box.key, []).append(at)
    changed: Counter[str] = Counter()
    removed: set[int] = set()
    for line, row in read_rows(path, NEEDED, OPTIONAL):
        start, count = (number(path, f"line {line}, {name}", row[name]) or 0 for name in ("start", "count"))
        meant = [at for at in rows.get((row["file"], int(start), int(count)), [])]
        if len(meant) > 1:
            meant = [at for at in meant if collected.boxes[at].label == row["was"] and _same_edge(boxes[at], row)]
        if len(meant) != 1:
            found = f"{row['file']}, samples {start:g} to {start + count:g}, which is {len(meant)} boxes"
            raise InputError(path, f"line {line}", found, "a box of the folder, as the report writes it")
        at = meant[0]
        if not row["label"]:
            removed.add(at)
        elif row["label"] != boxes[at].label:
            boxes[at] = replace(boxes[at], label=row["label"])
            changed[row["label"]] += 1
    kept = tuple(box for at, box in enumerate(boxes) if at not in removed)
    note = f"Corrected labels: {sum(changed.values())}; boxes left out: {len(removed)} ({path.name})."
    return Collected(kept, (*collected.notes, note))


def _same_edge(box: Box, row: dict[str, str]) -> bool:
    """Whether the lower edge is the row's; one that the row does not have fits all."""
    return not row["low_hz"] or box.low_hz is None or f"{box.low_hz:.6g}" == row["low_hz"]
