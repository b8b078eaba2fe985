# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare a directory of raw files into one file: reader, split, statistics, images."""

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
    """Read raw files and write the prepared data set; on an error the previous file stays.

    Parameters
    ----------
    task : a Task, its name or its file.
    root : directory of the raw files.
    out : file to write.
    split : method of the split; None: the task's.
    seed : of the split.
    limit : number of examples, taken evenly from the files in order (where classes follow each other).
    progress : called with (examples read, examples to read).
    reader : replaces the task's reader ("authors_cache" for the authors' .h5 files).

    Returns
    -------
    The note, see `write_cache`.

    Raises
    ------
    InputError, ConfigurationError : see the reader, `split_examples` and `write_cache`.
    """
    task = task if isinstance(task, Task) else read_task(task)
    task = task if reader is None else replace(task, reader=reader)
    root, out = Path(root), Path(out)
    if limit is not None and limit < 1:
        raise ConfigurationError("data prepare", "limit", limit, "1 or more")
    raws = list(open_reader(task.reader, f"task {task.name}").read(root, task))
    sources: dict[str, Any] = {"root": root.resolve().name, "found": len(raws)}
    generated = generator_note(root)[1]
    sources.update({key: generated[key] for key in ("generator", "seed", "settings") if key in generated})
    if limit is not None and limit < len(raws):
        log.info("%s: %d of %d examples taken, evenly", root, limit, len(raws))
        raws = _evenly(raws, limit)
    return write_cache(out, task, raws, split, seed, progress, sources)


def _evenly(raws: list[Raw], count: int) -> list[Raw]:
    rows = np.unique(np.linspace(0, len(raws) - 1, count).round().astype(int))
    return [raws[row] for row in rows]
