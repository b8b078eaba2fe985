"""`wavesfm-train tiles` and `geometry`: spectrogram tiles of the signal generator."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from wavesfm_core.errors import InputError
from wavesfm_core.spec import SpectrogramSpec

console = Console()


def tiles(
    directory: Path,
    count: Annotated[int, typer.Option(min=1, help="Tiles to make.")] = 20000,
    seed: Annotated[int, typer.Option(min=0, help="Of the generator; train and test need different ones.")] = 1,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    first_shard: Annotated[int, typer.Option(min=0)] = 0,
    drawn: Annotated[str, typer.Option(help="Classes that take turns, as a,b,...; all when empty.")] = "",
    views: Annotated[
        str, typer.Option(help="bands: of the 20 classes; mixed, whole, zoom, held-out: also of unknown signals.")
    ] = "bands",
) -> None:
    """Make prepared tiles of the signal generator and cache them; resumes."""
    from ..signals.dataset import SignalDataset
    from ..signals.views import ALL_LABELS, view_dataset
    from ..tiles import write_cache

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = SpectrogramSpec()
    turns = tuple(drawn.split(",")) if drawn else ()
    if unknown := set(turns) - set(ALL_LABELS):
        raise InputError("tiles", "--drawn", ", ".join(sorted(unknown)), f"some of {', '.join(ALL_LABELS)}")
    if views == "bands":
        dataset = SignalDataset(seed, spec.tile_samples, spec.min_samples, drawn=turns)
    else:
        dataset = view_dataset(views, seed, spec.tile_samples, spec.min_samples, turns)
    write_cache(directory, dataset, spec, count, workers, first_shard)


def geometry(
    train_count: Annotated[int, typer.Option(min=32, help="Recordings to learn from.")] = 2000,
    test_count: Annotated[int, typer.Option(min=1, help="Recordings held back.")] = 1000,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 11,
) -> None:
    """Compare tile geometries with a small network on the same recordings."""
    from ..geometry import compare

    table = Table("geometry", "mean class accuracy")
    for name, accuracy in compare(train_count, test_count, epochs, seed).items():
        table.add_row(name, f"{accuracy:.3f}")
    console.print(table)
