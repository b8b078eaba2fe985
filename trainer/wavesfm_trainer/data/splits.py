# SPDX-License-Identifier: GPL-3.0-or-later
"""Three-way splits: published, random or by group. No group is divided, and every side has every class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError, InputError

from .readers.base import Raw
from .tasks import SPLITS, Task

log = logging.getLogger(__name__)
SIDES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


def split_examples(raws: Sequence[Raw], task: Task, method: str, seed: int) -> NDArray[np.uint8]:
    """Assign every example to a side; the result depends on the examples and the seed only.

    Parameters
    ----------
    raws : the examples.
    task : with labels and shares.
    method : "group": whole groups are dealt to the sides, class by class. "random": single examples are dealt, class by
        class. "published": the published test part is the test; validation is dealt from the published training part in
        the ratio of the first two shares, by group if the published parts keep groups apart, else by example. A warning
        is logged if a group has examples on two sides.
    seed : of the random order.

    Returns
    -------
    uint8 [N]: 0 training, 1 validation, 2 test.

    Raises
    ------
    InputError : a side lacks a class, or an example has no group or published part.
    ConfigurationError : an unknown method.
    """
    if method not in SPLITS:
        raise ConfigurationError(f"task {task.name}", "split", repr(method), f"one of {', '.join(SPLITS)}")
    _require(raws, task, method)
    rng = np.random.default_rng(seed)
    classes = np.array([raw.target if task.labels else 0 for raw in raws], np.int64)
    if method == "published":
        sides = _published(raws, classes, task.shares, rng)
    else:
        groups = [raw.group for raw in raws] if method == "group" else list(range(len(raws)))
        sides = _deal(groups, classes, task.shares, rng)
    _refuse_empty(sides, classes, task, method)
    if shared := groups_on_two_sides(raws, sides):
        log.warning("task %s: split %s: %d groups lie on two sides (split group keeps them apart)",
                    task.name, method, shared)  # fmt: skip
    return sides


def groups_on_two_sides(raws: Sequence[Raw], sides: NDArray[np.uint8]) -> int:
    """Number of groups with examples on more than one side."""
    seen = Counter(group for group, _ in {(raw.group, int(side)) for raw, side in zip(raws, sides) if raw.group})
    return sum(n > 1 for n in seen.values())


def _require(raws: Sequence[Raw], task: Task, method: str) -> None:
    if not raws:
        raise InputError(f"task {task.name}", "examples", "none", "at least one")
    for raw in raws:
        if task.labels and not (isinstance(raw.target, (int, np.integer)) and 0 <= raw.target < len(task.labels)):
            raise InputError(raw.source, "label", raw.target, f"0 to {len(task.labels) - 1}")
        if method == "group" and not raw.group:
            raise InputError(raw.source, "group", "none", "a position, person or capture (or the split random)")
        if method == "published" and raw.published_split not in ("train", "test"):
            found = repr(raw.published_split)
            raise InputError(raw.source, "published split", found, "train or test (or the split random or group)")


def _published(
    raws: Sequence[Raw], classes: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    sides = np.array([TEST if raw.published_split == "test" else TRAIN for raw in raws], np.uint8)
    inside = np.flatnonzero(sides == TRAIN)
    together = all(raw.group for raw in raws) and not groups_on_two_sides(raws, sides)
    groups = [raws[i].group if together else i for i in inside]
    total = shares[TRAIN] + shares[VALIDATION]
    part = (shares[TRAIN] / total, shares[VALIDATION] / total, 0.0)
    if len(inside):
        sides[inside] = _deal(groups, classes[inside], part, rng)
    return sides


def _deal(
    groups: Sequence[str | int], classes: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Deal whole groups class by class, so that each side comes near its share of every class.

    A group with several classes is dealt with the most frequent of them.
    """
    members: dict[str | int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    by_class: dict[int, list[list[int]]] = {}
    for rows in members.values():
        by_class.setdefault(int(np.bincount(classes[rows]).argmax()), []).append(rows)
    sides = np.zeros(len(classes), np.uint8)
    for label in sorted(by_class):
        for rows, side in zip(by_class[label], _deal_class([len(rows) for rows in by_class[label]], shares, rng)):
            sides[rows] = side
    return sides


def _deal_class(sizes: Sequence[int], shares: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Sides of one class's groups: large groups first, each to the side that is farthest below its share."""
    lacks = np.array(shares) * sum(sizes)
    order = sorted(rng.permutation(len(sizes)).tolist(), key=lambda i: -sizes[i])
    sides = [TRAIN] * len(sizes)
    for i in order:
        sides[i] = int(np.argmax(lacks))
        lacks[sides[i]] -= sizes[i]
    for side in (TEST, VALIDATION):  # a small share still gets a group where training has one to spare
        spare = [i for i in reversed(order) if sides[i] == TRAIN]
        if shares[side] > 0 and side not in sides and len(spare) > 1:
            sides[spare[0]] = side
    return sides


def _refuse_empty(sides: NDArray[np.uint8], classes: NDArray[np.int64], task: Task, method: str) -> None:
    wanted = [TRAIN, *(side for side in (VALIDATION, TEST) if task.shares[side] > 0)]
    if method == "published":
        wanted = [side for side in wanted if side != TEST] + [TEST]
    where = f"task {task.name}, split {method}"
    for side in wanted:
        rows = classes[sides == side]
        if not len(rows):
            raise InputError(
                where, SIDES[side], "no examples", "at least one (more groups, or another split or shares)"
            )
        missing = sorted(set(range(len(task.labels))) - set(rows.tolist()))
        if missing:
            names = ", ".join(task.labels[i] for i in missing)
            raise InputError(where, SIDES[side], f"no example of {names}", "every label of the task")
