# SPDX-License-Identifier: GPL-3.0-or-later
"""5G NR positioning: channel frequency responses and positions as MATLAB v7.3 files per SNR.

References
----------
Gao et al., IEEE DataPort, DOI 10.21227/jsat-pb50.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from ..formats.hdf5_rows import Rows
from ..tasks import Task
from .base import Array, Raw, files_below, require_options

_NAME = re.compile(r"SNR(-?\d+)_(outdoor|indoor)", re.IGNORECASE)


class PositioningReader:
    """`dataset_SNR<dB>_<scene>*.mat`: `features` (N, stations, 16, 193) and `labels/position` (N, 3) in metres.

    The target is the first len(task.axes) coordinates. The group is the position to the millimetre, since the files of
    all SNRs have the same positions. Option scene: "outdoor" (four stations) or "indoor" (five).
    """

    name = "nr_positioning"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples of every file of the scene; raises InputError for other layouts."""
        require_options(task, "scene")
        scene = task.options.get("scene", "outdoor")
        paths = files_below(root, (".mat",), "dataset_SNR<dB>_<scene>.mat files")
        named = [(path, found) for path in paths if (found := _NAME.search(path.name))]
        chosen = [(path, found) for path, found in named if found.group(2).casefold() == scene]
        if not chosen:
            names = ", ".join(path.name for path in paths[:3])
            raise InputError(root, "files", names, f"at least one dataset_SNR<dB>_{scene}*.mat")
        size: tuple[int | None, ...] = (None, None)
        for path, found in chosen:
            features = Rows(path, "features", (None, task.channels, *size))
            size = features.shape[2:]  # all files must have the size of the first
            yield from _read_file(path, float(found.group(1)), task, features)


def _read_file(path: Path, snr_db: float, task: Task, features: Rows) -> Iterator[Raw]:
    positions = Rows(path, "labels/position", (len(features), None))
    if positions.shape[1] < len(task.axes):
        raise InputError(path, "labels/position", f"{positions.shape[1]} columns", f"at least {len(task.axes)}")
    if features.is_complex or positions.is_complex:
        raise InputError(path, "features", "complex numbers", "real numbers")
    for index in range(len(features)):
        position = np.asarray(positions[index], np.float64)
        if not np.isfinite(position).all():
            raise InputError(f"{path}[{index}]", "labels/position", position, "finite metres")
        group = ",".join(f"{round(float(metres), 3) + 0.0:.3f}" for metres in position)
        target = position[: len(task.axes)].astype(np.float32)
        yield Raw(partial(_row, features, index), target, f"{path}[{index}]", group, snr_db=snr_db)


def _row(features: Rows, index: int) -> NDArray | Array:
    return features[index]


READER = PositioningReader()
