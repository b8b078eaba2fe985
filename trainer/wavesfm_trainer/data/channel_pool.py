# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools of simulated channels: one HDF5 file each, written atomically and read by rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import from_dict, to_dict
from wavesfm_core.errors import InputError, WavesfmError

from .cache import whole_file
from .formats.hdf5_rows import open_hdf5
from .generators.channels import Grid, Scenario, channel_batches

FORMAT = 1
KEY = "channels"
SPARE_BYTES = 1 << 20  # for the structures of HDF5


def write_pool(
    path: Path,
    count: int,
    seed: int,
    scenario: Scenario,
    spec: OFDMSpec,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Simulate channels into a file.

    The file has `channels` float16 [count, A, S, F, 2] (real, imaginary) and an attribute `note` with format,
    numerology, scenario and seed as JSON.

    Parameters
    ----------
    path : file to write.
    count, seed, scenario, spec, processes : see `channel_batches`.
    progress : called with (channels simulated, count).

    Raises
    ------
    ConfigurationError : see `channel_batches`.
    InputError : no such folder, or a full disk.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(path.parent, "folder", "nothing", "a folder for the channels")
    shape = (count, *spec.grid_shape, 2)
    note = {
        "format": FORMAT, "numerology": to_dict(spec), "scenario": dataclasses.asdict(scenario), "seed": seed,
    }  # fmt: skip
    batches = channel_batches(count, seed, scenario, spec, processes=processes)
    first = next(batches)  # errors appear before the file's bytes are reserved
    n_bytes = 2 * int(np.prod(shape, dtype=np.int64)) + SPARE_BYTES
    with whole_file(path, n_bytes) as partial, h5py.File(partial, "r+") as file:
        file.attrs["note"] = json.dumps(note)
        rows = file.create_dataset(KEY, shape, np.float16)
        done = 0
        for batch in chain([first], batches):
            rows[done : done + len(batch)] = batch.view(np.float32).reshape(*batch.shape, 2)
            done += len(batch)
            if progress is not None:
                progress(done, count)


class ChannelPool:
    """A file of `write_pool`.

    Parameters
    ----------
    path : of the file.

    Attributes
    ----------
    spec : OFDM slot parameters.
    scenario : scenario of the simulation.
    seed : seed of the simulation.

    Raises
    ------
    InputError : no such file, another format, an invalid numerology or scenario, channels of another shape or dtype, or
        fewer bytes than they take.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with open_hdf5(self.path) as file:
            note = _note(file, self.path)
            try:
                self.spec = from_dict(OFDMSpec, note.get("numerology"), f"{self.path}: numerology")
                self.scenario = Scenario(**note["scenario"])
                self.seed = int(note["seed"])
            except (WavesfmError, KeyError, TypeError, ValueError) as error:
                raise InputError(self.path, "note", str(error)[:200], "numerology, scenario and seed") from None
            self._count = _checked_rows(file, self.path, self.spec)

    def __len__(self) -> int:
        return self._count

    def read(self, first: int, count: int) -> Grid:
        """Channels `first` to `first + count` - 1, fewer at the end of the file.

        Returns
        -------
        complex64 [n, A, S, F].

        Raises
        ------
        InputError : the file cannot be read any more, or values are not finite.
        """
        with open_hdf5(self.path) as file:
            try:
                parts = file[KEY][first : first + count].astype(np.float32)
            except (OSError, RuntimeError) as error:
                raise InputError(self.path, KEY, f"unreadable rows ({error})"[:160], "a whole file") from None
        if not np.isfinite(parts).all():
            raise InputError(self.path, KEY, "values that are not finite", "finite numbers")
        return parts.view(np.complex64)[..., 0]

    def batches(self, size: int, first: int = 0, count: int | None = None) -> Iterator[Grid]:
        """Channels from `first` on (`count` of them, or all), `size` at a time; see `read`."""
        stop = len(self) if count is None else min(first + count, len(self))
        for row in range(first, stop, size):
            yield self.read(row, min(size, stop - row))


def _note(file: h5py.File, path: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.attrs["note"])
        found = note["format"]
    except (KeyError, ValueError, TypeError, OSError):
        raise InputError(path, "note", "nothing", "channels (wavesfm-train data channels makes them)") from None
    if found != FORMAT or KEY not in file:
        raise InputError(path, "format", f"{found}, keys {', '.join(sorted(file))}", f"{FORMAT}, with {KEY}")
    return note


def _checked_rows(file: h5py.File, path: Path, spec: OFDMSpec) -> int:
    rows = file[KEY]
    expected = (*spec.grid_shape, 2)
    if not isinstance(rows, h5py.Dataset) or rows.dtype != np.float16 or rows.shape[1:] != expected or not len(rows):
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, h5py.Dataset) else "a group"
        raise InputError(path, KEY, found, f"float16 [at least 1, {', '.join(map(str, expected))}]")
    if rows.nbytes > path.stat().st_size:
        raise InputError(path, "size", f"{path.stat().st_size} bytes", f"{rows.nbytes}, the size of its channels")
    return len(rows)
