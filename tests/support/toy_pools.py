# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools of made-up channels for the tests of the channel estimator: few paths, so that a slot is far from average."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import to_dict
from wavesfm_trainer.data import channel_pool
from wavesfm_trainer.data.generators.channels import Scenario

SPEC = OFDMSpec(4, 6, 16, 16, (2,) * 6, 30e3, (1, 4), "0123" * 8)
COMB = OFDMSpec(3, 5, 40, 64, (8,) * 5, 30e3, (1, 3), "0123" * 10, 2, 1)  # sizes that fill no patch, a comb


def channels(spec: OFDMSpec, count: int, seed: int = 0, n_paths: int = 2) -> NDArray[np.complex64]:
    """complex64 [count, A, S, F], mean power 1: plane waves from random directions at random delays."""
    rng = np.random.default_rng(seed)
    delays = rng.uniform(0, min(spec.prefix_samples) / spec.fft_size, (count, n_paths))
    angles = np.sin(rng.uniform(-np.pi, np.pi, (count, n_paths)))
    turns = rng.uniform(-0.02, 0.02, (count, n_paths))
    gains = rng.normal(size=(count, n_paths, 2)) @ np.array([1, 1j])
    over_space = np.exp(1j * np.pi * np.arange(spec.antennas)[:, None] * angles[:, None])
    over_time = np.exp(2j * np.pi * np.arange(spec.symbols)[:, None] * turns[:, None])
    over_frequency = np.exp(-2j * np.pi * spec.frequencies[:, None] * delays[:, None])
    made = np.einsum("np,nap,nsp,nfp->nasf", gains, over_space, over_time, over_frequency, optimize=True)
    power = np.mean(np.abs(made) ** 2, axis=(1, 2, 3), keepdims=True)
    return (made / np.sqrt(power)).astype(np.complex64)


def write(path: Path, spec: OFDMSpec, made: NDArray[np.complex64], seed: int = 0, model: str = "umi") -> Path:
    """A file as `write_pool` leaves it, of these channels."""
    note = {"format": channel_pool.FORMAT, "numerology": to_dict(spec), "seed": seed}
    note["scenario"] = dataclasses.asdict(Scenario(model))
    with h5py.File(path, "w") as file:
        file.attrs["note"] = json.dumps(note)
        rows = np.ascontiguousarray(made).view(np.float32).reshape(*made.shape, 2)
        file.create_dataset(channel_pool.KEY, data=rows.astype(np.float16))
    return path
