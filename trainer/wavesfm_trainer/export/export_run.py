# SPDX-License-Identifier: GPL-3.0-or-later
"""From a fine-tuned run of any task to a bundle."""

from __future__ import annotations

import logging
from pathlib import Path

from wavesfm_core.bundle.bundle import README, Bundle, write_bundle
from wavesfm_core.bundle.golden import Golden

from ..evaluation.run_files import read_evaluation
from .export_job import ExportJob, ExportOptions
from .golden_inputs import GOLDEN_SOURCES, make_golden
from .model_card import make_card
from .onnx_model import make_onnx
from .parity import check_parity

log = logging.getLogger(__name__)


def export_run(run: Path | str, directory: Path | str, options: ExportOptions) -> Bundle:
    """Write the bundle of a fine-tuned run.

    LoRA adapters are merged. Layers that inference does not need (other channel counts' embeddings, the state of
    training) are left out. A channel estimator gets a bundle of pilot grids if its numerology is known
    (`trained_run.pilot_grids`), and one that started from covariances brings them along.

    Parameters
    ----------
    run
        Directory of the run, or its weights file.
    directory
        Directory of the bundle; a bundle that is there is replaced.
    options
        Options of the export.

    Returns
    -------
    The bundle, opened.

    Raises
    ------
    ConfigurationError, WeightsError
        See `ExportJob.resolve`.
    BundleError
        Outputs differ from torch's by more than the tolerance or depend on the batch, or no engine here runs the
        model. Nothing is written then.
    """
    job = ExportJob.resolve(run, directory, options)
    golden = make_golden(job.trained, job.spec, job.arrays)
    job = job.with_tolerance(golden)
    onnx = make_onnx(job)
    engine = check_parity(job, onnx, golden)
    log.info("%s: equal to torch within %.3g on %s", options.name, job.spec.tolerance, engine)
    return _write(job, onnx, golden, engine)


def _write(job: ExportJob, onnx: bytes, golden: Golden, engine: str) -> Bundle:
    card = job.options.card
    if card is None:
        written = job.directory / README
        card = written.read_text(encoding="utf-8") if written.is_file() else _card(job, engine)
    return write_bundle(job.directory, job.spec, onnx, golden, card, job.covariances)


def _card(job: ExportJob, engine: str) -> str:
    """The model card from the run, with its evaluation if there is one."""
    run, options = job.trained.directory, job.options
    evaluation = read_evaluation(run) if (run / "evaluation.json").is_file() else None
    arithmetic = f"{options.precision}, weights stored in float16" if options.half_weights else options.precision
    generated = GOLDEN_SOURCES[job.spec.preprocess.kind].words
    golden_of = generated if job.arrays is None else "arrays of the data set"
    return make_card(job.trained, job.task_args, job.spec, arithmetic, engine, golden_of, evaluation)
