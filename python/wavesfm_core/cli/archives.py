# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm classify` and `annotate` of many recordings by several processes: progress and summary."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..archive.job import ArchiveJob, Reading
from ..archive.processes import ProcessCrew
from ..archive.results import DONE, RecordingResult, opened_results, record_path
from ..archive.schedule import ArchiveSummary, Crew, run_archive
from ..bundle.bundle import Bundle
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError
from .json_output import json_lines
from .tables import show_notes

SHOWN = 40
"""Most failures that are listed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@dataclass(frozen=True)
class ArchiveOptions:
    """Options on how recordings are shared out; raises ConfigurationError where they contradict each other."""

    workers: int | None
    """Processes, or recordings at once in a cluster."""
    ray: str | None
    """Address of a Ray cluster."""
    results: Path | None
    """Folder of the results."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigurationError("command line", "--workers", self.workers, "1 or more")
        if self.results is None and (self.workers is not None or self.ray is not None):
            option = "--workers" if self.ray is None else "--ray"
            raise ConfigurationError("command line", option, "no --results", "a folder for the results")

    @property
    def wanted(self) -> bool:
        """Whether the recordings are an archive."""
        return self.results is not None

    def job(
        self, action: str, model: Path, reading: Reading, threads: int, annotations: Path | None = None, **options: Any
    ) -> ArchiveJob:
        """The job; options: further fields of ArchiveJob.

        Raises BundleError for a wrong bundle, and ConfigurationError for one that takes no IQ.
        """
        bundle = Bundle.open(model)
        bundle.preprocess_as(SpectrogramSpec, "IQ is to be read")
        assert self.results is not None
        return ArchiveJob(
            action,
            model.absolute(),
            bundle.id,
            self.results.absolute(),
            reading,
            threads=threads or max(1, (os.cpu_count() or 1) // (self.workers or 1)),
            annotations=annotations,
            **options,
        )

    def crew(self, job: ArchiveJob) -> Crew:
        """The workers."""
        if self.ray is None:
            return ProcessCrew(job, self.workers or 1)
        from ..archive.ray_cluster import RayCrew

        return RayCrew(job, self.ray, self.workers or 0)


def archive(
    job: ArchiveJob,
    options: ArchiveOptions,
    paths: Sequence[str | Path],
    console: Console,
    json_path: str | None = None,
) -> None:
    """Do the job and print its summary; raises typer.Exit where recordings failed or it was interrupted."""
    _check_names(job, paths)
    results: list[RecordingResult] = []
    try:
        with opened_results(job), closing(options.crew(job)) as crew, _progress(console, len(set(paths))) as advance:

            def take(result: RecordingResult) -> None:
                results.append(result)
                advance(result)

            summary = run_archive(job, paths, crew, take)
    except KeyboardInterrupt:
        done = sum(result.state == DONE for result in results)
        console.print(f"interrupted with {done} recordings done: the same command goes on there", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    _write_predictions(job, paths, json_path)
    _show(summary, job, console)
    if summary.failed:
        raise typer.Exit(2)


def _check_names(job: ArchiveJob, paths: Sequence[str | Path]) -> None:
    """Refuse recordings whose annotations would be written over each other."""
    if job.annotations is None:
        return
    if not job.annotations.is_dir():
        raise ConfigurationError("command line", "--output", str(job.annotations), "a folder, for several recordings")
    stems = Counter(Path(path).stem for path in {Path(each).absolute() for each in paths})
    if same := [stem for stem, count in stems.items() if count > 1]:
        raise ConfigurationError("command line", "--output", f"several recordings named {same[0]}", "different names")


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[RecordingResult], None]]:
    """A bar with counts of recordings, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("recordings", total=total)

        def advance(result: RecordingResult) -> None:
            nonlocal failed
            failed += result.state != DONE
            bar.update(task, advance=1, description=f"recordings, {failed} failed" if failed else "recordings")

        yield advance


def _write_predictions(job: ArchiveJob, paths: Sequence[str | Path], json_path: str | None) -> None:
    """The predictions of all recordings, in the order of the command line."""
    with json_lines(json_path) as lines:
        if lines is None:
            return
        for path in dict.fromkeys(Path(each).absolute() for each in paths):
            predictions = record_path(job.results, path).with_suffix(".jsonl")
            if predictions.exists():
                with open(predictions, encoding="utf-8") as file:
                    for line in file:
                        lines.write(line)


def _show(summary: ArchiveSummary, job: ArchiveJob, console: Console) -> None:
    """A table of labels over the recordings, then what failed, then the counts."""
    done = [result for result in summary.results if result.state == DONE]
    if done:
        table = Table("most probable", "recordings", "tiles", "findings", box=box.SIMPLE_HEAD, pad_edge=False)
        for label, count in Counter(result.label for result in done).most_common():
            same = [result for result in done if result.label == label]
            tiles, findings = sum(each.tiles for each in same), sum(len(each.findings) for each in same)
            table.add_row(label, str(count), str(tiles), str(findings))
        console.print(table)
    for result in summary.failed[:SHOWN]:
        show_notes(console, [f"failed: {result.recording}: {' '.join(result.error.split())}"])
    if len(summary.failed) > SHOWN:
        show_notes(console, [f"{len(summary.failed) - SHOWN} further recordings failed, see the results"])
    counts = f"{len(summary.results)} recordings: {len(done)} done"
    counts += f" ({summary.done_before} of them before this run)" if summary.done_before else ""
    counts += f", {len(summary.failed)} failed"
    counts += f"; {summary.worker_deaths} workers died" if summary.worker_deaths else ""
    console.print(f"{counts}\nresults in {job.results}", highlight=False, markup=False, soft_wrap=True)
