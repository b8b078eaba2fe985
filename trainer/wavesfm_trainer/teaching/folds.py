# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boxes are held back together: all boxes of a recording or transmitter are on one side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .boxes import TEST, Box

FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """Part of every box; each part is judged by a head that was fitted on the others."""

    part: NDArray[np.int64]
    """[boxes], 0 to count - 1; -1 for a box that is never held back."""
    count: int
    """Number of parts."""
    by_time: tuple[str, ...]
    """Labels of a single recording or transmitter, whose boxes had to be split by time."""
    chosen: bool = False
    """True if the user's table says what is held back."""

    @property
    def words(self) -> str:
        """How it was split, for the report."""
        if self.chosen:
            return "The table says what is held back (column split)."
        text = f"Every box is judged by a head that has seen no box of its group, in {self.count} parts."
        if self.by_time:
            names = ", ".join(self.by_time)
            text += f" Of one recording each, and so split by time, which flatters the figures: {names}."
        return text


def make_folds(boxes: Sequence[Box], most: int = FOLDS) -> Folds:
    """Split boxes by group so that every label is in two parts or more.

    Boxes of a label with one group alone are split by time. Groups go to the part that has fewest boxes of their
    labels, larger groups first, so the result depends on the boxes alone.

    Parameters
    ----------
    boxes : all boxes; if any has a side, the sides are the split.
    most : parts, at most.
    """
    if any(box.side for box in boxes):
        part = np.array([0 if box.side == TEST else -1 for box in boxes])
        return Folds(part, 1, (), chosen=True)
    groups: dict[str, set[str]] = defaultdict(set)
    n_boxes: dict[str, int] = defaultdict(int)
    for box in boxes:
        groups[box.label].add(box.group)
        n_boxes[box.label] += 1
    single = {label for label, found in groups.items() if len(found) < 2}
    count = max(2, min(most, *(n_boxes[label] if label in single else len(groups[label]) for label in groups)))
    part = np.zeros(len(boxes), np.int64)
    units: dict[str, list[int]] = defaultdict(list)
    for at, box in enumerate(boxes):
        if box.label not in single:
            units[box.group].append(at)
    for label in single:
        mine = sorted((at for at, box in enumerate(boxes) if box.label == label), key=lambda at: boxes[at].start)
        for piece, rows in enumerate(np.array_split(np.array(mine), count)):
            part[rows] = piece
    _assign(boxes, units, count, part)
    return Folds(part, count, tuple(sorted(single)))


def _assign(boxes: Sequence[Box], units: dict[str, list[int]], count: int, part: NDArray[np.int64]) -> None:
    """Parts of whole groups, in place: where the label that has most there has least."""
    wanted = Counter(box.label for box in boxes)
    load: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(count, np.int64))
    for _, rows in sorted(units.items(), key=lambda unit: (-len(unit[1]), unit[0])):
        labels = sorted({boxes[row].label for row in rows})
        fullest = np.max([load[label] / wanted[label] for label in labels], axis=0)
        chosen = int(np.argmin(fullest))
        part[rows] = chosen
        for row in rows:
            load[boxes[row].label][chosen] += 1
