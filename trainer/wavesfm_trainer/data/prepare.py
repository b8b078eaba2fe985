# SPDX-License-Identifier: GPL-3.0-or-later
"""From a directory of raw files to one prepared cache: reader, split, statistics, images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from wavesfm_core.errors import ConfigurationError

from .cache import Progress, write_cache
from .readers.base import Raw, generator_note
from .readers.registry import open_reader
from .tasks import Task, read_task

log = logging.getLogger(__name__)


def prepare_dataset(
    task: Task | str,
    root: Path,
    out: Path,
    split: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
    reader: str | None = None,
) -> dict[str, Any]:
    """Read the raw files below `root` as the task has them, write the cache `out`, and return its note.

    task: a Task, its name or its file. split, reader: instead of the task's (reader "authors_cache" for their .h5
    files). limit: so many examples, evenly over the files in order (classes follow each other there).
    progress: called with (examples read, examples to read). Raises InputError and ConfigurationError, see the reader,
    `split_examples` and `write_cache`; nothing is left at `out` then but what was there before.
    """
    task = task if isinstance(task, Task) else read_task(task)
    task = task if reader is None else replace(task, reader=reader)
    root, out = Path(root), Path(out)
    if limit is not None and limit < 1:
        raise ConfigurationError("data prepare", "limit", limit, "1 or more")
    raws = list(open_reader(task.reader, f"task {task.name}").read(root, task))
    sources: dict[str, Any] = {"root": root.resolve().name, "found": len(raws)}
    made_by = generator_note(root)[1]
    sources.update({key: made_by[key] for key in ("generator", "seed", "settings") if key in made_by})
    if limit is not None and limit < len(raws):
        log.info("%s: %d of %d examples taken, evenly", root, limit, len(raws))
        raws = _evenly(raws, limit)
    return write_cache(out, task, raws, split, seed, progress, sources)


def _evenly(raws: list[Raw], count: int) -> list[Raw]:
    rows = np.unique(np.linspace(0, len(raws) - 1, count).round().astype(int))
    return [raws[row] for row in rows]
