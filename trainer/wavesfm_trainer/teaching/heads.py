# SPDX-License-Identifier: GPL-3.0-or-later
"""Linear heads on frozen features: regularised logistic regression, and class prototypes for few labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

Floats = NDArray[np.float64]
DECAYS = (1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared norm that are tried, for features of unit deviation."""
SHRINKAGES = (0.3, 0.9)
"""Shares of the unit matrix in the covariance of prototypes that are tried."""
INNER_FOLDS = 3
STEPS = 80
"""Iterations of the fit, at most."""


@dataclass(frozen=True)
class LinearHead:
    """Logits = features @ weight.T + bias."""

    weight: Floats
    """[L, D]."""
    bias: Floats
    """[L]."""
    name: str
    """How it was fitted, for the report."""

    def logits(self, features: Floats) -> Floats:
        """[N, L] of features [N, D]."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True)
class Samples:
    """N labelled features."""

    features: Floats
    """[N, D]."""
    label: NDArray[np.int64]
    """[N], index of the label."""
    part: NDArray[np.int64]
    """[N], samples of one part are held back together when a head is chosen."""

    def rows(self, chosen: NDArray) -> Samples:
        """Some of them."""
        return Samples(self.features[chosen], self.label[chosen], self.part[chosen])


@dataclass(frozen=True)
class Scale:
    """Shift and scale that give features mean 0 and deviation 1."""

    mean: Floats
    """[D]."""
    std: Floats
    """[D]."""

    @classmethod
    def of(cls, features: Floats) -> Scale:
        """Of these features [N, D]."""
        std = features.std(axis=0)
        return cls(features.mean(axis=0), np.maximum(std, 1e-3 * max(float(std.max()), 1e-6)))

    def apply(self, features: Floats) -> Floats:
        """Scaled features."""
        return (features - self.mean) / self.std

    def unscaled(self, weight: Floats, bias: Floats, name: str) -> LinearHead:
        """The head on features as they are, of one on scaled features."""
        plain = weight / self.std
        return LinearHead(plain, bias - plain @ self.mean, name)


def fit_head(samples: Samples, classes: int, known: LinearHead | None = None) -> LinearHead:
    """Fit each kind of head, and keep the one that does best on parts that it was not fitted on.

    Parameters
    ----------
    samples : every label occurs.
    classes : number of labels.
    known : rows of the first labels, which stay as they are; only the rows of the others are fitted then.

    Returns
    -------
    The head, fitted on all samples.
    """
    kinds = [("logistic", decay) for decay in DECAYS]
    if known is None:
        kinds += [("prototype", shrinkage) for shrinkage in SHRINKAGES]
    inner = inner_parts(samples)
    scores = dict.fromkeys(kinds, 0.0)
    for held in range(INNER_FOLDS):
        fitted, judged = samples.rows(inner != held), samples.rows(inner == held)
        if not len(judged.label):
            continue
        for kind, head in fit_kinds(fitted, classes, kinds, known).items():
            scores[kind] += balanced_loss(head.logits(judged.features), judged.label)
    best = min(kinds, key=lambda kind: scores[kind])
    return fit_kinds(samples, classes, [best], known)[best]


def inner_parts(samples: Samples) -> NDArray[np.int64]:
    """Part [N], 0 to INNER_FOLDS - 1, of each sample, so that every label is in two parts or more.

    The parts of a label go into turns; samples of a label that has one part alone are split in their order.
    """
    inner = np.zeros(len(samples.label), np.int64)
    for label in np.unique(samples.label):
        rows = np.flatnonzero(samples.label == label)
        parts, at = np.unique(samples.part[rows], return_inverse=True)
        inner[rows] = at % INNER_FOLDS if len(parts) > 1 else np.arange(len(rows)) * INNER_FOLDS // len(rows)
    return inner


def fit_kinds(
    samples: Samples, classes: int, kinds: Sequence[tuple[str, float]], known: LinearHead | None = None
) -> dict[tuple[str, float], LinearHead]:
    """Heads of several (kind, strength) on the same samples; logistic ones start from each other."""
    scale = Scale.of(samples.features)
    x = scale.apply(samples.features)
    fixed = None if known is None else known.logits(samples.features)
    start: Floats | None = None
    found = {}
    for kind, strength in kinds:
        name = f"{kind}, {strength:g}"
        if kind == "prototype":
            found[kind, strength] = scale.unscaled(*prototypes(x, samples.label, classes, strength), name)
            continue
        start = logistic(x, samples.label, classes, strength, fixed, start)
        head = scale.unscaled(start[:, :-1], start[:, -1], name)
        if known is not None:
            head = LinearHead(np.concatenate([known.weight, head.weight]), np.append(known.bias, head.bias), name)
        found[kind, strength] = head
    return found


def logistic(
    x: Floats, label: NDArray[np.int64], classes: int, decay: float, fixed: Floats | None, start: Floats | None = None
) -> Floats:
    """Multinomial logistic regression with equal weight of every label; weight and bias [rows, D + 1].

    Parameters
    ----------
    x : [N, D], scaled.
    label : [N].
    classes : number of labels.
    decay : weight of half the squared norm.
    fixed : logits [N, K] of the first labels, which are not fitted; None: all are.
    start : where to start from.
    """
    n_fixed = 0 if fixed is None else fixed.shape[1]
    rows = classes - n_fixed
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    share = balance(label)
    target = np.zeros((len(x), classes))
    target[np.arange(len(x)), label] = 1

    def value(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(rows, -1)
        logits = ones @ weights.T
        everything = logits if fixed is None else np.concatenate([fixed, logits], axis=1)
        total = logsumexp(everything, axis=1)
        loss = float(share @ (total - everything[np.arange(len(x)), label]))
        slope = (np.exp(everything - total[:, None]) - target)[:, n_fixed:] * share[:, None]
        gradient = slope.T @ ones
        gradient[:, :-1] += decay / x.shape[1] * weights[:, :-1]
        return loss + decay / x.shape[1] / 2 * float(np.square(weights[:, :-1]).sum()), gradient.ravel()

    first = np.zeros(rows * ones.shape[1]) if start is None else start.ravel()
    # CG and not L-BFGS-B, whose small products start threads: ten times the processor's time on a busy machine
    found = minimize(value, first, jac=True, method="CG", options={"maxiter": STEPS, "gtol": 1e-4})
    return np.asarray(found.x, np.float64).reshape(rows, -1)


def prototypes(x: Floats, label: NDArray[np.int64], classes: int, shrinkage: float) -> tuple[Floats, Floats]:
    """Weight [L, D] and bias [L] of the nearest class mean under one shrunk covariance (linear discriminant)."""
    there = [bool((label == k).any()) for k in range(classes)]
    means = np.stack([x[label == k].mean(axis=0) if there[k] else np.zeros(x.shape[1]) for k in range(classes)])
    rest = x - means[label]
    covariance = rest.T @ rest / max(1, len(x) - classes)
    average = float(np.trace(covariance)) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * average * np.eye(len(covariance))
    weight = np.linalg.solve(covariance, means.T).T
    bias = -0.5 * np.einsum("ld,ld->l", weight, means)
    return weight, np.where(there, bias, -30.0)  # a label without a sample here is never chosen


def balance(label: NDArray[np.int64]) -> Floats:
    """Weights [N] of sum 1 that give every label that occurs the same share."""
    counts = np.bincount(label)
    return 1.0 / (counts[label] * np.count_nonzero(counts))


def balanced_loss(logits: Floats, label: NDArray[np.int64]) -> float:
    """Negative log-likelihood with equal weight of every label."""
    return float(balance(label) @ (logsumexp(logits, axis=1) - logits[np.arange(len(label)), label]))
