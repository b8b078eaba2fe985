# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden inputs of a bundle: recordings of the generator, raw arrays or generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.bundle import bundle_inputs
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import BundleSpec, ImageSpec, PilotGridSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.tile import prepare

from ..data.readers.registry import open_reader
from ..data.tasks import Task
from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask
from ..signals.dataset import SignalDataset
from .parity import inputs_of

GOLDEN_SEED = 977


GOLDEN_IQ = 6


GOLDEN_ARRAYS = 3


MADE_ROWS = 56


MADE_COLUMNS = 112  # rows and columns of a generated golden array


MADE_UP = "made-up arrays, which are no measurements"


MADE_UP_SLOTS = "made-up slots, which are no measurements"


MADE_PATHS = 5


def raw_arrays(task: Task, root: Path, count: int = GOLDEN_ARRAYS) -> list[NDArray[np.float32]]:
    """Raw arrays of a data set in its published layout, evenly from its files: for golden tiles. Raises InputError."""
    raws = list(open_reader(task.reader, f"task {task.name}").read(Path(root), task))
    rows = np.unique(np.linspace(0, len(raws) - 1, count).round().astype(int))
    return [raws[row].load(task.channels) for row in rows]


def made_arrays(spec: ImageSpec, count: int = GOLDEN_ARRAYS, seed: int = GOLDEN_SEED) -> list[NDArray[np.float32]]:
    """Arrays float32 [channels, MADE_ROWS, MADE_COLUMNS] whose tiles have about mean 0 and deviation 1.

    Smooth random fields, no signals: they show that a model computes what it did, not that it is any good.
    """
    rng = np.random.default_rng(seed)
    coarse = (spec.channels, MADE_ROWS // 8, MADE_COLUMNS // 8)
    mean, std = (np.reshape(v, (-1, 1, 1)) for v in (spec.mean, spec.std))
    arrays = []
    for _ in range(count):
        field = np.kron(rng.normal(size=coarse), np.ones((1, 8, 8)))
        field += 0.3 * rng.normal(size=field.shape)
        shares = (mean + std * field - spec.range_low) / (spec.range_high - spec.range_low)
        values = spec.low + np.clip(shares, 0, 1) * (spec.high - spec.low)
        if spec.decibel_floor is not None:
            values = np.maximum(10 ** (values / 10) - spec.decibel_floor, 0)
        arrays.append(values.astype(np.float32))
    return arrays


def made_grids(
    spec: OFDMSpec, count: int = GOLDEN_ARRAYS, seed: int = GOLDEN_SEED, snrs_db: Sequence[float] = (0.0, 10.0, 20.0)
) -> list[NDArray[np.complex64]]:
    """Received slots complex64 [A, S, F] of power about 1: pilots alone, over a few paths within the prefix, in noise.

    They show that a model computes what it did, not that it is any good. snrs_db: in turn.
    """
    rng = np.random.default_rng(seed)
    grids = []
    for i in range(count):
        delays = rng.uniform(0, min(spec.prefix_samples) / spec.fft_size / 2, (MADE_PATHS, 1))
        turns = rng.uniform(-1e-3, 1e-3, (MADE_PATHS, 1))
        gains = rng.normal(size=(spec.antennas, MADE_PATHS, 2)) @ np.array([1, 1j]) / np.sqrt(2 * MADE_PATHS)
        over_time = np.exp(2j * np.pi * turns * np.arange(spec.symbols))
        channel = np.einsum("ap,ps,pf->asf", gains, over_time, np.exp(-2j * np.pi * delays * spec.frequencies))
        noise = rng.normal(size=(*spec.grid_shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
        sent = np.zeros(spec.grid_shape[1:], np.complex64)
        sent[np.ix_(spec.pilot_symbols, spec.pilot_subcarriers)] = spec.pilots
        grids.append((channel * sent + noise * 10 ** (-snrs_db[i % len(snrs_db)] / 20)).astype(np.complex64))
    return grids


def make_golden(trained: TrainedTask, spec: BundleSpec, arrays: Sequence[NDArray] | None = None) -> Golden:
    """Inputs, what they are prepared to, and torch's outputs for them; IQ is of several classes and short."""
    preprocess = trained.preprocess
    engine = TorchEngine(trained.model, trained.output)
    if isinstance(preprocess, PilotGridSpec):
        if arrays is not None:
            raise ConfigurationError("export", "arrays", "given", "none for slots, whose golden ones are made up")
        grids = tuple(made_grids(preprocess.numerology))
        tiles = tuple(prepare(grid, preprocess, f"golden slot {i}") for i, grid in enumerate(grids))
        asked = Golden((), np.zeros(len(grids)), tiles, {}, (), grids)
        return replace(asked, outputs=engine.run(inputs_of(spec, asked, np.stack(tiles), range(len(grids)))))
    if isinstance(preprocess, ImageSpec):
        given = tuple(made_arrays(preprocess) if arrays is None else arrays)
        if not given:
            raise ConfigurationError("export", "arrays", "none", "at least one, or None for made-up ones")
        tiles = tuple(prepare(array, preprocess, f"golden array {i}") for i, array in enumerate(given))
        rates = np.zeros(len(given))
        return Golden((), rates, tiles, engine.run(bundle_inputs(spec, np.stack(tiles), rates)), given)
    if arrays is not None:
        raise ConfigurationError("export", "arrays", "given", "none for spectrograms, whose golden tiles are of IQ")
    shortest = preprocess.min_samples
    dataset = SignalDataset(GOLDEN_SEED, shortest * 3, shortest, partial_share=1.0, snr_db=(10, 25))
    step = max(1, len(dataset.labels) // GOLDEN_IQ)
    examples = [dataset[i * step] for i in range(GOLDEN_IQ)]
    tiles = tuple(prepare(example.iq, preprocess) for example in examples)
    rates = np.array([example.rate_hz for example in examples])
    outputs = engine.run(bundle_inputs(spec, np.stack(tiles), rates))
    return Golden(tuple(example.iq for example in examples), rates, tiles, outputs)
