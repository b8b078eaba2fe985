# SPDX-License-Identifier: GPL-3.0-or-later
"""A taught classifier as a bundle, and its report beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from wavesfm_core.atomic_file import write_atomically
from wavesfm_core.bundle.bundle import SPEC, Bundle
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.errors import BundleError, ConfigurationError

from ..evaluation.run_files import write_evaluation
from ..export.export_job import ExportOptions
from ..export.export_run import export_run
from ..models import registry
from ..models.run_layout import WEIGHTS
from .corrections import corrections_text
from .page import doubtful, page_text
from .teach import Taught

PAGE, CORRECTIONS = "report.html", "corrections.csv"
REPORT_SUFFIX = "-report"


def refuse_out(out: Path, report: Path | None = None) -> Path:
    """The folder of the report, if bundle and report can be written; checked before the work.

    Parameters
    ----------
    out : directory of the bundle.
    report : folder of the report; None: beside the bundle.

    Raises
    ------
    BundleError, ConfigurationError : other files are there.
    """
    if out.exists() and not (out / SPEC).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(out, "directory", "other files", "a new directory or a bundle to replace")
    folder = report or out.with_name(out.resolve().name + REPORT_SUFFIX)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(folder, "report", "a file", "a folder")
    return folder


def write_bundle_of(taught: Taught, out: Path) -> Bundle:
    """Export a taught classifier, whole or not at all; returns the bundle, opened.

    Raises
    ------
    BundleError : see `export_run`.
    """
    extra = {"head": to_dict(taught.head), "preprocess": to_dict(taught.spec), "rates_hz": list(rates_of(taught))}
    boxes = taught.collected.boxes
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch)
        registry.save(run / WEIGHTS, taught.model, extra)
        if taught.verdicts:
            labels = taught.head.labels
            arrays = {
                "target": np.array([labels.index(each.label) for each in taught.verdicts]),
                "logits": np.log(np.stack([each.probabilities for each in taught.verdicts]) + 1e-12).astype(np.float32),
                "group": np.array([boxes[each.box].group for each in taught.verdicts]),
            }
            write_evaluation(run, "classification", "taught", "held-back", arrays, labels)
        options = ExportOptions(
            taught.options.name or out.resolve().name,
            half_weights=True,
            licence=taught.options.licence,
            training_data=described(taught),
        )
        return export_run(run, out, options)


def rates_of(taught: Taught) -> tuple[float, float]:
    """Lowest and highest sample rate of the views, and of the start if that is extended; 0 and 0 if unknown."""
    known = taught.views.log10_rate[taught.views.log10_rate > 0]
    rates = [float(10 ** known.min()), float(10 ** known.max())] if len(known) else []
    if taught.options.extend:
        rates += [rate for rate in taught.start.rates_hz if rate > 0]
    return (min(rates), max(rates)) if rates else (0.0, 0.0)


def described(taught: Taught) -> str:
    """The training data in a sentence, for the bundle; no paths."""
    boxes = taught.collected.boxes
    labels = ", ".join(f"{name} ({sum(box.label == name for box in boxes)})" for name in taught.collected.labels)
    more = " and generated signals" if taught.options.unknown or taught.options.extend else ""
    return (
        f"{len(boxes)} labelled boxes of {len(taught.collected.files)} recordings of the user{more}; boxes by label: "
        f"{labels}. Encoder: {taught.start.name}"
    )


def write_report(taught: Taught, bundle: Bundle, folder: Path, seconds: float) -> Path:
    """Write the page and the table of doubtful boxes, each whole; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    doubts = doubtful(taught)
    write_atomically(folder / CORRECTIONS, corrections_text(taught.collected.boxes, doubts))
    write_atomically(folder / PAGE, page_text(taught, bundle, doubts, CORRECTIONS, seconds))
    return folder / PAGE
