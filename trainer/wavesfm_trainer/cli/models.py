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
    from ..import_authors import ImportOptions, import_checkpoint

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
    from ..import_bundle import import_bundle as read_back
    from ..tasks import read_task

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    labels = read_task(task).labels if task else ()
    console.print(f"{read_back(bundle, out, labels)}", highlight=False, soft_wrap=True)


def average(
    runs: Annotated[list[Path], typer.Argument(help="Runs that went on from the same weights.")],
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
) -> None:
    """The mean of runs that were trained side by side, as a run of its own."""
    from ..average import average_runs

    console.print(f"{average_runs(runs, out)}", highlight=False, soft_wrap=True)


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
    from ..bundles import export_run, raw_arrays
    from ..model_card import pools_of
    from ..tasks import read_task
    from ..trained import read_task_run, task_in

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trained = read_task_run(run)
    task, pools = str(trained.config.get("task") or ""), pools_of(trained)
    data = f"simulated uplink channels (3GPP TR 38.901): {pools}" if pools else ""
    data = data or f"the training part of the prepared data of task {task or 'unknown'}"
    made = export_run(
        run,
        bundle,
        name or bundle.resolve().name,
        precision,
        licence=licence,
        training_data=training_data or data,
        half_weights=half_weights,
        arrays=None if raw is None else raw_arrays(read_task(task_in(trained.config)), raw),
    )
    console.print(f"{made.id} in {made.path}", highlight=False, soft_wrap=True)
