# SPDX-License-Identifier: GPL-3.0-or-later
"""5G CFR/CSI of Pan et al., 2022: one MATLAB file per location with the complex variable `cfr`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from wavesfm_core.errors import InputError

from ..formats.matlab import read_variable
from ..tasks import Task
from .base import Array, OneShape, Raw, files_below, require_options


def read_cfr(path: Path, channels: int, same: OneShape) -> Array:
    """Magnitudes of one location.

    Parameters
    ----------
    path : MATLAB file with `cfr`, complex (a, channels, b).
    channels : expected channels.
    same : checks that all files have one shape.

    Returns
    -------
    float32 [channels, a, b].
    """
    cfr = read_variable(path, "cfr", (None, channels, None))
    if cfr.dtype.kind != "c":
        raise InputError(path, "cfr", f"dtype {cfr.dtype}", "complex numbers")
    return np.abs(same(path, cfr)).astype(np.float32).transpose(1, 0, 2)


class CfrReader:
    """Magnitudes of every .mat file below the root, for pre-training; the group is the location, the file's stem."""

    name = "cfr_5g"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples without target; raises InputError for other layouts."""
        require_options(task)
        same = OneShape("cfr")
        for path in files_below(root, (".mat",), "one .mat file per location with the variable cfr"):
            yield Raw(partial(read_cfr, path, task.channels, same), None, str(path), group=path.stem)


READER = CfrReader()
