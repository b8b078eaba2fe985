# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare channel estimators on the same unseen slots: least squares, LMMSE and models, over SNR and scenarios.

`comparison.json`: {"format": 1, "pools": [{"name", "scenario", "slots", "snr_db": [...], "estimators": {name:
{"mse",
"nmse_db": [...]}}}]}. An estimator that may fall back to least squares also has "backed_off": [...], the share of
slots.
The first pool has the scenario that the covariances and the models are for. `comparison.csv` has the same values, a
row
for each number.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.atomic_file import write_atomically
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.backoff import BackOff
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.errors import InputError, WavesfmError
from wavesfm_core.preprocess.pilot_grid import observe
from wavesfm_core.types import Slot

from ..data.channel_pool import ChannelPool
from ..data.generators.channels import Grid
from ..data.generators.output import rng_for
from ..data.generators.sionna_grids import send
from ..models.run_layout import read_object
from .linear_baselines import SNRS_DB

log = logging.getLogger(__name__)
FORMAT, NAME = 1, "comparison.json"
BATCH = 64
LS, LMMSE_KNOWN = "LS", "LMMSE space-time-frequency"
LINEAR = (LS, "LMMSE time-frequency", LMMSE_KNOWN, "LMMSE, SNR measured")
BACKING_OFF = ", backing off"


@dataclass(frozen=True)
class Curve:
    """Errors of an estimator over SNR."""

    mse: list[float]
    """Mean of |estimate - h|^2 over all elements, for each SNR."""
    nmse_db: list[float]
    """The same over the mean power of the channels, in dB."""
    backed_off: list[float] | None = None
    """Share of the slots for which least squares was used; None for an estimator without back-off."""


@dataclass(frozen=True)
class PoolCurves:
    """Errors of the estimators on the slots of one pool."""

    name: str
    """Name of the pool."""
    scenario: dict[str, Any]
    """Its scenario."""
    slots: int
    """Number of slots."""
    snr_db: list[float]
    """SNRs in dB."""
    estimators: dict[str, Curve]
    """Errors by the name of the estimator."""

    def excess_db(self, name: str, over: str = LS) -> float:
        """Largest difference in dB, over the SNRs, of one estimator's error to another's."""
        pairs = zip(self.estimators[name].nmse_db, self.estimators[over].nmse_db)
        return max(a - b for a, b in pairs)


def compare(
    pools: Sequence[ChannelPool],
    models: Mapping[str, ChannelPipeline],
    covariances: Covariances,
    count: int | None = None,
    seed: int = 0,
    snrs_db: Sequence[float] = SNRS_DB,
) -> list[PoolCurves]:
    """Errors of least squares, LMMSE and models on the same slots.

    Noise and data are a function of (seed, SNR, batch). LMMSE knows the SNR, except one that measures it as the models
    do. Each model comes twice: as it is, and with core's back-off (`BackOff`, each slot as the first of a stream).

    Parameters
    ----------
    pools : channels; the first pool's numerology is that of all.
    models : pipelines by name.
    covariances : of LMMSE.
    count : slots of each pool, the first ones; None: all.
    seed : of data and noise.
    snrs_db : SNRs in dB.

    Raises
    ------
    InputError : a numerology that differs from the first pool's; and what the models raise.
    """
    spec = pools[0].spec
    for where, other in [(str(p.path), p.spec) for p in pools] + [(name, m.spec) for name, m in models.items()]:
        spec.require(other, where)
    linear = {
        LS: LeastSquares(spec),
        LINEAR[1]: LMMSE(spec, covariances, space=False),
        LMMSE_KNOWN: LMMSE(spec, covariances),
        LINEAR[3]: LMMSE(spec, covariances),
    }
    return [_compare_pool(pool, models, linear, count, seed, list(snrs_db)) for pool in pools]


def _compare_pool(
    pool: ChannelPool,
    models: Mapping[str, ChannelPipeline],
    linear: Mapping[str, LeastSquares | LMMSE],
    count: int | None,
    seed: int,
    snrs_db: list[float],
) -> PoolCurves:
    names = [*linear, *(n for model in models for n in (model, model + BACKING_OFF))]
    errors = {name: np.zeros(len(snrs_db)) for name in names}
    backed_off = {model + BACKING_OFF: np.zeros(len(snrs_db)) for model in models}
    powers, slots = np.zeros(len(snrs_db)), 0
    for index, channel in enumerate(pool.batches(BATCH, 0, count)):
        slots += len(channel)
        for at, snr_db in enumerate(snrs_db):
            grids = send(
                rng_for(seed, at, index), channel, np.full(len(channel), snr_db, np.float32), pool.spec
            ).received
            powers[at] += _power(channel)
            known = observe(grids, pool.spec, noise_power=10 ** (-snr_db / 10), signal_power=1.0)
            estimates = {
                name: each.estimate(grids, None if name == LINEAR[3] else known) for name, each in linear.items()
            }
            for name, model in models.items():
                estimates[name], off = _predict_with_fallback(model, grids)
                estimates[name + BACKING_OFF] = np.where(off[:, None, None, None], estimates[LS], estimates[name])
                backed_off[name + BACKING_OFF][at] += np.count_nonzero(off)
            for name, estimate in estimates.items():
                errors[name][at] += _power(estimate - channel)
        log.info("%s: %d slots", pool.path.stem, slots)
    elements = slots * math.prod(pool.spec.grid_shape)
    curves = {
        name: Curve(
            (error / elements).tolist(),
            (10 * np.log10(error / powers)).tolist(),
            (backed_off[name] / slots).tolist() if name in backed_off else None,
        )
        for name, error in errors.items()
    }
    return PoolCurves(pool.path.stem, asdict(pool.scenario), slots, snrs_db, curves)


def _predict_with_fallback(model: ChannelPipeline, grids: Grid) -> tuple[Grid, NDArray[np.bool_]]:
    """The model's estimates, and whether core's back-off would use least squares for each slot as its first."""
    estimates = []
    for estimate in model.predict([Slot(grid, 0, 0) for grid in grids]):
        if isinstance(estimate, WavesfmError):
            raise estimate
        estimates.append(estimate)
    off = [BackOff().update(e.snr_db or 0.0, e.residual or 0.0) for e in estimates]
    return np.stack([e.channel for e in estimates]), np.array(off)


def _power(values: Grid) -> float:
    return float(np.sum(values.real.astype(np.float64) ** 2 + values.imag.astype(np.float64) ** 2))


def write_comparison(directory: Path, pools: Sequence[PoolCurves]) -> list[Path]:
    """Write comparison.json and comparison.csv, and return their paths. InputError if they cannot be written."""
    values = {"format": FORMAT, "pools": [_plain(pool) for pool in pools]}
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["pool", "estimator", "snr_db", "mse", "nmse_db", "backed_off"])
    for pool in pools:
        for name, curve in pool.estimators.items():
            shares = curve.backed_off or [None] * len(pool.snr_db)
            columns = zip(pool.snr_db, curve.mse, curve.nmse_db, shares)
            rows.writerows((pool.name, name, *numbers) for numbers in columns)
    paths = [directory / NAME, directory / "comparison.csv"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(paths[0], json.dumps(values, indent=1, allow_nan=False) + "\n")
        write_atomically(paths[1], table.getvalue())
    except OSError as error:
        raise InputError(directory, "directory", error.strerror or error, "a place that can be written") from None
    return paths


def read_comparison(path: Path) -> list[PoolCurves]:
    """Read comparison.json strictly; InputError names the fault."""
    values = read_object(path)
    if values.get("format") != FORMAT:
        raise InputError(path, "format", values.get("format", "nothing"), str(FORMAT))
    try:
        pools = [
            PoolCurves(**{**pool, "estimators": {name: Curve(**c) for name, c in pool["estimators"].items()}})
            for pool in values["pools"]
        ]
        for pool in pools:
            lists = [[pool.snr_db], *([c.mse, c.nmse_db, c.backed_off or c.mse] for c in pool.estimators.values())]
            numbers = all(_are_numbers(one, len(pool.snr_db)) for some in lists for one in some)
            if not numbers or LS not in pool.estimators or not isinstance(pool.scenario, dict):
                raise ValueError(f"pool {pool.name}: lists of different lengths, no numbers, no scenario, or no {LS}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, "pools", str(error)[:120], "what wavesfm-train compare-channels leaves") from None
    if not pools:
        raise InputError(path, "pools", "none", "one or more")
    return pools


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(math.isfinite(value) for value in values)


def _plain(pool: PoolCurves) -> dict[str, Any]:
    values = asdict(pool)
    for curve in values["estimators"].values():
        if curve["backed_off"] is None:
            del curve["backed_off"]
    return values
