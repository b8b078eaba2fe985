# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train evaluate`, `compare-channels`, `report` and `bench`: results."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from wavesfm_core.atomic_file import write_atomically
from wavesfm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from wavesfm_core.pipeline import Pipeline

console = Console()


def evaluate(
    model: Annotated[Path, typer.Argument(help="A run directory, or a bundle for --tiles and --manifest.")],
    data: Annotated[Path | None, typer.Option(help="Folder with TASK.h5, or one prepared file.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; default: test, or validation of a pre-training.")
    ] = None,
    tiles: Annotated[Path | None, typer.Option(help="Held-out tiles of the signal generator.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="manifest.csv of real recordings.")] = None,
    device: Annotated[str, typer.Option(help="Device of torch for a run, of an engine for a bundle.")] = "cpu",
    max_tiles: Annotated[int | None, typer.Option(help="Use the first tiles only, as many as this.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures on tiles and recordings.")] = None,
) -> None:
    """Figures of merit on held-out data, written into the run; for rf20 also on tiles and on real recordings."""
    if data is None and tiles is None and manifest is None:
        raise ConfigurationError("evaluate", "--data, --tiles, --manifest", "none", "one or more")
    if output is not None and tiles is None and manifest is None:
        expected = "none with --data alone, whose figures go into evaluation.json of the run"
        raise ConfigurationError("evaluate", "--output", output, expected)
    if data is not None:
        _evaluate_split(model, data, split, device)
    if tiles is None and manifest is None:
        return
    from ..evaluation.torch_engine import open_pipeline

    pipeline = open_pipeline(model, device)
    report: dict[str, Any] = {"model": pipeline.bundle.id, "engine": pipeline.engine.description}
    if tiles is not None:
        report["synthetic"] = _evaluate_tiles(pipeline, tiles, max_tiles)
    if manifest is not None:
        report["recordings"] = _evaluate_recordings(pipeline, manifest)
    if output is not None:
        write_atomically(output, json.dumps(report, indent=1) + "\n")


def evaluate_open(
    model: Annotated[Path, typer.Argument(help="A run directory or a bundle whose labels have unknown among them.")],
    tiles: Annotated[list[Path] | None, typer.Option(help="Held-back tiles of views; may be repeated.")] = None,
    known: Annotated[Path | None, typer.Option(help="Held-back tiles of the classes, for --held-out.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Tiles of families that training never saw.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="manifest.csv of real recordings.")] = None,
    device: Annotated[str, typer.Option(help="Of torch for a run, an engine for a bundle.")] = "cpu",
    max_tiles: int | None = None,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """How well a model names zoomed views and tells what it does not know; whole and zoomed views of recordings."""
    from ..evaluation.open_report import held_out_report, recordings_report, views_report
    from ..evaluation.torch_engine import open_pipeline

    if (known is None) != (held_out is None):
        raise ConfigurationError("evaluate-open", "--known, --held-out", "one of them", "both or none")
    pipeline = open_pipeline(model, device)
    report: dict[str, Any] = {"model": pipeline.bundle.id, "engine": pipeline.engine.description}
    report["views"] = {path.name: views_report(pipeline, path, max_tiles) for path in tiles or []}
    if known is not None and held_out is not None:
        report["held_out"] = held_out_report(pipeline, known, held_out, max_tiles)
    if manifest is not None:
        report["recordings"] = recordings_report(pipeline, manifest)
    console.print_json(json.dumps(report))
    if output is not None:
        write_atomically(output, json.dumps(report, indent=1) + "\n")


def evaluate_scenes(
    model: Annotated[Path, typer.Argument(help="A run directory or a bundle.")],
    first: Annotated[int, typer.Option(help="Seed of the first scene.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Scenes, of the seeds that follow.")] = 4,
    device: Annotated[str, typer.Option(help="Of torch for a run, an engine for a bundle.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Search generated scenes of ten signals in 20 MS/s: counts, and mean average precision beside a plain detector."""
    from ..evaluation.scene_precision import scenes_report
    from ..evaluation.torch_engine import open_pipeline

    pipeline = open_pipeline(model, device)
    report: dict[str, Any] = {"model": pipeline.bundle.id, "engine": pipeline.engine.description, "first": first}
    report |= scenes_report(pipeline, range(first, first + count))
    console.print_json(json.dumps(report))
    if output is not None:
        write_atomically(output, json.dumps(report, indent=1) + "\n")


def calibrate(
    run: Annotated[Path, typer.Argument(help="A fine-tuned run, whose head is changed.")],
    tiles: Annotated[Path, typer.Argument(help="Validation tiles, on which nothing was trained.")],
    rejected: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of known signals that may be rejected.")
    ] = 0.05,
    max_tiles: int | None = None,
) -> None:
    """Choose temperature and unknown_from of a classifier's head, and write them into the run's weights file."""
    from ..evaluation.calibrate import calibrate_run

    made = calibrate_run(run, tiles, rejected, max_tiles)
    table = Table("calibration", "")
    for name, value in vars(made).items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)


def _evaluate_split(run: Path, data: Path, split: str | None, device: str) -> None:
    """Evaluate a run, or every run below a folder."""
    from ..evaluation.evaluate_run import evaluate_run
    from ..models.run_layout import WEIGHTS
    from ..training.run_data import find_test_cache

    runs = [run] if run.is_file() or (run / WEIGHTS).is_file() else sorted(path.parent for path in run.rglob(WEIGHTS))
    if not runs:
        raise ConfigurationError(run, "run", "nothing", "a run directory, a folder of them, or a weights file")
    for one in runs:
        cache, part = find_test_cache(data, one)
        evaluation = evaluate_run(one, cache, split or part, device)
        table = Table(f"{one}, {evaluation.split} split of {evaluation.task}", f"{evaluation.n_samples} samples")
        for name, value in evaluation.metrics.items():
            table.add_row(name, f"{value:.4g}")
        if evaluation.interval:
            table.add_row(
                f"{evaluation.headline}, 95 % interval", f"{evaluation.interval[0]:.4g} to {evaluation.interval[1]:.4g}"
            )
        console.print(table)


def _evaluate_tiles(pipeline: Pipeline, directory: Path, max_tiles: int | None) -> dict[str, Any]:
    from ..evaluation.evaluate_tiles import tile_report
    from ..evaluation.metrics import format_confusion

    report = tile_report(pipeline, directory, max_tiles)
    console.print_json(json.dumps({name: value for name, value in report.items() if name != "confusion_10db"}))
    _print_wide(format_confusion(np.array(report["confusion_10db"]), pipeline.bundle.spec.head.labels))
    return report


def _evaluate_recordings(pipeline: Pipeline, manifest: Path) -> dict[str, Any]:
    from wavesfm_core.types import UNKNOWN

    from ..evaluation.evaluate_recordings import OPEN_TASK_FILE, TASK_FILE, judge, read_manifest, recordings_report
    from ..evaluation.metrics import format_confusion

    labels = pipeline.bundle.spec.head.labels
    rows = read_manifest(manifest, OPEN_TASK_FILE if UNKNOWN in labels else TASK_FILE)
    report = recordings_report([judge(pipeline, row) for row in rows], labels, manifest.parent)
    table = Table("recording", "MS/s", "label", "found", "p", "tiles", "gated", "trained on")
    for entry in report["files"]:
        style = "" if entry["right"] else "red"
        table.add_row(*(str(value) for name, value in entry.items() if name != "right"), style=style)
    console.print(table)
    _print_wide(format_confusion(np.array(report["confusion"]), labels))
    console.print(f"accuracy by recording, mean over classes: {report['mean_class_accuracy']:.3f} {report['classes']}")
    right, count = report["trained_on_right"]
    if count:
        console.print(f"not in it, because training tiles were made of them: {right} of {count} recordings right")
    return report


def _print_wide(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def report(
    directory: Annotated[Path, typer.Argument(help="Folder with the runs of a study.")],
    page: Annotated[Path | None, typer.Option(help="HTML file; default: report.html in the folder.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for every figure as PDF.")] = None,
) -> None:
    """Gather the runs below a folder into one page with tables and figures."""
    from ..report.html_report import write_report

    console.print(write_report(directory, page, figures), highlight=False, soft_wrap=True)


def compare_channels(
    pools: Annotated[list[Path], typer.Argument(help="Files of `data channels`: unseen slots, then other scenarios.")],
    model: Annotated[list[str], typer.Option(help="NAME=PATH of a run or a bundle; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.json, .csv and the figures.")],
    covariances: Annotated[
        Path | None, typer.Option(help="File of `data covariances`; default: those of the first model that has any.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Slots of each pool; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and noise.")] = 0,
    device: Annotated[str, typer.Option(help="Device of torch for a run, of an engine for a bundle.")] = "auto",
) -> None:
    """NMSE over SNR of least squares, LMMSE and models, on the same slots."""
    from wavesfm_core.bundle.covariance import Covariances

    from ..data.channel_pool import ChannelPool
    from ..evaluation.compare_estimators import compare, write_comparison
    from ..evaluation.torch_engine import open_channel_pipeline
    from ..evaluation.trained_run import covariances_of
    from ..report.comparison import write_comparison_figures
    from ..report.tables import channel_table

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    paths = dict(_named(one) for one in model)
    if len(paths) != len(model):
        raise ConfigurationError("compare-channels", "--model", ", ".join(model), "different names")
    known = covariances_of(paths.values()) if covariances is None else Covariances.load(covariances)
    models = {name: open_channel_pipeline(path, device) for name, path in paths.items()}
    compared = compare([ChannelPool(path) for path in pools], models, known, count, seed)
    for path in (*write_comparison(out, compared), *write_comparison_figures(out, compared[0])):
        console.print(path, highlight=False, soft_wrap=True)
    for table in map(channel_table, compared):
        shown = Table(*table.columns, title=f"{table.title}: {table.heads[1][0]}", caption=" ".join(table.notes))
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigurationError("compare-channels", "--model", repr(text), "NAME=PATH")
    return name, Path(path)


def bench(
    seconds: Annotated[float, typer.Option(min=0.1, help="Approximate duration.")] = 120.0,
    size: Annotated[str, typer.Option(help="nano, small, paper")] = "nano",
    batch: Annotated[int, typer.Option(min=1, help="Samples of a step.")] = 32,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each side.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
) -> None:
    """Samples per second of pre-training and of each fine-tuning, against a plain loop measured in the same run."""
    from ..benchmarks.training_speed import as_json, format_rows, run_bench

    rows = run_bench(seconds, size=size, batch=batch, device=device, repeats=repeats)
    _print_wide(format_rows(rows))
    if output is not None:
        write_atomically(output, json.dumps(as_json(rows), indent=1) + "\n")
