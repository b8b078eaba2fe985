# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit on the size of the recordings in a folder: the oldest are deleted first."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigurationError
from ..recordings.sigmf_meta import DATA, META

PREFIX = "wavesfm_"


def make_room(folder: Path, n_bytes: int, quota_bytes: int) -> list[Path]:
    """Delete the oldest recordings of this program until `n_bytes` more fit into the quota; returns their metadata.

    Only files named PREFIX*.sigmf-data and .sigmf-meta count; names begin with the time, so that their order is that
    of time. Raises ConfigurationError where n_bytes alone exceed the quota; nothing is deleted then.
    """
    if n_bytes > quota_bytes:
        raise ConfigurationError(folder, "quota_bytes", quota_bytes, f"{n_bytes} or more, for one recording")
    bases = sorted({path.with_suffix("") for end in (DATA, META) for path in folder.glob(f"{PREFIX}*{end}")})
    sizes = {base: sum(_size(base.with_name(base.name + end)) for end in (DATA, META)) for base in bases}
    total = sum(sizes.values())
    deleted = []
    for base in bases:
        if total + n_bytes <= quota_bytes:
            break
        for end in (META, DATA):
            base.with_name(base.name + end).unlink(missing_ok=True)
        total -= sizes[base]
        deleted.append(base.with_name(base.name + META))
    return deleted


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
