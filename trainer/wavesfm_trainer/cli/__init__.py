"""The `wavesfm-train` command."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from wavesfm_core.errors import ConfigurationError, InputError, WavesfmError
from wavesfm_core.spec import SpectrogramSpec

from . import data, learning

if TYPE_CHECKING:
    from wavesfm_core.pipeline import Pipeline

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and export WavesFM models.",
)
console = Console()
app.add_typer(data.app, name="data")
app.command()(learning.pretrain)
app.command()(learning.finetune)


@app.command()
def tiles(
    directory: Path,
    count: Annotated[int, typer.Option(min=1, help="Tiles to make.")] = 20000,
    seed: Annotated[int, typer.Option(help="Of the generator; train and test need different ones.")] = 1,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    first_shard: Annotated[int, typer.Option(min=0)] = 0,
    drawn: Annotated[str, typer.Option(help="Classes that take turns, as a,b,...; all when empty.")] = "",
) -> None:
    """Make prepared tiles of the signal generator and cache them; resumes."""
    from ..signals import LABELS
    from ..signals.dataset import SignalDataset
    from ..tiles import write_cache

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = SpectrogramSpec()
    turns = tuple(drawn.split(",")) if drawn else ()
    if unknown := set(turns) - set(LABELS):
        raise InputError("tiles", "--drawn", ", ".join(sorted(unknown)), f"some of {', '.join(LABELS)}")
    dataset = SignalDataset(seed, spec.tile_samples, spec.min_samples, drawn=turns)
    write_cache(directory, dataset, spec, count, workers, first_shard)


@app.command()
def train(
    cache: Path,
    validation: Path,
    run: Path,
    size: str = "nano",
    steps: int = 10000,
    minutes: float = 1e9,
    batch: int = 64,
    lr: float = 1e-3,
    keep: Annotated[str, typer.Option(help="Stages as until:share,... of patches kept.")] = "0.75:0.25,0.93:0.5,1:1",
    start_from: Path | None = None,
    seed: int = 1,
    processes: Annotated[int, typer.Option(help="On this machine's CPU; set OMP_NUM_THREADS=1 with it.")] = 1,
) -> None:
    """Train a ViT on cached tiles."""
    from ..training import TrainArgs
    from ..training import train as run_training

    try:
        stages = tuple((float(until), float(share)) for until, share in (s.split(":") for s in keep.split(",")))
    except ValueError:
        raise ConfigurationError("train", "--keep", keep, "stages as until:share,until:share") from None
    args = TrainArgs(
        size=size,
        max_steps=steps,
        max_minutes=minutes,
        batch_size=batch,
        lr=lr,
        keep=stages,
        seed=seed,
        processes=processes,
    )
    run_training(cache, validation, run, args, start_from)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run, or a bundle.")],
    cache: Annotated[Path | None, typer.Option(help="Held-back tiles.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="manifest.csv of real recordings.")] = None,
    device: Annotated[str, typer.Option(help="Engine for a bundle.")] = "onnxruntime",
    max_tiles: int | None = None,
    output: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
) -> None:
    """Accuracy and confusion on held-back tiles and on real recordings, of a run or of a bundle."""
    from wavesfm_core.bundle import SPEC
    from wavesfm_core.pipeline import Pipeline

    from ..export import run_pipeline

    is_bundle = (model / SPEC).is_file()
    pipeline = Pipeline.open(model, device=device) if is_bundle else run_pipeline(model)
    report = {"model": pipeline.bundle.id, "engine": pipeline.engine.description}
    if cache is not None:
        report["synthetic"] = _evaluate_tiles(pipeline, cache, max_tiles)
    if manifest is not None:
        report["recordings"] = _evaluate_recordings(pipeline, manifest)
    if output is not None:
        output.write_text(json.dumps(report, indent=1) + "\n")


def _evaluate_tiles(pipeline: Pipeline, cache: Path, max_tiles: int | None) -> dict[str, Any]:
    from ..evaluation import predict_tiles, synthetic_report
    from ..metrics import format_confusion
    from ..tiles import read_cache, read_note

    spec, labels = pipeline.bundle.spec.preprocess, pipeline.bundle.spec.head.labels
    if (found := read_note(cache)["labels"]) != list(labels):
        raise InputError(cache, "labels", found, f"{list(labels)}, the model's")
    held_back = read_cache(cache, max_tiles)
    report = synthetic_report(predict_tiles(pipeline.engine, held_back, spec), held_back, labels, spec.rows_per_tile)
    console.print_json(json.dumps({name: value for name, value in report.items() if name != "confusion_10db"}))
    _print_wide(format_confusion(np.array(report["confusion_10db"]), labels))
    return report


def _evaluate_recordings(pipeline: Pipeline, manifest: Path) -> dict[str, Any]:
    from wavesfm_core.types import NO_SIGNAL

    from ..metrics import format_confusion
    from ..recordings import judge, read_manifest, recordings_report

    labels = pipeline.bundle.spec.head.labels
    report = recordings_report([judge(pipeline, row) for row in read_manifest(manifest)], labels, manifest.parent)
    table = Table("recording", "MS/s", "label", "found", "p", "tiles", "gated")
    for entry in report["files"]:
        style = "" if entry["right"] else "red"
        table.add_row(*(str(value) for name, value in entry.items() if name != "right"), style=style)
    console.print(table)
    _print_wide(format_confusion(np.array(report["confusion"]), (*labels, NO_SIGNAL)))
    console.print(f"accuracy by recording, mean over classes: {report['mean_class_accuracy']:.3f} {report['classes']}")
    return report


def _print_wide(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


@app.command()
def geometry(
    train_count: Annotated[int, typer.Option(min=32, help="Recordings to learn from.")] = 2000,
    test_count: Annotated[int, typer.Option(min=1, help="Recordings held back.")] = 1000,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seed: int = 11,
) -> None:
    """Compare tile geometries with a small network on the same recordings."""
    from ..geometry import compare

    table = Table("geometry", "mean class accuracy")
    for name, accuracy in compare(train_count, test_count, epochs, seed).items():
        table.add_row(name, f"{accuracy:.3f}")
    console.print(table)


@app.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint (.pth).")],
    out: Annotated[Path, typer.Argument(help="The weights file to write (.safetensors).")],
    heads: Annotated[int, typer.Option(help="Attention heads of the encoder; 0: as published for its size.")] = 0,
    pooling: Annotated[str, typer.Option(help="Of a fine-tuned head: token or avg.")] = "token",
    lora_alpha: Annotated[float, typer.Option(help="Factor on the adapters of a fine-tuned checkpoint.")] = 0.0,
) -> None:
    """Read a checkpoint of the paper's authors into a weights file, and say what became of every key."""
    from ..import_authors import ImportOptions, import_checkpoint

    options = ImportOptions(heads=heads, pooling=pooling, lora_alpha=lora_alpha)
    for line in import_checkpoint(checkpoint, out, options).lines():
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Folder with the runs of a study.")],
    page: Annotated[Path | None, typer.Option(help="HTML file; report.html in the folder when left out.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for every figure as PDF.")] = None,
) -> None:
    """Gather the runs below a folder into one page with tables and figures."""
    from ..report import write_report

    console.print(write_report(directory, page, figures), highlight=False, soft_wrap=True)


@app.command()
def export(
    run: Path,
    bundle: Path,
    name: str = "rf20-nano",
    training_data: Annotated[str, typer.Option(help="For bundle.json, where the run's seed does not say all.")] = "",
) -> None:
    """Write a bundle; refused unless ONNX equals torch and batch 1 equals batch N. A model card there is kept."""
    from ..export import export_bundle

    made = export_bundle(run, bundle, name, training_data)
    console.print(f"{made.id} in {made.path}", highlight=False)


def main() -> None:
    """Entry point: one sentence and exit code 2 for what the user can mend."""
    try:
        app()
    except WavesfmError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
