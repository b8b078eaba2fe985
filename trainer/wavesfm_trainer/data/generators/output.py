# SPDX-License-Identifier: GPL-3.0-or-later
"""What all generators share: an empty directory, random numbers for each example, and a note at the end."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from wavesfm_core.atomic_file import write_atomically
from wavesfm_core.errors import ConfigurationError

from ..readers.base import GENERATOR_NOTE

T = TypeVar("T")


def start(directory: Path, count: int, fewest: int = 1, why: str = "examples") -> Path:
    """Make `directory` and return it.

    Parameters
    ----------
    directory : empty or new.
    count : number of examples.
    fewest : least `count`.
    why : reason for `fewest`, for the error.

    Raises
    ------
    ConfigurationError : the directory is not empty or cannot be made, or `count` is too small.
    """
    if count < fewest:
        raise ConfigurationError("data generate", "count", count, f"{fewest} or more ({why})")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(directory, "directory", "one that is not empty", "an empty or new directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(directory, "directory", error.strerror or error, "a writable place") from None
    return directory


def rng_for(seed: int, *index: int) -> np.random.Generator:
    """The random generator of one item: a function of the seed and the item's index only."""
    return np.random.default_rng([seed, *index])


def for_each(make: Callable[..., T], arguments: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """`make(*a)` for each `a` of `arguments`, in their order, in `jobs` processes (1: in this one)."""
    if jobs < 1:
        raise ConfigurationError("data generate", "jobs", jobs, "1 or more")
    if jobs == 1:
        return [make(*a) for a in arguments]
    # Spawned, not forked: the caller may have threads (torch, OpenMP) that a fork would leave locked.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(make, *zip(*arguments, strict=True), chunksize=4))


def finish(
    directory: Path, generator: str, seed: int, settings: Mapping[str, Any], examples: Mapping[str, Any] | None = None
) -> None:
    """Write the note atomically and last, so that a directory without a note is recognised as incomplete.

    The note is JSON: {"generator", "seed", "settings", "examples": {file: its properties}}.

    Parameters
    ----------
    directory : of the files.
    generator : name of the generator.
    seed : of the generator.
    settings : arguments and constants of the generator.
    examples : properties by file.
    """
    note = {"generator": generator, "seed": seed, "settings": dict(settings), "examples": dict(examples or {})}
    write_atomically(directory / GENERATOR_NOTE, json.dumps(note, indent=1) + "\n")
