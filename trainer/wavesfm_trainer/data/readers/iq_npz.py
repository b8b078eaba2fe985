# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of IQ examples as RadioML is often passed on: .npz with X, y and, if known, snr and labels.

RML2016.10a itself is a pickle, which is a program and is not read here; docs/data.md has the lines that convert it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.npz import npz_names, read_npz
from wavesfm_core.errors import InputError

from .base import Array, Raw, files_below, label_index
from .csi_windows import with_options
from .iq_pictures import IqPictures, complex_samples

if TYPE_CHECKING:
    from ..tasks import Task

LIMIT_BYTES = 8 << 30
"""Of the arrays of one file, which are read together."""


class NpzReader:
    """Examples of every .npz file below the root.

    X: float [N, 2, n] or [N, n, 2], or complex [N, n]. y [N]: names of the task's labels, or indices into `labels` [L]
    of the file, or into the task's labels where the file has no `labels`. snr [N] in dB. Pre-training needs X alone.
    `task.options` may set fields of `IqPictures`.
    """

    name = "iq_npz"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples in the order of the files; raises InputError for other layouts."""
        pictures = with_options(IqPictures(), task)
        for path in files_below(root, (".npz",), ".npz files with X and y"):
            needed = ("X", "y") if task.kind == "classification" else ("X",)
            optional = [name for name in ("snr", "labels") if name in npz_names(path)]
            arrays = read_npz(path, (*needed, *optional), LIMIT_BYTES)
            values = arrays["X"]
            n = len(values) if values.ndim else 0
            _check(path, arrays, n)
            targets = _targets(path, arrays, task) if task.kind == "classification" else [None] * n
            snrs = arrays["snr"].astype(float).ravel() if "snr" in arrays else np.full(n, math.nan)
            for row in range(0, n, pictures.every):
                source = f"{path}[{row}]"
                array = partial(_picture, values, row, pictures, source)
                yield Raw(array, targets[row], source, log10_rate=pictures.log10_rate(), snr_db=float(snrs[row]))


def _check(path: Path, arrays: dict[str, NDArray], n: int) -> None:
    shape = arrays["X"].shape
    if len(shape) not in (2, 3) or not n:
        raise InputError(path, "X", f"shape {list(shape)}", "[N, 2, n], [N, n, 2], or complex [N, n]")
    for name in ("y", "snr"):
        if name in arrays and arrays[name].size != n:
            raise InputError(path, name, f"{arrays[name].size} values", f"{n}, as X has examples")
    if "snr" in arrays and arrays["snr"].dtype.kind not in "fiu":
        raise InputError(path, "snr", arrays["snr"].dtype, "numbers of dB")


def _targets(path: Path, arrays: dict[str, NDArray], task: Task) -> list[int]:
    """Index of the task's label of each example."""
    y = arrays["y"].ravel()
    if y.dtype.kind in "US":
        names = [value.decode() if isinstance(value, bytes) else str(value) for value in y]
    elif y.dtype.kind in "iu":
        known = [str(name) for name in arrays["labels"].ravel()] if "labels" in arrays else list(task.labels)
        if y.min() < 0 or y.max() >= len(known):
            raise InputError(path, "y", f"{y.min()} to {y.max()}", f"0 to {len(known) - 1}, as there are labels")
        names = [known[index] for index in y]
    else:
        raise InputError(path, "y", y.dtype, "names of labels, or their indices")
    index = {name: label_index(task, name, path) for name in set(names)}
    return [index[name] for name in names]


def _picture(values: NDArray, row: int, pictures: IqPictures, source: str) -> Array:
    return pictures.picture(complex_samples(values[row], source))


READER = NpzReader()
