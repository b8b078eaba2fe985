# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train import` and `export`: weights from elsewhere, bundles for the radio side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from wavesfm_core.errors import ConfigurationError

console = Console()


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint (.pth).")],
    out: Annotated[Path, typer.Argument(help="The weights file to write (.safetensors).")],
    heads: Annotated[int, typer.Option(help="Attention heads of the encoder; 0: as published for its size.")] = 0,
    pooling: Annotated[str, typer.Option(help="Of a fine-tuned head: token or avg.")] = "token",
    lora_alpha: Annotated[float, typer.Option(help="Factor on the adapters of a fine-tuned checkpoint.")] = 0.0,
    squash: Annotated[bool, typer.Option("--squash", help="A fine-tuned position ends in tanh.")] = False,
    grid: Annotated[
        str, typer.Option(help="Antennas, symbols, subcarriers of a channel estimation head.")
    ] = "16,14,48",
    decoder_heads: Annotated[int, typer.Option(help="Attention heads of the decoder, or of a block head.")] = 16,
    mask_ratio: Annotated[float, typer.Option(help="Of further pre-training.")] = 0.75,
    image: Annotated[int, typer.Option(help="Side of the tile where no table of positions tells.")] = 224,
) -> None:
    """Read a checkpoint of the paper's authors into a weights file, and say what became of every key."""
    from ..models.import_checkpoint import ImportOptions, import_checkpoint

    try:
        sizes = tuple(int(size) for size in grid.split(","))
    except ValueError:
        raise ConfigurationError("import", "--grid", grid, "antennas,symbols,subcarriers") from None
    options = ImportOptions(heads, decoder_heads, image, mask_ratio, pooling, squash, lora_alpha, sizes)
    for line in import_checkpoint(checkpoint, out, options).lines():
        console.print(line, highlight=False, soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(help="A fine-tuned run, or its weights file.")],
    bundle: Annotated[Path, typer.Argument(help="The directory to write; a model card there is kept.")],
    name: Annotated[str, typer.Option(help="Of the model; the bundle's directory name when left out.")] = "",
    precision: Annotated[str, typer.Option(help="Of the arithmetic: fp32, fp16 or bf16.")] = "fp32",
    half_weights: Annotated[bool, typer.Option(help="Store the weights in float16; arithmetic stays fp32.")] = False,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "GPL-3.0-or-later",
    training_data: Annotated[str, typer.Option(help="What it was trained on, and under which licence.")] = "",
    raw: Annotated[Path | None, typer.Option(help="Folder of raw files to take the golden arrays from.")] = None,
) -> None:
    """Write a bundle; refused unless ONNX equals torch, in every batch. LoRA adapters are merged."""
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
