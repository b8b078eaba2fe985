# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden inputs of a bundle: recordings of the generator, raw arrays or generated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.golden_inputs import golden_inputs
from wavesfm_core.preprocess.tile import prepare

from ..data.readers.registry import open_reader
from ..data.tasks import Task
from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask
from ..signals.dataset import SignalDataset

GOLDEN_SEED = 977


GOLDEN_IQ = 6


GOLDEN_ARRAYS = 3


MADE_ROWS = 56


MADE_COLUMNS = 112  # rows and columns of a generated golden array


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


def generated_iq(spec: SpectrogramSpec) -> tuple[list[NDArray[np.complex64]], NDArray[np.float64]]:
    """Short recordings of several classes of the generator, and their rates in Hz."""
    shortest = spec.min_samples
    dataset = SignalDataset(GOLDEN_SEED, shortest * 3, shortest, partial_share=1.0, snr_db=(10, 25))
    step = max(1, len(dataset.labels) // GOLDEN_IQ)
    examples = [dataset[i * step] for i in range(GOLDEN_IQ)]
    return [example.iq for example in examples], np.array([example.rate_hz for example in examples])


@dataclass(frozen=True)
class GoldenSource:
    """Where golden inputs come from that nobody has given."""

    make: Callable[[Any], tuple[Sequence[NDArray], NDArray[np.float64]]]
    """Of the preprocessing: n inputs and their rates in Hz, 0 for none."""
    words: str
    """For the model card."""


GOLDEN_SOURCES = {
    SpectrogramSpec.kind: GoldenSource(generated_iq, "generated IQ"),
    ImageSpec.kind: GoldenSource(
        lambda spec: (made_arrays(spec), np.zeros(GOLDEN_ARRAYS)), "made-up arrays, which are no measurements"
    ),
    PilotGridSpec.kind: GoldenSource(
        lambda spec: (made_grids(spec.numerology), np.zeros(GOLDEN_ARRAYS)), "made-up slots, which are no measurements"
    ),
}
"""By PreprocessSpec.kind."""


def make_golden(trained: TrainedTask, spec: BundleSpec, arrays: Sequence[NDArray] | None = None) -> Golden:
    """Inputs, the tiles that they are prepared to, and torch's outputs for them.

    arrays: golden inputs of a model of images; None: those of GOLDEN_SOURCES. Raises ConfigurationError for arrays with
    another kind of model, and for none.
    """
    preprocess = trained.preprocess
    if arrays is not None and preprocess.kind != ImageSpec.kind:
        expected = f"none for a {preprocess.kind} model, whose golden inputs are generated"
        raise ConfigurationError("export", "arrays", "given", expected)
    if arrays is not None and not arrays:
        raise ConfigurationError("export", "arrays", "none", "at least one, or None for made-up ones")
    made = GOLDEN_SOURCES[preprocess.kind].make(preprocess) if arrays is None else (arrays, np.zeros(len(arrays)))
    inputs, rates = made
    tiles = tuple(prepare(one, preprocess, f"golden input {i}") for i, one in enumerate(inputs))
    golden = Golden(tuple(inputs), rates, tiles, {})
    outputs = TorchEngine(trained.model, trained.output).run(golden_inputs(spec, golden))
    return replace(golden, outputs=outputs)
