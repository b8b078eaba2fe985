# SPDX-License-Identifier: GPL-3.0-or-later
"""What a head that has not seen them says of boxes and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.types import UNKNOWN

from .boxes import Box
from .views import Views

LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Verdict:
    """The answer for one box or one recording."""

    name: str
    """Recording."""
    label: str
    """The user's label."""
    found: str
    """The answer; UNKNOWN below the thresholds."""
    best: str
    """Most probable label, whatever its probability."""
    confidence: float
    """Probability of `best`."""
    probabilities: NDArray[np.float64]
    """[L]."""
    box: int = -1
    """Index of the box; -1 for a recording."""

    @property
    def right(self) -> bool:
        """True if the answer is the user's label."""
        return self.found == self.label

    @property
    def doubt(self) -> float:
        """Sort key of doubtful boxes, largest first: wrong ones by confidence, then right ones without confidence."""
        return 1 + self.confidence if not self.right else 1 - self.confidence


def box_verdicts(boxes: Sequence[Box], views: Views, logits: NDArray, held: NDArray, head: HeadSpec) -> list[Verdict]:
    """One verdict for each box that was held back, over its plain zoomed views as the search of the band has them.

    Parameters
    ----------
    boxes : all boxes.
    views : their tiles.
    logits : [N, L], by heads that have not seen the box.
    held : [N], rows of `logits` that are such.
    head : labels, temperature and thresholds.
    """
    decider = ClassificationHead(head, "")
    log_p = np.log(decider.probabilities(np.where(held[:, None], logits, 0.0)) + LEAST_PROBABILITY)
    plain = held & ~views.drawn
    verdicts = []
    for at, box in enumerate(boxes):
        mine = plain & (views.box == at)
        zoomed = mine & ~views.whole
        mine = zoomed if zoomed.any() else mine
        if mine.any():
            verdicts.append(_verdict(decider, log_p[mine], box.source.name, box.label, at))
    return verdicts


def recording_verdicts(boxes: Sequence[Box], verdicts: Sequence[Verdict], head: HeadSpec) -> list[Verdict]:
    """One verdict for each recording and label, over the boxes of it."""
    decider = ClassificationHead(head, "")
    together: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for each in verdicts:
        box = boxes[each.box]
        together.setdefault((box.source.name, box.label), []).append(np.log(each.probabilities + LEAST_PROBABILITY))
    return [_verdict(decider, np.stack(rows), name, label) for (name, label), rows in together.items()]


def _verdict(decider: ClassificationHead, log_p: NDArray[np.float64], name: str, label: str, box: int = -1) -> Verdict:
    """From the geometric mean of probabilities, as core's search of the band takes it."""
    mean = np.exp(log_p.mean(axis=0))
    mean = mean / mean.sum()
    found, confidence = decider.decide(mean)
    return Verdict(name, label, found, decider.labels[int(mean.argmax())], confidence, mean, box)


def accuracy(verdicts: Sequence[Verdict]) -> float:
    """Mean over the labels of the share of right answers; NaN without any."""
    shares = []
    for label in sorted({each.label for each in verdicts}):
        shares.append(np.mean([each.right for each in verdicts if each.label == label]))
    return float(np.mean(shares)) if shares else float("nan")


def confusion(verdicts: Sequence[Verdict], labels: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Answers that occur (columns) and counts [labels, answers]."""
    answers = [label for label in (*labels, UNKNOWN) if label in labels or any(v.found == label for v in verdicts)]
    answers = list(dict.fromkeys(answers))
    counts = np.zeros((len(labels), len(answers)), np.int64)
    for each in verdicts:
        counts[list(labels).index(each.label), answers.index(each.found)] += 1
    return answers, counts
