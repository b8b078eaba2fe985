# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train data`: generate raw files, read and prepare them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from wavesfm_core.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Generate, prepare and look at data sets.")
console = Console()


@app.command()
def generate(
    name: Annotated[str, typer.Argument(help="A layout, as `data layouts` lists them.")],
    directory: Annotated[Path, typer.Argument(help="The folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of examples.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Write generated examples in the raw layout of a published data set."""
    from ..data.generators import generator

    generator(name)(directory, count, seed)
    console.print(f"{count} examples of {name} in {directory}", highlight=False)


@app.command()
def layouts() -> None:
    """List the tasks, the layout that each reads, and what can be generated."""
    from ..data.generators import GENERATORS
    from ..data.tasks import read_task, task_names

    table = Table("task", "kind", "layout", "generated", "description")
    for name in task_names():
        task = read_task(name)
        generated = task.reader if task.reader in GENERATORS else {"rfs": "rfs_captures"}.get(task.reader, "")
        table.add_row(name, task.kind, task.reader, generated, task.description)
    console.print(table)


@app.command()
def prepare(
    task: Annotated[str, typer.Argument(help="A task's name or file.")],
    root: Annotated[Path, typer.Argument(help="Folder of the raw files.")],
    out: Annotated[Path, typer.Argument(help="The cache to write, TASK.h5.")],
    split: Annotated[str | None, typer.Option(help="published, random or group; default: the task's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Most examples to use, evenly spaced over all.")] = None,
    reader: Annotated[str | None, typer.Option(help="Another layout, e.g. authors_cache for the authors' .h5.")] = None,
) -> None:
    """Read a data set, split it, take statistics of the training part, and write one prepared file."""
    from ..data.prepare import prepare_dataset

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(out.parent, "folder", error.strerror or error, "one that can be made") from None
    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        line = bar.add_task(task)

        def advance(done: int, total: int) -> None:
            bar.update(line, completed=done, total=total)

        note = prepare_dataset(task, root, out, split, seed, limit, advance, reader)
    sizes = note["split"].get("sizes", {})
    console.print(f"{out}: {note['split']['method']} split, {sizes}", highlight=False)


@app.command()
def info(cache: Annotated[Path, typer.Argument(help="A prepared file.")]) -> None:
    """Print the record of a prepared file."""
    import json

    from ..data.cache import read_note

    console.print_json(json.dumps(read_note(cache)))
