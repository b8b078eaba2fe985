# SPDX-License-Identifier: GPL-3.0-or-later
"""How well what is unknown is told from what is known, and how honest a confidence is: scores and their figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]


def auroc(known: Floats, unknown: Floats) -> float:
    """Area under the ROC of scores [n] and [m] of which unknown ones should be higher; ties count half."""
    if not len(known) or not len(unknown):
        return float("nan")
    order = np.sort(known)
    below = np.searchsorted(order, unknown, "left") + np.searchsorted(order, unknown, "right")
    return float(below.mean() / (2 * len(known)))


def false_positives(known: Floats, unknown: Floats, recall: float = 0.95) -> float:
    """Share of the known ones that are rejected at the threshold that rejects `recall` of the unknown ones."""
    return float(np.mean(known >= np.quantile(unknown, 1 - recall))) if len(known) and len(unknown) else float("nan")


def threshold_for(known: Floats, rejected: float = 0.05) -> float:
    """Score that at most `rejected` of the known ones exceed."""
    return float(np.quantile(known, 1 - rejected))


def rejection_scores(logits: NDArray, labels: Sequence[str], unknown: str = "unknown") -> dict[str, Floats]:
    """Scores [N] of logits [N, L], higher for what is more likely unknown.

    "probability" of the label unknown, "confidence" (one minus the largest probability of a known label), "energy"
    (minus the log-sum-exp of the known logits), and "margin", the unknown logit less the largest known one.
    """
    x = np.asarray(logits, np.float64)
    at = list(labels).index(unknown)
    known = np.delete(x, at, axis=1)
    p = x - logsumexp(x, axis=1, keepdims=True)
    return {
        "probability": np.exp(p[:, at]),
        "confidence": 1 - np.exp(np.delete(p, at, axis=1).max(axis=1)),
        "energy": -logsumexp(known, axis=1),
        "margin": x[:, at] - known.max(axis=1),
    }


def negative_log_likelihood(logits: NDArray, label: NDArray, temperature: float) -> float:
    """Mean over rows of minus the log of the label's probability at a temperature."""
    x = np.asarray(logits, np.float64) / temperature
    return float(np.mean(logsumexp(x, axis=1) - x[np.arange(len(x)), label]))


def fit_temperature(logits: NDArray, label: NDArray) -> float:
    """Temperature, 0.05 to 20, at which logits [N, L] give the labels [N] the largest likelihood (golden section)."""
    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        at_a, at_b = (negative_log_likelihood(logits, label, float(np.exp(x))) for x in (a, b))
        low, high = (low, b) if at_a < at_b else (a, high)
    return float(np.exp((low + high) / 2))


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy in equal bins, weighted by their counts."""
    if not len(confidence):
        return float("nan")
    at = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    gaps = [abs(confidence[at == k].mean() - right[at == k].mean()) * np.mean(at == k) for k in np.unique(at)]
    return float(np.sum(gaps))


def feature_distance(features: NDArray, means: NDArray, precision: NDArray) -> Floats:
    """Smallest squared Mahalanobis distance [N] of features [N, D] to class means [L, D] under one precision [D, D]."""
    apart = np.asarray(features, np.float64)[:, None] - means
    return np.einsum("nld,de,nle->nl", apart, precision, apart).min(axis=1)


def class_statistics(features: NDArray, label: NDArray, classes: int) -> tuple[NDArray, NDArray]:
    """Means [classes, D] and the precision [D, D] of what is left after them, a thousandth of its trace added."""
    x = np.asarray(features, np.float64)
    means = np.stack([x[label == k].mean(axis=0) if (label == k).any() else x.mean(axis=0) for k in range(classes)])
    rest = x - means[label]
    covariance = rest.T @ rest / len(x)
    covariance += np.eye(len(covariance)) * np.trace(covariance) / len(covariance) * 1e-2
    return means, np.linalg.inv(covariance)
