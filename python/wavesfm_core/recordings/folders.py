# SPDX-License-Identifier: GPL-3.0-or-later
"""The recordings in folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InputError
from .sample_formats import SUFFIXES
from .sigmf_meta import ARCHIVE, DATA, META, META_LIMIT

_SUFFIXES = (META, ARCHIVE, ".wav", ".sdriq", *(f".{suffix}" for suffix in SUFFIXES))


def find_recordings(paths: Iterable[str | Path]) -> list[str | Path]:
    """The paths, each folder replaced by the recordings in it and below, in the order of their names.

    A recording of a folder is a file with a suffix of one. SigMF samples stand for their metadata; a raw file that
    metadata beside it names is not listed twice. Raises InputError for a folder without recordings.
    """
    found: list[str | Path] = []
    for path in paths:
        if str(path) == "-" or not Path(path).is_dir():
            found.append(path)
            continue
        inside = list(_in_folder(Path(path)))
        if not inside:
            raise InputError(path, "folder", "no recording", "files such as *.sigmf-meta, *.wav, *.cu8 or *.cfile")
        found += inside
    return found


def _in_folder(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        files = [Path(root, name) for name in sorted(names) if name.lower().endswith(_SUFFIXES)]
        metas = [path for path in files if path.name.endswith(META)]
        described = {name for path in metas for name in _samples_of(path)}
        yield from (path for path in files if path.name not in described and not path.name.endswith(DATA))


def _samples_of(meta_path: Path) -> Iterator[str]:
    """Names of the files that metadata describes."""
    yield meta_path.name.removesuffix(META) + DATA
    try:
        if meta_path.stat().st_size <= META_LIMIT:
            dataset = json.loads(meta_path.read_bytes())["global"]["core:dataset"]
            if isinstance(dataset, str):
                yield dataset
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
