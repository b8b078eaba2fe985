# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train tiles` and `geometry`: spectrogram tiles of the signal generator."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError

console = Console()


def tiles(
    directory: Annotated[Path, typer.Argument(help="The folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of tiles.")] = 20000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator; training and test need different ones.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    first_shard: Annotated[int, typer.Option(min=0, help="Number of the first shard.")] = 0,
    drawn: Annotated[str, typer.Option(help="Classes that take turns, as a,b,...; default: all.")] = "",
    views: Annotated[
        str,
        typer.Option(help="bands: the 20 classes in whole bands; mixed, whole, zoom, held-out: unknown signals too."),
    ] = "bands",
) -> None:
    """Generate prepared tiles of the signal generator. A stopped command is resumed."""
    from ..data.tile_dataset import write_shards
    from ..signals.dataset import SignalDataset
    from ..signals.views import ALL_LABELS, view_dataset

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = SpectrogramSpec()
    turns = tuple(drawn.split(",")) if drawn else ()
    if unknown := set(turns) - set(ALL_LABELS):
        raise InputError("tiles", "--drawn", ", ".join(sorted(unknown)), f"some of {', '.join(ALL_LABELS)}")
    if views == "bands":
        dataset = SignalDataset(seed, spec.tile_samples, spec.min_samples, drawn=turns)
    else:
        try:
            dataset = view_dataset(views, seed, spec.tile_samples, spec.min_samples, turns)
        except ValueError as error:
            raise InputError("tiles", "--views", repr(views), f"bands, or another name ({error})") from None
    write_shards(directory, dataset, spec, count, workers, first_shard)


def scene_tiles(
    directory: Annotated[Path, typer.Argument(help="The folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of tiles.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes; training and test need different ones.")] = 1,
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest.csv of real recordings; the scenes hold those that rf20-open trains on."),
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Whole bands of the recordings alone, no scenes.")] = False,
) -> None:
    """Prepared tiles as the search of a band makes them, from scenes of several signals side by side."""
    from ..evaluation.evaluate_recordings import OPEN_TASK_FILE, read_manifest
    from ..evaluation.real_sources import real_sources
    from ..evaluation.scene_tiles import SceneTiles, write_scene_shards, write_whole_shards

    spec = SpectrogramSpec()
    rows = read_manifest(manifest, OPEN_TASK_FILE) if manifest else []
    sources = real_sources([row for row in rows if row.trained_on])
    if whole:
        write_whole_shards(directory, seed, spec, sources, count)
    else:
        write_scene_shards(directory, SceneTiles(seed, spec, sources), count)
    console.print(directory, highlight=False, soft_wrap=True)


def geometry(
    train_count: Annotated[int, typer.Option(min=32, help="Recordings to train on.")] = 2000,
    test_count: Annotated[int, typer.Option(min=1, help="Recordings held out.")] = 1000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the small network.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of recordings and training.")] = 11,
) -> None:
    """Compare tile geometries with a small network on the same recordings."""
    from ..benchmarks.tile_geometry import compare

    table = Table("geometry", "mean class accuracy")
    for name, accuracy in compare(train_count, test_count, epochs, seed).items():
        table.add_row(name, f"{accuracy:.3f}")
    console.print(table)
