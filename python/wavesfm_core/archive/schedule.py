# SPDX-License-Identifier: GPL-3.0-or-later
"""Hands recordings to workers, one at a time to each, and again to another one when a worker dies."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import EngineError
from .job import ArchiveJob
from .results import DONE, FAILED, RecordingResult, read_result, write_result

ATTEMPTS = 2
"""A recording at which so many workers died is not given to another one."""


class Death(NamedTuple):
    """A worker that ended before its recording was done."""

    reason: str
    """How it ended."""


class Crew(Protocol):
    """Workers in other processes."""

    @property
    def size(self) -> int:
        """How many recordings are worked on at once."""
        ...

    def start(self, slot: int, recording: str) -> None:
        """Give a recording to the worker of this slot, 0 to size - 1, which has none; a dead worker is replaced."""
        ...

    def wait(self) -> list[tuple[int, RecordingResult | Death]]:
        """Wait until a worker ends its recording; its slot, and what became of it."""
        ...

    def close(self) -> None:
        """End the workers, also in the midst of a recording."""
        ...


@dataclass
class ArchiveSummary:
    """Counts of a run."""

    results: list[RecordingResult] = field(default_factory=list)
    """In the order in which they were done, those of earlier runs first."""
    done_before: int = 0
    """Of these, the recordings that an earlier run had done."""
    worker_deaths: int = 0
    """Workers that ended before their recording was done."""

    @property
    def failed(self) -> list[RecordingResult]:
        """Recordings that failed."""
        return [result for result in self.results if result.state == FAILED]


def run_archive(
    job: ArchiveJob,
    recordings: Sequence[str | Path],
    crew: Crew,
    on_result: Callable[[RecordingResult], object] = lambda result: None,
) -> ArchiveSummary:
    """Work on the recordings that no earlier run has done.

    Parameters
    ----------
    job : ArchiveJob
        The job, whose results the caller holds with `opened_results`.
    recordings : sequence of str or Path
        Recordings; one that is listed twice is done once. Those that failed in an earlier run are tried again.
    crew : Crew
        Workers of the job.
    on_result : callable
        Called with each result, those of an earlier run first.

    Returns
    -------
    ArchiveSummary
        Results and counts.

    Raises
    ------
    EngineError
        Workers die one after the other and nothing gets done.
    """
    summary = ArchiveSummary()

    def take(result: RecordingResult) -> None:
        summary.results.append(result)
        on_result(result)

    waiting: deque[str] = deque()
    for recording in dict.fromkeys(str(Path(each).absolute()) for each in recordings):
        found = read_result(job.results, recording)
        if found is not None and found.state == DONE:
            summary.done_before += 1
            take(found)
        else:
            waiting.append(recording)
    deaths: Counter[str] = Counter()
    running: dict[int, str] = {}
    in_a_row = 0
    while waiting or running:
        for slot in range(crew.size):
            if waiting and slot not in running:
                running[slot] = waiting.popleft()
                crew.start(slot, running[slot])
        for slot, outcome in crew.wait():
            recording = running.pop(slot)
            if isinstance(outcome, RecordingResult):
                in_a_row = 0
                take(outcome)
                continue
            summary.worker_deaths += 1
            in_a_row += 1
            deaths[recording] += 1
            if in_a_row >= 4 * crew.size + 4:
                raise EngineError(job.results, "workers", f"{in_a_row} deaths in a row ({outcome.reason})", "results")
            if deaths[recording] < ATTEMPTS:
                waiting.append(recording)
            else:
                error = f"{ATTEMPTS} workers ended at this recording: {outcome.reason}"
                failed = RecordingResult(recording, FAILED, error)
                write_result(job.results, failed)
                take(failed)
    return summary
