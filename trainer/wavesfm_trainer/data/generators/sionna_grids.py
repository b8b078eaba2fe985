# SPDX-License-Identifier: GPL-3.0-or-later
"""MIMO-OFDM resource grids of a simulated uplink (3GPP TR 38.901 through Sionna), for channel estimation.

Layout: `batch_<i>.npz` with x_rg complex64 [64, S, F] (sent), y_rg complex64 [64, A, S, F] (received), h_freq complex64
[64, A, S, F] (channel) and snr_db float32 [64]; the last batch may be smaller. `count` counts examples. As published:
numerology "paper" (A 16, S 14, F 48), urban micro-cell, 3.5 GHz, 3 m/s, QPSK between the pilots. Every channel has mean
power 1, so that the SNR is `snr_db`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.errors import ConfigurationError

from ..numerologies import read_numerology
from .channels import BATCH, ChannelSimulator, Grid, Scenario
from .output import finish, rng_for, start


@dataclass(frozen=True)
class GridBatch:
    """B examples."""

    sent: Grid
    """complex64 [B, S, F]."""
    received: Grid
    """complex64 [B, A, S, F]."""
    channel: Grid
    """complex64 [B, A, S, F]."""
    snr_db: NDArray[np.float32]
    """float32 [B]."""


def send(rng: np.random.Generator, channel: Grid, snr_db: NDArray[np.float32], spec: OFDMSpec) -> GridBatch:
    """Send slots of QPSK and pilots, all of power 1, through channels with white noise.

    Parameters
    ----------
    rng : source of data and noise.
    channel : complex64 [B, A, S, F].
    snr_db : [B], relative to a channel of mean power 1.
    spec : OFDM slot parameters.
    """
    count = len(channel)
    quadrant = rng.integers(4, size=(count, spec.symbols, spec.subcarriers))
    sent = np.exp(0.25j * np.pi * (1 + 2 * quadrant)).astype(np.complex64)
    sent[np.ix_(np.arange(count), list(spec.pilot_symbols), spec.pilot_subcarriers)] = spec.pilots
    deviation = np.float32(np.sqrt(0.5)) * 10 ** (-np.asarray(snr_db, np.float32) / 20)
    noise = rng.standard_normal((*channel.shape, 2), np.float32).view(np.complex64)[..., 0]
    received = channel * sent[:, None] + deviation[:, None, None, None] * noise
    return GridBatch(sent, received, channel, np.float32(snr_db))


def batches(
    count: int,
    seed: int,
    snr_db: tuple[float, float] = (-10.0, 20.0),
    snr_step_db: float = 0.0,
    batch: int = BATCH,
    scenario: Scenario | None = None,
    spec: OFDMSpec | None = None,
) -> Iterator[GridBatch]:
    """Examples in batches; batch i is a function of (seed, i, its size).

    Parameters
    ----------
    count : number of examples.
    seed : of channels, data and noise.
    snr_db : range from which the SNR of each example is drawn.
    snr_step_db : 0: uniform in the range; else one of low, low + step, ..., high.
    batch : examples of a batch; the last one may be smaller.
    scenario, spec : None: as published.

    Raises
    ------
    ConfigurationError : an empty range, or a number that is not positive.
    """
    low, high = snr_db
    if not low <= high:
        raise ConfigurationError("sionna_grids", "snr_db", snr_db, "the lower bound first")
    for name, value in (("count", count), ("batch", batch)):
        if value < 1:
            raise ConfigurationError("sionna_grids", name, value, "1 or more")
    if snr_step_db < 0:
        raise ConfigurationError("sionna_grids", "snr_step_db", snr_step_db, "0 (uniform) or more")
    spec = spec or read_numerology("paper")
    simulator = ChannelSimulator(spec, scenario or Scenario())
    for index, first in enumerate(range(0, count, batch)):
        rng = rng_for(seed, index)
        size = min(batch, count - first)
        if snr_step_db:
            snr = rng.choice(np.arange(low, high + snr_step_db / 2, snr_step_db), size)
        else:
            snr = rng.uniform(low, high, size)
        yield send(rng, simulator.batch(rng, size), snr.astype(np.float32), spec)


def generate(
    directory: Path,
    count: int,
    seed: int,
    snr_db: tuple[float, float] = (-10.0, 20.0),
    snr_step_db: float = 0.0,
    scenario: Scenario | None = None,
    spec: OFDMSpec | None = None,
) -> None:
    """Write `count` examples in batches of 64; for arguments and errors see `batches`."""
    directory = start(directory, count)
    spec, scenario = spec or read_numerology("paper"), scenario or Scenario()
    files = {}
    for index, grids in enumerate(batches(count, seed, snr_db, snr_step_db, scenario=scenario, spec=spec)):
        name = f"batch_{index:05d}.npz"
        np.savez(
            directory / name,
            x_rg=grids.sent,
            y_rg=grids.received,
            h_freq=grids.channel,
            snr_db=grids.snr_db,
        )
        files[name] = {"examples": len(grids.snr_db)}
    settings = {
        "count": count, "snr_db": list(snr_db), "snr_step_db": snr_step_db,
        "scenario": dataclasses.asdict(scenario), "numerology": to_dict(spec),
    }  # fmt: skip
    finish(directory, "sionna_grids", seed, settings, files)
