# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train teach`: a user's own labels to a bundle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from wavesfm_core.errors import ConfigurationError

from .field_help import field_help

if TYPE_CHECKING:
    from ..teaching.teach import Taught

console = Console()


def _help(field: str) -> str:
    return field_help("teaching.options", "TeachOptions", field)


def teach(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of SigMF recordings with labelled annotations, folder with a folder of recordings for each "
            "label, or .csv table (file, label and any of start, count, low_hz, high_hz, group, split)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the bundle.")],
    start: Annotated[
        Path | None, typer.Option("--from", help="Bundle, run or weights file whose encoder is used.")
    ] = None,
    extend: Annotated[Path | None, typer.Option(help="Bundle whose labels are kept; it is the start then.")] = None,
    method: Annotated[str, typer.Option(help=_help("method"))] = "head",
    unknown: Annotated[bool, typer.Option(help=_help("unknown"))] = True,
    views: Annotated[int, typer.Option(help=_help("views"))] = 8,
    seed: Annotated[int, typer.Option(help=_help("seed"))] = 0,
    name: Annotated[str, typer.Option(help=_help("name"))] = "",
    licence: Annotated[str, typer.Option(help=_help("licence"))] = "not stated",
    corrections: Annotated[Path | None, typer.Option(help=_help("corrections"))] = None,
    report: Annotated[Path | None, typer.Option(help=_help("report"))] = None,
) -> None:
    """Teach a classifier your own labels, judge it on recordings that were held back, and write its bundle."""
    from ..teaching.options import TeachOptions
    from ..teaching.teach import teach as learn
    from ..teaching.write import refuse_out, write_bundle_of, write_report

    if (start is None) == (extend is None):
        found = "both" if start else "neither"
        raise ConfigurationError("teach", "--from, --extend", found, "one of them: what is started from")
    logging.getLogger("wavesfm_trainer").setLevel(logging.WARNING)
    began = time.monotonic()
    folder_of_report = refuse_out(out, report)
    options = TeachOptions(method, extend is not None, unknown, views, seed, name, licence, corrections)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        taught = learn(folder, extend or start, options, _Bars(bar))  # type: ignore[arg-type]
        with _Bars(bar).step("writing the bundle", 1) as advance:
            bundle = write_bundle_of(taught, out)
            advance(1)
    seconds = time.monotonic() - began
    page = write_report(taught, bundle, folder_of_report, seconds)
    _print(taught)
    console.print(f"{bundle.id} in {out}, {seconds:.0f} s; report: {page}", highlight=False, soft_wrap=True)


class _Bars:
    """Steps as bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def step(self, words: str, total: int) -> Iterator[Callable[[int], None]]:
        """One bar."""
        task = self._progress.add_task(words, total=total)
        yield lambda done: self._progress.advance(task, done)


def _print(taught: Taught) -> None:
    """Figures of the boxes and recordings that were held back."""
    from ..teaching.verdicts import accuracy

    table = Table("label", "boxes", "judged", "right", title="boxes that were held back")
    for label in taught.collected.labels:
        mine = [each for each in taught.verdicts if each.label == label]
        n_boxes = sum(box.label == label for box in taught.collected.boxes)
        table.add_row(label, str(n_boxes), str(len(mine)), str(sum(each.right for each in mine)))
    console.print(table)
    for note in (taught.folds.words, *taught.collected.notes):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"accuracy by box {accuracy(taught.verdicts):.3f}, by recording {accuracy(taught.recordings):.3f}")
    if (old := taught.old) is not None:
        console.print(f"known labels, {old.n_tiles} generated tiles: {old.before:.3f} before, {old.after:.3f} after")
