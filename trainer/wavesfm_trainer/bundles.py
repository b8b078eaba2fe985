"""From a fine-tuned run to a bundle, of any task: refused unless the ONNX file gives torch's numbers in any batch."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from wavesfm_core.bundle import README, Bundle, bundle_inputs, write_bundle
from wavesfm_core.channel.numerology import OFDMSpec
from wavesfm_core.channel.pilots import observe
from wavesfm_core.engines import Engine, open_engine
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError
from wavesfm_core.golden import Golden
from wavesfm_core.preprocess import prepare
from wavesfm_core.spec import BundleSpec, ImageSpec, PilotGridSpec, SpectrogramSpec
from wavesfm_core.types import UNKNOWN

from .channel_model import ChannelModel
from .data.readers import open_reader
from .model_card import make_card
from .onnx_model import halve_weights, to_onnx
from .precision import HALF_TYPES, typed
from .runs_format import read_evaluation
from .signals import CLASSES
from .signals.dataset import SignalDataset
from .signals.views import ALL_LABELS, LEAST_RATE_HZ, MORE_VIEWS
from .task_model import TaskArgs
from .tasks import Task
from .trained import TorchEngine, TrainedTask, pilot_grids, read_task_run, task_spec

log = logging.getLogger(__name__)

# How far outputs may be from torch's in float32, as a share of the largest; halves keep 11 and 8 bits.
TOLERANCES = {"fp32": 2e-4, "fp16": 1e-2, "bf16": 5e-2}
LEAST_OUTPUT = 0.1  # outputs smaller than this are held to this one's tolerance
ENGINES = ("onnxruntime", "openvino")  # tried in this order for the parity check
BATCHES = (1, 2, 7)  # no multiples of each other, so that a batch that was baked in shows
GOLDEN_SEED = 977
GOLDEN_IQ, GOLDEN_ARRAYS = 6, 3
MADE_ROWS, MADE_COLUMNS = 56, 112  # of a generated golden array
MADE_UP = "made-up arrays, which are no measurements"
MADE_UP_SLOTS = "made-up slots, which are no measurements"
MADE_PATHS = 5
HALVES_COST_DB, HALVES_TRIED = 0.05, 16


def export_run(
    run: Path | str,
    directory: Path | str,
    name: str,
    precision: str = "fp32",
    *,
    licence: str,
    training_data: str,
    half_weights: bool = False,
    card: str | None = None,
    arrays: Sequence[NDArray[np.float32]] | None = None,
    rates_hz: tuple[float, float] | None = None,
) -> Bundle:
    """Write the bundle of a fine-tuned run (its directory, or a weights file) and return it, opened.

    LoRA adapters are merged; what inference does not need (other channel counts' embeddings, training's state) stays
    behind. precision: of the arithmetic in the graph, "fp32", or "fp16" and "bf16" as the module `precision` says;
    inputs and outputs are float32 in any case. half_weights (fp32 only): weights are rounded to float16 and stored so.
    licence, training_data: of bundle.json and the model card. card: README.md; None keeps the one that is there, and
    writes one from the run where there is none. arrays: raw arrays for the golden tiles (see `raw_arrays`), made up
    where there are none; for spectrograms the signal generator makes IQ, and slots are made up. rates_hz: lowest and
    highest sample rate in the training data, known for the generator's labels.
    A channel estimator gets a bundle of pilot grids where its numerology is known (`trained.pilot_grids`), and one that
    started from covariances brings them along.
    Raises ConfigurationError for contradicting options and for half weights that would cost a channel estimator more
    than HALVES_COST_DB, WeightsError for what is no fine-tuned run, and BundleError when outputs differ from torch's by
    more than TOLERANCES, depend on the batch, or no engine here runs the model.
    """
    directory = Path(directory)
    _check_options(precision, half_weights, licence, training_data)
    trained = pilot_grids(read_task_run(run))
    model, learnt, covariances = trained.model, None, None
    if isinstance(model, ChannelModel):
        covariances = model.covariances()
    else:
        learnt = model.task_args  # merging forgets that there were adapters
        model.merge()
    if half_weights:
        _halve(trained)
    spec = replace(
        task_spec(trained, name),
        rates_hz=_rates(trained, rates_hz),
        licence=licence,
        training_data=training_data,
    )
    spec = replace(spec, versions={**spec.versions, "onnx": version("onnx"), **_commit(trained)})
    golden = make_golden(trained, spec, arrays)
    spec = replace(spec, tolerance=_tolerance(precision, golden.outputs[trained.output]))
    onnx = to_onnx(typed(model, precision) if precision in HALF_TYPES else model, spec, half_weights)
    with tempfile.TemporaryDirectory() as scratch:
        engine = check_parity(write_bundle(Path(scratch) / "bundle", spec, onnx, golden, "none"), trained, precision)
    log.info("%s: equal to torch within %.3g on %s", name, spec.tolerance, engine)
    if card is None:
        arithmetic = f"{precision}, weights stored in float16" if half_weights else precision
        made = MADE_UP_SLOTS if golden.grids else MADE_UP
        golden_of = "generated IQ" if golden.iq else made if arrays is None else "arrays of the data set"
        card = _card(directory, trained, learnt, spec, arithmetic, engine, golden_of)
    return write_bundle(directory, spec, onnx, golden, card, covariances)


def _halve(trained: TrainedTask) -> None:
    """Round the weights, and refuse where a channel estimator's error would grow by more than HALVES_COST_DB at 20 dB,
    on top of the error that LMMSE has there."""
    model = trained.model
    if not isinstance(model, ChannelModel):
        halve_weights(model)
        return
    spec = task_spec(trained, "halves")
    grids = made_grids(model.spec, HALVES_TRIED, snrs_db=(20.0,))
    tiles = np.stack([prepare(grid, trained.preprocess) for grid in grids])
    inputs = bundle_inputs(spec, tiles, np.zeros(len(tiles)), observe(np.stack(grids), model.spec).snr_db)
    engine = TorchEngine(model, trained.output)
    before = engine.run(inputs)[trained.output]
    halve_weights(model)
    apart = float(np.sum(np.square(engine.run(inputs)[trained.output] - before)) / np.sum(np.square(before)))
    cost_db = 10 * math.log10(1 + apart / float(model.linear_error(torch.tensor([0.01]))))
    if cost_db > HALVES_COST_DB:
        expected = f"at most {HALVES_COST_DB} dB: leave the weights in float32"
        raise ConfigurationError("export", "half_weights", f"{cost_db:.2g} dB more error at 20 dB", expected)


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
        return replace(asked, outputs=engine.run(_inputs(spec, asked, np.stack(tiles), range(len(grids)))))
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


def check_parity(bundle: Bundle, trained: TrainedTask, precision: str) -> str:
    """Description of the engine that gives torch's outputs for BATCHES and the same for each; BundleError if none."""
    refusals = []
    for name in ENGINES:
        try:
            engine = open_engine(bundle, name, precision="f32")
            _check_batches(engine, bundle, trained)
            return engine.description
        except EngineError as error:  # missing, or it does not know an operator in this type
            refusals.append(f"{name} ({error.found})")
    what = f"a model in {precision} that no engine here runs: {'; '.join(refusals)}"
    expected = (
        "one that does (pip install openvino runs bf16), or another precision: what was not tried is not exported"
    )
    raise BundleError("export", f"precision {precision}", what, expected)


def _check_batches(engine: Engine, bundle: Bundle, trained: TrainedTask) -> None:
    golden, spec = bundle.golden(), bundle.spec
    count = max(BATCHES)
    rows = np.arange(count) % len(golden.tiles)
    tiles = np.stack([np.roll(golden.tiles[row], i, axis=-1) for i, row in enumerate(rows)])  # no two are the same
    inputs = _inputs(spec, golden, tiles, rows)
    expected = TorchEngine(trained.model, trained.output).run(inputs)
    together = engine.run(inputs)
    for name, values in together.items():
        _refuse(values, expected[name], f"{name} of ONNX against torch", spec.tolerance)
    for size in BATCHES[:-1]:
        pieces = [
            engine.run({key: value[first : first + size] for key, value in inputs.items()})
            for first in range(0, count, size)
        ]
        for name, values in together.items():
            single = np.concatenate([piece[name] for piece in pieces])
            _refuse(single, values, f"{name} of batch {size} against batch {count}", spec.tolerance)


def _inputs(spec: BundleSpec, golden: Golden, tiles: NDArray, rows: Sequence[int]) -> dict[str, NDArray]:
    """Inputs of the model: these tiles, with what is beside the golden ones in these rows."""
    snr_db = golden.snr_db(spec)
    return bundle_inputs(spec, tiles, golden.rate_hz[list(rows)], None if snr_db is None else snr_db[list(rows)])


def _refuse(a: NDArray, b: NDArray, what: str, tolerance: float) -> None:
    difference = float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError("export", what, f"a difference of {difference:.3g}", f"at most {tolerance:.3g}")


def _tolerance(precision: str, outputs: NDArray) -> float:
    return TOLERANCES[precision] * max(LEAST_OUTPUT, float(np.abs(outputs).max()))


def _check_options(precision: str, half_weights: bool, licence: str, training_data: str) -> None:
    if precision not in TOLERANCES:
        raise ConfigurationError("export", "precision", repr(precision), f"one of {', '.join(TOLERANCES)}")
    if half_weights and precision != "fp32":
        raise ConfigurationError(
            "export", "half_weights", f"on with {precision}", "off: its weights are halves already"
        )
    for name, value in (("licence", licence), ("training_data", training_data)):
        if not value.strip():
            raise ConfigurationError("export", name, "nothing", "what the bundle's user must know")


def _rates(trained: TrainedTask, given: tuple[float, float] | None) -> tuple[float, float]:
    if not isinstance(trained.preprocess, SpectrogramSpec):
        if given is not None:
            raise ConfigurationError("export", "rates_hz", given, "none for images, which have no sample rate")
        if trained.model.encoder_args.rate_input:
            log.warning("the model could take a sample rate; with images it is exported with the rate unknown")
        return 0.0, 0.0
    if given is not None:
        return given
    if UNKNOWN in trained.head.labels and set(trained.head.labels) <= set(ALL_LABELS):
        return LEAST_RATE_HZ, max(view.high_hz for views in MORE_VIEWS.values() for view in views)
    if unknown := [label for label in trained.head.labels if label not in CLASSES]:
        expected = f"the lowest and the highest of the training data, as {', '.join(unknown)} is not of the generator"
        raise ConfigurationError("export", "rates_hz", "nothing", expected)
    views = [view for label in trained.head.labels for view in CLASSES[label].views]
    return min(view.low_hz for view in views), max(view.high_hz for view in views)


def _commit(trained: TrainedTask) -> dict[str, str]:
    commit = trained.config.get("git_commit")
    return {"trained at commit": str(commit)} if commit else {}


def _card(
    directory: Path,
    trained: TrainedTask,
    learnt: TaskArgs | None,
    spec: BundleSpec,
    arithmetic: str,
    engine: str,
    golden_of: str,
) -> str:
    if (directory / README).is_file():
        return (directory / README).read_text(encoding="utf-8")
    there = (trained.directory / "evaluation.json").is_file()
    evaluation = read_evaluation(trained.directory) if there else None
    return make_card(trained, learnt, spec, arithmetic, engine, golden_of, evaluation)
