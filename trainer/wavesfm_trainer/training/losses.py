# SPDX-License-Identifier: GPL-3.0-or-later
"""Losses of fine-tuning (paper, eq. 17 to 21), in float32, divided by the batch size as printed."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from wavesfm_core.errors import ConfigurationError, InputError

SNR_WEIGHT_FLOOR = 0.1
ELEMENTS = ("sum", "mean")


def cross_entropy(
    logits: Tensor, target: Tensor, smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with label smoothing (eq. 17) and class weights (eq. 18).

    -1/B sum_n sum_i beta_i (y_i (1 - theta) + theta / C) log p_i. It is divided by the batch size as printed.
    torch's mean
    divides by the sum of the weights in the batch, which cancels them in a batch of one class.

    Parameters
    ----------
    logits : [B, C].
    target : int64 [B].
    smoothing : theta, 0 to below 1.
    class_weights : beta, float32 [C]; None: 1.
    """
    loss = F.cross_entropy(logits.float(), target, weight=class_weights, label_smoothing=smoothing, reduction="none")
    return loss.mean()


def class_weights(target: NDArray[np.int64], labels: tuple[str, ...], where: object = "data") -> Tensor:
    """Class weights beta of eq. 18: one over the class' share of `target`, scaled to mean 1 over these samples.

    Parameters
    ----------
    target : int64 [N], of the samples that are trained on.
    labels : names of the C classes.
    where : name of the data, for messages.

    Returns
    -------
    float32 [C].

    Raises
    ------
    InputError : a class has no sample, or a target no label.
    """
    counts = np.bincount(target, minlength=len(labels))
    if len(counts) > len(labels):
        raise InputError(where, "target", int(target.max()), f"0 to {len(labels) - 1}")
    for label, count in zip(labels, counts):
        if count == 0:
            raise InputError(
                where, f"class {label!r}", "no example to train on", "one or more (its weight is 1 / share)"
            )
    return torch.tensor(len(target) / (len(labels) * counts), dtype=torch.float32)


def squared_error(predicted: Tensor, target: Tensor, elements: str = "sum") -> Tensor:
    """Mean over the batch of |target - predicted|^2 (eq. 19), float32.

    Parameters
    ----------
    predicted, target : [B, ...].
    elements : "sum" over all but the batch as printed, or "mean". The constant factor between them matters for clipping
        only; AdamW and Muon do not depend on it.
    """
    return _per_sample(predicted, target, elements).mean()


def snr_weight(snr_db: Tensor, floor: float = SNR_WEIGHT_FLOOR) -> Tensor:
    """w(SNR) = 10.6 exp(0.226 SNR) - 0.764 (eq. 20), not below `floor`.

    The printed formula is negative below -11.64 dB, where a larger error would be rewarded. The floor of 0.1 leaves
    every SNR from -11.1 dB up as printed; the paper trains on -10 to 20 dB. The paper says that w(20) is 100 times
    w(-10); the formula gives 2843 times, or 2828 with the unrounded constants of the authors' code (10.6009, 0.2259 and
    0.7640).

    Parameters
    ----------
    snr_db : float32 in dB, of any shape.
    floor : smallest weight.
    """
    return (10.6 * torch.exp(0.226 * snr_db.float()) - 0.764).clamp_min(floor)


def snr_weighted_squared_error(predicted: Tensor, target: Tensor, snr_db: Tensor, elements: str = "sum") -> Tensor:
    """Mean over the batch of w(SNR) |target - predicted|^2 (eq. 21).

    An unknown SNR (NaN) makes the loss NaN; `FinetuneObjective` refuses such data sets before.

    Parameters
    ----------
    predicted, target, elements : see `squared_error`.
    snr_db : float32 [B].
    """
    return (snr_weight(snr_db) * _per_sample(predicted, target, elements)).mean()


def _per_sample(predicted: Tensor, target: Tensor, elements: str) -> Tensor:
    if elements not in ELEMENTS:
        raise ConfigurationError("loss", "elements", elements, f"one of {', '.join(ELEMENTS)}")
    if predicted.shape != target.shape:  # torch would broadcast
        raise ConfigurationError(
            "loss", "predicted", tuple(predicted.shape), f"{tuple(target.shape)}, as the target has"
        )
    error = (predicted.float() - target.float()).square().flatten(1)
    return error.sum(1) if elements == "sum" else error.mean(1)
