# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource grids of a simulated uplink (Sionna): generated batches, or the authors' prepared examples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.npz import npz_names, read_npz
from wavesfm_core.errors import ConfigurationError, InputError

from ..tasks import Task
from .base import Raw, files_below, published_split, require_options

BATCH_KEYS = ("x_rg", "y_rg", "h_freq", "snr_db")


def pilot_image(sent: NDArray, received: NDArray, symbols: list[int]) -> NDArray[np.float32]:
    """The pilot symbols of a slot as an image.

    Parameters
    ----------
    sent : complex [S, F].
    received : complex [A, S, F].
    symbols : indices of the pilot symbols.

    Returns
    -------
    float32 [2, 1 + A, len(symbols) * F], real and imaginary part. Row 0 is sent, the other rows are the antennas; pilot
    symbols follow one another.
    """
    grid = np.concatenate([sent[None], received])[:, symbols].reshape(1 + len(received), -1)
    return np.stack([grid.real, grid.imag]).astype(np.float32)


def channel_target(channel: NDArray) -> NDArray[np.float32]:
    """complex [A, S, F] -> float32 [2, A, S * F], real and imaginary part, symbol after symbol."""
    flat = channel.reshape(len(channel), -1)
    return np.stack([flat.real, flat.imag]).astype(np.float32)


class GridReader:
    """.npz files of batches or of single prepared examples.

    A batch has `x_rg` [B, S, F], `y_rg` and `h_freq` [B, A, S, F], complex, and `snr_db` [B]. An example has `x` [2, 1
    + A, P * F], `h` [2, A, S * F] and `snr_db`. Folders whose names begin with train or test are a published split.
    Options: pilot_symbols ([2, 11]); numerology, which the export reads.
    """

    name = "sionna_grids"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples of every file, with one batch in memory at a time; raises InputError for other layouts."""
        if not task.grid:
            expected = "antennas, symbols, subcarriers: a task of kind channel"
            raise ConfigurationError(f"task {task.name}", "grid", "nothing", expected)
        require_options(task, "pilot_symbols", "numerology")
        symbols = task.options.get("pilot_symbols", [2, 11])
        if not symbols or not all(isinstance(s, int) and 0 <= s < task.grid[1] for s in symbols):
            found = repr(symbols)
            raise ConfigurationError(f"task {task.name}", "pilot_symbols", found, f"symbols 0 to {task.grid[1] - 1}")
        load = lru_cache(maxsize=1)(partial(_read_batch, grid=task.grid))
        for path in files_below(root, (".npz",), "the .npz files of resource grids"):
            split = published_split(path, root)
            if not {"x", "h"} <= npz_names(path):
                for index, snr_db in enumerate(load(path)["snr_db"]):
                    array = partial(_batch_image, load, path, index, symbols)
                    target = partial(_batch_target, load, path, index)
                    yield Raw(array, target, f"{path}[{index}]", "", split, snr_db=float(snr_db))
            else:
                example = _read_example(path, task.grid, len(symbols))
                yield Raw(example["x"], example["h"], str(path), "", split, snr_db=float(example["snr_db"].ravel()[0]))


def _batch_image(load, path: Path, index: int, symbols: list[int]) -> NDArray[np.float32]:
    batch = load(path)
    return pilot_image(batch["x_rg"][index], batch["y_rg"][index], symbols)


def _batch_target(load, path: Path, index: int) -> NDArray[np.float32]:
    return channel_target(load(path)["h_freq"][index])


def _read_batch(path: Path, grid: tuple[int, ...]) -> dict[str, NDArray]:
    batch = read_npz(path, BATCH_KEYS)
    count = batch["snr_db"].size
    antennas, symbols, subcarriers = grid
    expected = {
        "x_rg": (count, symbols, subcarriers),
        "y_rg": (count, antennas, symbols, subcarriers),
        "h_freq": (count, antennas, symbols, subcarriers),
        "snr_db": (count,),
    }
    _check(path, batch, expected)
    for key in BATCH_KEYS[:3]:
        if batch[key].dtype.kind != "c":
            raise InputError(path, key, f"dtype {batch[key].dtype}", "complex numbers")
    return batch


def _read_example(path: Path, grid: tuple[int, ...], n_pilots: int) -> dict[str, NDArray]:
    example = read_npz(path, ("x", "h", "snr_db"))
    antennas, symbols, subcarriers = grid
    x, h = (2, 1 + antennas, n_pilots * subcarriers), (2, antennas, symbols * subcarriers)
    example["snr_db"] = example["snr_db"].reshape(-1)
    _check(path, example, {"x": x, "h": h, "snr_db": (1,)})
    return example


def _check(path: Path, arrays: dict[str, NDArray], expected: dict[str, tuple[int, ...]]) -> None:
    for key, shape in expected.items():
        if arrays[key].shape != shape or arrays[key].dtype.kind not in "fiuc":
            found = f"{arrays[key].dtype} {list(arrays[key].shape)}"
            raise InputError(path, key, found, f"numbers of shape {list(shape)}")
        if not np.isfinite(arrays[key]).all():
            raise InputError(path, key, "values that are not finite", "finite numbers")


READER = GridReader()
