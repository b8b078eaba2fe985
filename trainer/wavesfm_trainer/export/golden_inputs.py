# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden inputs of a bundle: recordings of the signal generator, raw arrays of a data set, or generated ones."""

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
"""Recordings in a bundle of spectrograms."""
GOLDEN_ARRAYS = 3
"""Arrays or slots in a bundle of images or pilot grids."""
ROWS, COLUMNS = 56, 112
"""Size of a generated array."""
PATHS = 5
"""Paths of a generated slot's channel."""


def make_golden(trained: TrainedTask, spec: BundleSpec, arrays: Sequence[NDArray] | None = None) -> Golden:
    """Prepare golden inputs and compute torch's outputs for them.

    Parameters
    ----------
    trained
        Model and preprocessing.
    spec
        Contract of the bundle.
    arrays
        Golden inputs of a model of images, float32 [channels, rows, columns] each; None: those of GOLDEN_SOURCES.

    Returns
    -------
    Inputs, the tiles that they are prepared to, and the outputs.

    Raises
    ------
    ConfigurationError
        Arrays for another kind of model, or an empty list of them.
    """
    preprocess = trained.preprocess
    if arrays is not None and preprocess.kind != ImageSpec.kind:
        expected = f"none for a {preprocess.kind} model, whose golden inputs are generated"
        raise ConfigurationError("export", "arrays", f"{len(arrays)}", expected)
    if arrays is not None and not arrays:
        raise ConfigurationError("export", "arrays", "none", "at least one, or None for generated ones")
    if arrays is None:
        inputs, rates = GOLDEN_SOURCES[preprocess.kind].generate(preprocess)
    else:
        inputs, rates = arrays, np.zeros(len(arrays))
    tiles = tuple(prepare(one, preprocess, f"golden input {i}") for i, one in enumerate(inputs))
    golden = Golden(tuple(inputs), rates, tiles, {})
    outputs = TorchEngine(trained.model, trained.output).run(golden_inputs(spec, golden))
    return replace(golden, outputs=outputs)


def raw_arrays(task: Task, root: Path, count: int = GOLDEN_ARRAYS) -> list[NDArray[np.float32]]:
    """Read raw arrays of a data set in its published layout, evenly spaced over its files. Raises InputError."""
    raws = list(open_reader(task.reader, f"task {task.name}").read(Path(root), task))
    rows = np.unique(np.linspace(0, len(raws) - 1, count).round().astype(int))
    return [raws[row].load(task.channels) for row in rows]


def generated_arrays(spec: ImageSpec, count: int = GOLDEN_ARRAYS, seed: int = GOLDEN_SEED) -> list[NDArray[np.float32]]:
    """Generate arrays float32 [channels, ROWS, COLUMNS] whose tiles have about mean 0 and deviation 1.

    Synthetic regression inputs (smooth random fields); not representative data.
    """
    rng = np.random.default_rng(seed)
    coarse = (spec.channels, ROWS // 8, COLUMNS // 8)
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


def generated_grids(
    spec: OFDMSpec, count: int = GOLDEN_ARRAYS, seed: int = GOLDEN_SEED, snrs_db: Sequence[float] = (0.0, 10.0, 20.0)
) -> list[NDArray[np.complex64]]:
    """Generate received slots complex64 [A, S, F] of power about 1.

    Pilots alone, over PATHS paths within the cyclic prefix, in noise. Synthetic regression inputs; not representative
    data.

    Parameters
    ----------
    spec
        Slot parameters.
    count, seed
        Number of slots and seed of all random numbers.
    snrs_db
        Signal-to-noise ratios in dB, used in turn.
    """
    rng = np.random.default_rng(seed)
    grids = []
    for i in range(count):
        delays = rng.uniform(0, min(spec.prefix_samples) / spec.fft_size / 2, (PATHS, 1))
        turns = rng.uniform(-1e-3, 1e-3, (PATHS, 1))
        gains = rng.normal(size=(spec.antennas, PATHS, 2)) @ np.array([1, 1j]) / np.sqrt(2 * PATHS)
        over_time = np.exp(2j * np.pi * turns * np.arange(spec.symbols))
        channel = np.einsum("ap,ps,pf->asf", gains, over_time, np.exp(-2j * np.pi * delays * spec.frequencies))
        noise = rng.normal(size=(*spec.grid_shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
        sent = np.zeros(spec.grid_shape[1:], np.complex64)
        sent[np.ix_(spec.pilot_symbols, spec.pilot_subcarriers)] = spec.pilots
        grids.append((channel * sent + noise * 10 ** (-snrs_db[i % len(snrs_db)] / 20)).astype(np.complex64))
    return grids


def generated_iq(spec: SpectrogramSpec) -> tuple[list[NDArray[np.complex64]], NDArray[np.float64]]:
    """Generate short recordings of several signal classes; returns them and their rates in Hz."""
    shortest = spec.min_samples
    dataset = SignalDataset(GOLDEN_SEED, shortest * 3, shortest, partial_share=1.0, snr_db=(10, 25))
    step = max(1, len(dataset.labels) // GOLDEN_IQ)
    examples = [dataset[i * step] for i in range(GOLDEN_IQ)]
    return [example.iq for example in examples], np.array([example.rate_hz for example in examples])


@dataclass(frozen=True)
class GoldenSource:
    """Generator of the golden inputs of one kind of preprocessing."""

    generate: Callable[[Any], tuple[Sequence[NDArray], NDArray[np.float64]]]
    """From the preprocessing to n inputs and their rates in Hz, 0 if there is none."""
    words: str
    """Description for the model card."""


GOLDEN_SOURCES = {
    SpectrogramSpec.kind: GoldenSource(generated_iq, "generated IQ"),
    ImageSpec.kind: GoldenSource(
        lambda spec: (generated_arrays(spec), np.zeros(GOLDEN_ARRAYS)), "generated arrays, which are no measurements"
    ),
    PilotGridSpec.kind: GoldenSource(
        lambda spec: (generated_grids(spec.numerology), np.zeros(GOLDEN_ARRAYS)),
        "generated slots, which are no measurements",
    ),
}
"""By PreprocessSpec.kind."""
