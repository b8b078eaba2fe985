# SPDX-License-Identifier: GPL-3.0-or-later
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
from wavesfm_core.bundle.bundle import README, Bundle, bundle_inputs, write_bundle
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.pilot_grid import observe
from wavesfm_core.preprocess.tile import prepare

from ..evaluation.run_files import read_evaluation
from ..evaluation.torch_engine import TorchEngine
from ..evaluation.trained_run import TrainedTask, pilot_grids, read_task_run, task_spec
from ..models.channel_model import ChannelModel
from ..models.task_model import TaskArgs
from ..signals import CLASSES
from .golden_inputs import GOLDEN_SOURCES, made_grids, make_golden
from .model_card import make_card
from .onnx_model import halve_weights, to_onnx
from .parity import TOLERANCES, check_parity, tolerance_of
from .precision import HALF_TYPES, typed

log = logging.getLogger(__name__)

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
    spec = replace(spec, tolerance=tolerance_of(precision, golden.outputs[trained.output]))
    onnx = to_onnx(typed(model, precision) if precision in HALF_TYPES else model, spec, half_weights)
    with tempfile.TemporaryDirectory() as scratch:
        engine = check_parity(write_bundle(Path(scratch) / "bundle", spec, onnx, golden, "none"), trained, precision)
    log.info("%s: equal to torch within %.3g on %s", name, spec.tolerance, engine)
    if card is None:
        arithmetic = f"{precision}, weights stored in float16" if half_weights else precision
        generated = GOLDEN_SOURCES[spec.preprocess.kind].words
        golden_of = generated if arrays is None else "arrays of the data set"
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
    if "log10_rate" not in trained.preprocess.side_inputs:
        if given is not None:
            raise ConfigurationError("export", "rates_hz", given, "none for images, which have no sample rate")
        if trained.model.encoder_args.rate_input:
            log.warning("the model could take a sample rate; with images it is exported with the rate unknown")
        return 0.0, 0.0
    if given is not None:
        return given
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
