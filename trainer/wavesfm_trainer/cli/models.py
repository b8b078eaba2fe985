# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train import` and `export`: weights of other projects, and bundles for the radio side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from wavesfm_core.errors import ConfigurationError

from .field_help import field_help

console = Console()


def _imported(field: str) -> str:
    return field_help("models.import_checkpoint", "ImportOptions", field)


def _exported(field: str) -> str:
    return field_help("export.export_job", "ExportOptions", field)


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint (.pth).")],
    out: Annotated[Path, typer.Argument(help="The weights file to write (.safetensors).")],
    heads: Annotated[int, typer.Option(help=_imported("heads"))] = 0,
    pooling: Annotated[str, typer.Option(help=_imported("pooling"))] = "token",
    lora_alpha: Annotated[float, typer.Option(help=_imported("lora_alpha"))] = 0.0,
    squash: Annotated[bool, typer.Option("--squash", help=_imported("squash"))] = False,
    grid: Annotated[str, typer.Option(help=_imported("grid"))] = "16,14,48",
    decoder_heads: Annotated[int, typer.Option(help=_imported("decoder_heads"))] = 16,
    mask_ratio: Annotated[float, typer.Option(help=_imported("mask_ratio"))] = 0.75,
    image: Annotated[int, typer.Option(help=_imported("image"))] = 224,
) -> None:
    """Convert a checkpoint of the paper's authors to a weights file, and list what became of every key."""
    from ..models.import_checkpoint import ImportOptions, import_checkpoint

    try:
        sizes = tuple(int(size) for size in grid.split(","))
    except ValueError:
        raise ConfigurationError("import", "--grid", grid, "antennas,symbols,subcarriers") from None
    options = ImportOptions(heads, decoder_heads, image, mask_ratio, pooling, squash, lora_alpha, sizes)
    for line in import_checkpoint(checkpoint, out, options).lines():
        console.print(line, highlight=False, soft_wrap=True)


def import_bundle(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a classifier that `export` wrote.")],
    out: Annotated[Path, typer.Argument(help="The weights file to write (.safetensors).")],
    task: Annotated[str, typer.Option(help="Task whose labels the head gets; the bundle's own when left out.")] = "",
) -> None:
    """Read a bundle's weights back, to fine-tune from; refused unless torch gives the bundle's golden outputs."""
    from ..data.tasks import read_task
    from ..export.import_bundle import import_bundle as read_back

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    labels = read_task(task).labels if task else ()
    console.print(f"{read_back(bundle, out, labels)}", highlight=False, soft_wrap=True)


def average(
    runs: Annotated[list[Path], typer.Argument(help="Runs that went on from the same weights.")],
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
) -> None:
    """The mean of runs that were trained side by side, as a run of its own."""
    from ..evaluation.average import average_runs

    console.print(f"{average_runs(runs, out)}", highlight=False, soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(help="A fine-tuned run, or its weights file.")],
    bundle: Annotated[Path, typer.Argument(help="The directory to write; a model card there is kept.")],
    name: Annotated[str, typer.Option(help=_exported("name") + " Default: the bundle's directory name.")] = "",
    precision: Annotated[str, typer.Option(help=_exported("precision"))] = "fp32",
    half_weights: Annotated[bool, typer.Option(help=_exported("half_weights"))] = False,
    licence: Annotated[str, typer.Option(help=_exported("licence"))] = "GPL-3.0-or-later",
    training_data: Annotated[str, typer.Option(help=_exported("training_data"))] = "",
    raw: Annotated[Path | None, typer.Option(help=_exported("raw"))] = None,
) -> None:
    """Write a bundle; refused unless ONNX equals torch for every batch size. LoRA adapters are merged."""
    from ..export.export_job import ExportOptions
    from ..export.export_run import export_run

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = ExportOptions(
        name=name or bundle.resolve().name,
        precision=precision,
        half_weights=half_weights,
        licence=licence,
        training_data=training_data or None,
        raw=raw,
    )
    written = export_run(run, bundle, options)
    console.print(f"{written.id} in {written.path}", highlight=False, soft_wrap=True)
