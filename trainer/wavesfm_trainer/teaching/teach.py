# SPDX-License-Identifier: GPL-3.0-or-later
"""Labelled recordings to a calibrated classifier, judged on boxes that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.types import NOISE, UNKNOWN

from ..models.task_model import TaskModel
from .adapters import fit_adapters
from .boxes import ADVISED_BOXES, Collected, check_boxes
from .corrections import correct
from .encoder import Start, features, measured_spec, open_start, outputs, with_head
from .folds import Folds, make_folds
from .generated import Generated, background_tiles, generate, known_tiles, not_like
from .heads import LinearHead, Samples, fit_head
from .learn import Held, Material, calibrate, judge, parts_of
from .options import TeachOptions
from .sources import collect
from .verdicts import Verdict, box_verdicts, recording_verdicts
from .views import Views, join_views, make_views

MOST_VIEWS = 24
"""Drawn views of a box, at most, where labels have few boxes."""
Advance = Callable[[int], None]


class Steps(Protocol):
    """Where progress is shown."""

    def step(self, words: str, total: int) -> AbstractContextManager[Advance]:
        """A step of the work; the function that it gives is called with what was done since."""


@dataclass(frozen=True)
class Old:
    """What extending does to the labels that were known, on generated tiles that were held back."""

    before: float
    """Mean class accuracy of the start's own head."""
    after: float
    """The same of the extended head; a new label is a wrong answer."""
    n_tiles: int
    """Number of tiles."""
    without: tuple[str, ...]
    """Known labels that the generator does not have, on which nothing was measured."""


@dataclass(frozen=True)
class Taught:
    """A taught classifier and what is known of it."""

    model: TaskModel
    """Encoder and head."""
    spec: SpectrogramSpec
    """Preprocessing of its tiles."""
    head: HeadSpec
    """Labels, temperature and thresholds."""
    fitted: LinearHead
    """The head on the frozen encoder."""
    collected: Collected
    """The user's boxes and notes."""
    folds: Folds
    """How boxes were held back."""
    views: Views
    """Their tiles."""
    verdicts: tuple[Verdict, ...]
    """Of the boxes that were held back."""
    recordings: tuple[Verdict, ...]
    """Of their recordings."""
    rejected: tuple[int, int]
    """Generated foreign signals of kinds that were held back: those called unknown, and all."""
    old: Old | None
    """Of extending; None otherwise."""
    start: Start
    """What was started from."""
    options: TeachOptions
    """How."""


def teach(path: Path, start_path: Path, options: TeachOptions, steps: Steps) -> Taught:
    """Teach the labels of a folder or a table. Nothing is written.

    Parameters
    ----------
    path : folder or table, see `sources.collect`.
    start_path : bundle, run or weights file whose encoder is used; with `options.extend` a classifier.
    options : how.
    steps : where progress is shown.

    Raises
    ------
    InputError : recordings or labels that are wrong.
    ConfigurationError, WeightsError, BundleError : a start that does not fit.
    """
    start = open_start(start_path)
    known = _known(start, start_path, options)
    collected = collect(path, start.spec)
    if options.corrections is not None:
        collected = correct(collected, options.corrections)
    collected = check_boxes(collected, path, known)
    labels = _labels(collected, known, options)
    boxes = collected.boxes
    with steps.step("cutting views of boxes", len(boxes)) as advance:
        views, silent = make_views(boxes, start.spec, _n_drawn(collected, options), options.seed, lambda: advance(1))
    collected = replace(collected, notes=(*collected.notes, *silent))
    generated = _generate(start.spec, labels, known, options, steps)
    spec = start.spec if start.measured else measured_spec(start.spec, views)
    everything = join_views(views, generated.views)
    with steps.step("features of the frozen encoder", len(everything)) as advance:
        found = features(start, spec, everything, advance)
    label = np.concatenate([np.array([labels.index(box.label) for box in boxes])[views.box], generated.label])
    n = len(views)
    if UNKNOWN in labels and not options.extend:
        own = Samples(found[:n], label[:n], np.zeros(n, np.int64))
        kept = not_like(own, found[n:], generated, labels.index(UNKNOWN))
        generated = generated.rows(kept)
        chosen = np.concatenate([np.ones(n, bool), kept])
        found, label, everything = found[chosen], label[chosen], everything.rows(chosen)
    folds = make_folds(boxes)
    samples = Samples(found, label, parts_of(folds, views.box, generated.kind))
    material = Material(labels, samples, n, folds, start.known_head() if options.extend else None)
    return _learn(start, spec, material, everything, views, collected, known, options, steps)


def _learn(
    start: Start,
    spec: SpectrogramSpec,
    material: Material,
    everything: Views,
    views: Views,
    collected: Collected,
    known: tuple[str, ...],
    options: TeachOptions,
    steps: Steps,
) -> Taught:
    with steps.step("fitting the head", material.folds.count + 1) as advance:
        held = judge(material)
        advance(material.folds.count)
        fitted = fit_head(material.samples, len(material.labels), material.known)
        advance(1)
    model = with_head(start, fitted)
    if options.method == "lora":
        with steps.step("fitting adapters", 2) as advance:
            model, held = _adapt(start, spec, material, everything, fitted, options, advance)
    head = calibrate(material, held, ~everything.drawn)
    n = material.n_views
    verdicts = box_verdicts(collected.boxes, views, held.logits[:n], held.held[:n], head)
    return Taught(
        model, spec, head, fitted, collected, material.folds, views, tuple(verdicts),
        tuple(recording_verdicts(collected.boxes, verdicts, head)), _rejected(material, held, head),
        _old(start, material, held, head, known) if options.extend else None, start, options,
    )  # fmt: skip


def _known(start: Start, path: Path, options: TeachOptions) -> tuple[str, ...]:
    """Labels that are kept."""
    if not options.extend:
        return ()
    if start.head is None:
        raise ConfigurationError(path, "labels", "none: weights of a pre-training", "a classifier to extend")
    return start.head.labels


def _labels(collected: Collected, known: tuple[str, ...], options: TeachOptions) -> tuple[str, ...]:
    """Labels of the head: known ones first, in their order, or the user's with what must not be named."""
    new = tuple(label for label in collected.labels if label not in known)
    if options.extend or not options.unknown:
        return (*known, *new)
    return (*new, *(name for name in (NOISE, UNKNOWN) if name not in new))


def _n_drawn(collected: Collected, options: TeachOptions) -> int:
    """Drawn views of a box: as many as for ADVISED_BOXES of each label and more, where there are fewer."""
    per_label = len(collected.boxes) / len(collected.labels)
    few = max(1.0, 2 * ADVISED_BOXES / per_label)
    return max(options.views, min(MOST_VIEWS, round(options.views * few)))


def _generate(
    spec: SpectrogramSpec, labels: tuple[str, ...], known: tuple[str, ...], options: TeachOptions, steps: Steps
) -> Generated:
    counts = known_tiles(labels, known) if options.extend else background_tiles(labels) if options.unknown else {}
    if not counts:
        return Generated.none(spec)
    with steps.step("generating signals", sum(counts.values())) as advance:
        return generate(counts, labels, spec, options.seed, advance)


def _adapt(
    start: Start,
    spec: SpectrogramSpec,
    material: Material,
    everything: Views,
    fitted: LinearHead,
    options: TeachOptions,
    advance: Advance,
) -> tuple[TaskModel, Held]:
    """Adapters without part 0, which judge it, and adapters of all."""
    samples, labels = material.samples, material.labels
    mine = samples.part == 0
    first = fit_head(samples.rows(~mine), len(labels), material.known)
    rest = everything.rows(~mine)
    judging = fit_adapters(start, first, spec, rest, samples.label[~mine], labels, options.adapters, options.seed)
    logits = np.zeros((len(mine), len(labels)))
    logits[mine] = outputs(judging, spec, everything.rows(mine), lambda _: None)
    advance(1)
    model = fit_adapters(start, fitted, spec, everything, samples.label, labels, options.adapters, options.seed)
    advance(1)
    return model, Held(logits, mine)


def _answers(logits: NDArray, head: HeadSpec) -> list[str]:
    decider = ClassificationHead(head, "")
    return [decider.decide(row)[0] for row in decider.probabilities(logits)]


def _rejected(material: Material, held: Held, head: HeadSpec) -> tuple[int, int]:
    """Of the held-back tiles of foreign signals: called unknown or noise, and all."""
    if UNKNOWN not in material.labels:
        return 0, 0
    rows = held.held & (material.samples.label == material.labels.index(UNKNOWN))
    rows[: material.n_views] = False
    answers = _answers(held.logits[rows], head)
    return sum(answer in (UNKNOWN, NOISE) for answer in answers), len(answers)


def _old(start: Start, material: Material, held: Held, head: HeadSpec, known: tuple[str, ...]) -> Old:
    """Accuracy on held-back tiles of known labels, by the most probable label."""
    rows = held.held.copy()
    rows[: material.n_views] = False
    truth = material.samples.label[rows]
    own = start.known_head()
    before = np.zeros(0) if own is None else own.logits(material.samples.features[rows]).argmax(axis=1)
    after = held.logits[rows].argmax(axis=1)

    def mean(found: NDArray) -> float:
        shares = [np.mean(found[truth == k] == k) for k in np.unique(truth)]
        return float(np.mean(shares)) if shares else float("nan")

    measured = set(known_tiles(material.labels, known))
    return Old(mean(before), mean(after), int(rows.sum()), tuple(name for name in known if name not in measured))
