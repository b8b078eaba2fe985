"""Figures of merit of classification, from integer labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(label: NDArray, predicted: NDArray, n_labels: int) -> NDArray[np.int64]:
    """Counts [true, predicted]."""
    return np.bincount(label * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def class_accuracy(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class; NaN where a class is absent."""
    total = confusion.sum(axis=1)
    return np.divide(confusion.diagonal(), total, out=np.full(len(total), np.nan), where=total > 0)


def mean_class_accuracy(label: NDArray, predicted: NDArray, n_labels: int) -> float:
    """Mean recall over the classes that are present."""
    return float(np.nanmean(class_accuracy(confusion_matrix(label, predicted, n_labels))))


def format_confusion(confusion: NDArray[np.int64], labels: tuple[str, ...]) -> str:
    """A text table: rows are the truth, columns the prediction, both numbered; empty rows are left out."""
    head = " " * 16 + "".join(f"{i:>5}" for i in range(len(labels)))
    rows = [
        f"{i:>2} {label:<13}" + "".join(f"{n or '.':>5}" for n in confusion[i])
        for i, label in enumerate(labels)
        if confusion[i].any()
    ]
    return "\n".join([head, *rows])
