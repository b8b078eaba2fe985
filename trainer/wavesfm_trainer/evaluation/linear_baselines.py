# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of linear estimators on simulated channels, as the reference of every other estimator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.pilot_grid import Observation, at_pilots, mean_power, observe

from ..data.channel_pool import ChannelPool
from ..data.generators.channels import Grid
from ..data.generators.output import rng_for
from ..data.generators.sionna_grids import send

SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
BATCH = 128


@dataclass(frozen=True)
class ReferenceTable:
    """Errors of linear estimators over SNR."""

    snrs_db: list[float]
    """SNRs in dB."""
    nmse_db: dict[str, list[float]]
    """By estimator: 10 log10(sum |estimate - h|^2 / sum |h|^2) over all slots, at each SNR."""
    standard_error_db: dict[str, list[float]]
    """Standard errors of these means.

    A few slots of a cell have long delays and most of the error.
    """


def learn_covariances(pool: ChannelPool, count: int | None = None) -> Covariances:
    """Average covariances of the first `count` channels of a pool, or of all."""
    return Covariances.learn(pool.batches(BATCH, 0, count))


def reference_table(
    learn: ChannelPool, test: ChannelPool, seed: int = 0, snrs_db: tuple[float, ...] = SNRS_DB
) -> ReferenceTable:
    """NMSE of least squares at the pilots, and of least squares and LMMSE on the whole grid.

    LMMSE has the average covariances of `learn`, and knows the SNR or measures it at the pilots. Noise and data are a
    function of (seed, SNR, batch).

    Parameters
    ----------
    learn, test : pools of one numerology.
    seed : of data and noise.
    snrs_db : SNRs in dB.

    Raises
    ------
    InputError : the pools differ in numerology, or are the same draw.
    """
    learn.spec.require(test.spec, str(test.path))
    if (learn.seed, learn.scenario) == (test.seed, test.scenario):
        raise InputError(test.path, "seed", f"{test.seed}, as of {learn.path}", "channels that were not learnt from")
    estimators = _estimators(learn_covariances(learn), test)
    columns: dict[str, list[list[Values]]] = {name: [[] for _ in snrs_db] for name in estimators}
    for index, channel in enumerate(test.batches(BATCH)):
        for column, snr_db in enumerate(snrs_db):
            slots = send(rng_for(seed, column, index), channel, np.full(len(channel), snr_db, np.float32), test.spec)
            known = observe(slots.received, test.spec, noise_power=10 ** (-snr_db / 10), signal_power=1.0)
            for name, estimate in estimators.items():
                columns[name][column].append(estimate(channel, slots.received, known))
    errors = {name: [np.concatenate(batches) for batches in each] for name, each in columns.items()}
    return ReferenceTable(
        list(snrs_db),
        {name: [10 * math.log10(error.mean()) for error in each] for name, each in errors.items()},
        {name: [_standard_error_db(error) for error in each] for name, each in errors.items()},
    )


Values = NDArray[np.float64]
Error = Callable[[Grid, Grid, Observation], Values]


def _estimators(covariances: Covariances, test: ChannelPool) -> dict[str, Error]:
    """Functions of (channel of mean power 1, received, observation of known noise): error of each slot."""
    spec = test.spec
    nearest, linear = LeastSquares(spec, "nearest"), LeastSquares(spec, "linear")
    narrow, wide = LMMSE(spec, covariances, space=False), LMMSE(spec, covariances, space=True)
    return {
        "LS at pilots": lambda h, y, known: mean_power(known.ls - at_pilots(h, spec)),
        "LS nearest": lambda h, y, known: mean_power(nearest.estimate(y, known) - h),
        "LS linear": lambda h, y, known: mean_power(linear.estimate(y, known) - h),
        "LMMSE time-frequency": lambda h, y, known: mean_power(narrow.estimate(y, known) - h),
        "LMMSE space-time-frequency": lambda h, y, known: mean_power(wide.estimate(y, known) - h),
        "the same, SNR measured": lambda h, y, known: mean_power(wide.estimate(y) - h),
    }


def _standard_error_db(errors: Values) -> float:
    return 10 / math.log(10) * float(errors.std() / errors.mean()) / math.sqrt(len(errors))
