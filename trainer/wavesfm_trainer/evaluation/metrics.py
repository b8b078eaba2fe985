# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of merit from predictions and targets: classes, positions, channels, epochs, and their intervals.

Computed in float64. A figure that does not exist (no sample in a bin, one seed only) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from wavesfm_core.errors import ConfigurationError

LEVEL = 0.95
PERCENTILES = (50, 75, 90)


def confusion_matrix(label: NDArray, predicted: NDArray, n_labels: int) -> NDArray[np.int64]:
    """Counts [true, predicted]."""
    return np.bincount(label * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def class_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class; NaN for a class without samples."""
    total = confusion.sum(axis=1)
    return np.divide(confusion.diagonal(), total, out=np.full(len(total), np.nan), where=total > 0)


def mean_class_accuracy(label: NDArray, predicted: NDArray, n_labels: int, absent: str = "left out") -> float:
    """Mean recall over the classes.

    Parameters
    ----------
    label, predicted : int [N].
    n_labels : number of classes.
    absent : how a class without samples counts: "left out", or "zero" as in the authors' code, which lowers the figure
        of a small split by the share of its missing classes.

    Raises
    ------
    ConfigurationError : another value of `absent`.
    """
    if absent not in ("left out", "zero"):
        raise ConfigurationError("mean_class_accuracy", "absent", repr(absent), '"left out" or "zero"')
    recall = class_accuracy(confusion_matrix(label, predicted, n_labels))
    return float(np.nanmean(recall) if absent == "left out" else np.nan_to_num(recall).mean())


def top_accuracy(logits: NDArray, label: NDArray, k: int) -> float:
    """Share of samples whose label has fewer than k other classes above it.

    A class of equal logit counts as above, so that equal (or NaN) logits for all classes score 0.

    Parameters
    ----------
    logits : [N, L].
    label : int [N].
    k : number of classes.
    """
    target = np.take_along_axis(logits, label[:, None], axis=1)
    return float(np.mean((~(logits < target)).sum(axis=1) <= k))


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean of 2 TP / (2 TP + FP + FN) over the classes that have samples."""
    right, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    return float(np.mean(2 * right[present] / (true + predicted)[present]))


def classification_metrics(logits: NDArray, label: NDArray) -> dict[str, float]:
    """All figures of a classification, as shares of 1.

    class_accuracy is the mean recall over the classes with samples; class_accuracy_absent_zero counts the others as 0,
    as the authors do.

    Parameters
    ----------
    logits : [N, L].
    label : int [N].
    """
    n_labels, predicted = logits.shape[1], logits.argmax(axis=1)
    return {
        "class_accuracy": mean_class_accuracy(label, predicted, n_labels),
        "class_accuracy_absent_zero": mean_class_accuracy(label, predicted, n_labels, absent="zero"),
        "accuracy": float(np.mean(predicted == label)),
        "top3_accuracy": top_accuracy(logits, label, 3),
        "macro_f1": macro_f1(confusion_matrix(label, predicted, n_labels)),
    }


def position_errors(predicted_m: NDArray, target_m: NDArray) -> NDArray[np.float64]:
    """Euclidean distance of each estimate to the truth in metres; both [N, D]."""
    return np.linalg.norm(np.asarray(predicted_m, float) - np.asarray(target_m, float), axis=1)


def position_metrics(predicted_m: NDArray, target_m: NDArray, axes: tuple[str, ...]) -> dict[str, float]:
    """All figures of a positioning in metres.

    Mean, population standard deviation, median, p75 and p90 of the distance; for each axis the mean absolute error and
    the bias (mean of estimate minus truth).

    Parameters
    ----------
    predicted_m, target_m : [N, D].
    axes : D names.
    """
    error = position_errors(predicted_m, target_m)
    median, p75, p90 = np.percentile(error, PERCENTILES)
    found = {
        "mean_error_m": float(error.mean()),
        "std_error_m": float(error.std()),
        "median_error_m": float(median),
        "p75_error_m": float(p75),
        "p90_error_m": float(p90),
    }
    offset = np.asarray(predicted_m, float) - np.asarray(target_m, float)
    for i, axis in enumerate(axes):
        found[f"absolute_error_{axis}_m"] = float(np.abs(offset[:, i]).mean())
        found[f"bias_{axis}_m"] = float(offset[:, i].mean())
    return found


def channel_errors(predicted: NDArray, target: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each sample, mean over the coefficients of |h^ - h|^2 and of |h|^2.

    Parameters
    ----------
    predicted, target : complex [N, ...], or real [N, 2, ...] with the real part first, as the network and the caches
        have them. A coefficient is then a pair, whose squared error is the sum of both parts'.
    """
    axes = tuple(range(1, predicted.ndim))
    parts = 1 if np.iscomplexobj(predicted) else 2
    error = np.abs(predicted.astype(np.result_type(predicted, np.float64)) - target) ** 2
    power = np.abs(target.astype(np.result_type(target, np.float64))) ** 2
    return error.mean(axis=axes) * parts, power.mean(axis=axes) * parts


def decibels(ratio: ArrayLike) -> NDArray[np.float64]:
    """10 log10; NaN if the ratio is not positive."""
    ratio = np.asarray(ratio, float)
    return 10 * np.log10(ratio, out=np.full(ratio.shape, np.nan), where=ratio > 0)


def channel_metrics(squared_error: NDArray, power: NDArray) -> dict[str, float]:
    """mse: mean squared error; nmse_db: 10 log10(sum of errors / sum of powers). Both from [N], see channel_errors."""
    return {"mse": float(squared_error.mean()), "nmse_db": float(decibels(squared_error.sum() / power.sum()))}


@dataclass(frozen=True)
class SnrCurve:
    """Error of a channel estimator over SNR, in bins."""

    snr_db: NDArray[np.float64]
    """Centre of each bin in dB, [bins]."""
    mse: NDArray[np.float64]
    """Mean squared error."""
    nmse_db: NDArray[np.float64]
    """Normalised mean squared error in dB."""
    n: NDArray[np.int64]
    """Samples."""


def over_snr(squared_error: NDArray, power: NDArray, snr_db: NDArray, width_db: float = 2.0) -> SnrCurve:
    """MSE and NMSE in bins around the multiples of `width_db`.

    Bins without samples are left out. Samples whose SNR is not finite are in no bin; `channel_metrics` counts them.

    Parameters
    ----------
    squared_error, power, snr_db : [N].
    width_db : width of a bin in dB.
    """
    known = np.isfinite(snr_db)
    bins, member = np.unique(np.floor(snr_db[known] / width_db + 0.5), return_inverse=True)
    n = np.bincount(member, minlength=len(bins))
    error = np.bincount(member, np.asarray(squared_error, float)[known], len(bins))
    reference = np.bincount(member, np.asarray(power, float)[known], len(bins))
    return SnrCurve(bins * width_db, error / n, decibels(error / reference), n)


def best_epoch(epochs: NDArray, values: NDArray, mode: str) -> int:
    """The first epoch with the best value, as Table III of the paper counts convergence.

    Parameters
    ----------
    epochs, values : [E]; NaN values (epochs without validation) are left out.
    mode : "max" or "min".

    Raises
    ------
    ConfigurationError : no value is finite.
    """
    epochs, values = _finite(epochs, values, mode)
    return int(epochs[values.argmax() if mode == "max" else values.argmin()])


def converged_epoch(epochs: NDArray, values: NDArray, mode: str, tolerance: float = 0.01) -> int:
    """The first epoch whose value is within `tolerance` of the best of the run.

    It depends less on chance than `best_epoch`, which noise on a plateau moves by tens of epochs.

    Parameters
    ----------
    epochs, values, mode : see `best_epoch`.
    tolerance : share of the best value's size.
    """
    epochs, values = _finite(epochs, values, mode)
    best = values.max() if mode == "max" else values.min()
    return int(epochs[np.flatnonzero(np.abs(values - best) <= tolerance * abs(best))[0]])


def _finite(epochs: NDArray, values: NDArray, mode: str) -> tuple[NDArray, NDArray]:
    if mode not in ("max", "min"):
        raise ConfigurationError("epochs to convergence", "mode", repr(mode), '"max" or "min"')
    finite = np.isfinite(values)
    if not finite.any():
        raise ConfigurationError(
            "epochs to convergence", "values", f"{len(values)} without a finite one", "one or more"
        )
    return np.asarray(epochs)[finite], np.asarray(values)[finite]


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; the bounds are NaN if one value says nothing of the spread."""

    mean: float
    """The mean."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    n: int
    """Number of values."""
    std: float
    """Sample standard deviation (n - 1); NaN for one value."""

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def seed_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's t interval of the mean over seeds; values [n], one figure for each seed."""
    values = np.asarray(values, float)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Interval(mean, np.nan, np.nan, n, np.nan)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5
    return Interval(mean, mean - half, mean + half, n, std)


def difference_interval(values: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """Welch's t interval of mean(values) - mean(reference), for seeds of unequal spread.

    n counts both sets. The bounds are NaN if either has one seed only. `std` is the standard error of the difference.
    """
    a, b = np.asarray(values, float), np.asarray(reference, float)
    mean, n = float(a.mean() - b.mean()), len(a) + len(b)
    if min(len(a), len(b)) < 2:
        return Interval(mean, np.nan, np.nan, n, np.nan)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb == 0:
        return Interval(mean, mean, mean, n, 0.0)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom) * (va + vb) ** 0.5)
    return Interval(mean, mean - half, mean + half, n, float((va + vb) ** 0.5))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    groups: NDArray | None = None,
    resamples: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of one run's figure over its test samples.

    It shows the spread of the test set, not of training. The result is repeatable for a seed.

    Parameters
    ----------
    statistic : from sample indices to the figure.
    n : samples.
    groups : [n] (capture, person, position); whole groups are drawn, because samples of a group depend on each other.
    resamples : number of draws.
    level : of the interval.
    seed : of the draws.
    """
    rng = np.random.default_rng(seed)
    everything = np.arange(n)
    if groups is None:
        drawn = (rng.integers(0, n, n) for _ in range(resamples))
        units = n
    else:
        _, member = np.unique(groups, return_inverse=True)
        order = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
        units = len(order)
        picks = (rng.integers(0, units, units) for _ in range(resamples))
        drawn = (np.concatenate([order[i] for i in pick]) for pick in picks)
    mean = float(statistic(everything))
    if units < 2:
        return Interval(mean, np.nan, np.nan, n, np.nan)
    found = np.array([statistic(index) for index in drawn])
    low, high = np.nanpercentile(found, [50 * (1 - level), 50 * (1 + level)])
    return Interval(mean, float(low), float(high), n, float(np.nanstd(found)))


def format_confusion(confusion: NDArray[np.int64], labels: tuple[str, ...]) -> str:
    """A text table: rows are the truth, columns the prediction, both numbered; empty rows are left out."""
    head = " " * 16 + "".join(f"{i:>5}" for i in range(len(labels)))
    rows = [
        f"{i:>2} {label:<13}" + "".join(f"{n or '.':>5}" for n in confusion[i])
        for i, label in enumerate(labels)
        if confusion[i].any()
    ]
    return "\n".join([head, *rows])
