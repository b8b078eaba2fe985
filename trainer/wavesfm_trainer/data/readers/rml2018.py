# SPDX-License-Identifier: GPL-3.0-or-later
"""RML2018.01A: one HDF5 file with X float32 [N, 1024, 2], Y one-hot [N, 24] and Z SNR in dB [N, 1].

References
----------
O'Shea, Roy and Clancy, "Over-the-Air Deep Learning Based Radio Signal Classification", 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from wavesfm_core.errors import InputError

from ..formats.hdf5_rows import Rows
from .base import Array, Raw, files_below
from .csi_windows import with_options
from .iq_pictures import IqPictures, complex_samples

if TYPE_CHECKING:
    from ..tasks import Task


class Rml2018Reader:
    """Examples of every .hdf5 file below the root, classes in the order of the columns of Y.

    The task's labels are that order; pre-training has no target. `task.options` may set fields of `IqPictures`.
    """

    name = "rml2018"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples in the order of the file; raises InputError for other layouts."""
        pictures = with_options(IqPictures(), task)
        for path in files_below(root, (".hdf5", ".h5"), "GOLD_XYZ_OSC.0001_1024.hdf5"):
            samples = Rows(path, "X", (None, None, 2))
            classes = Rows(path, "Y", (len(samples), len(task.labels) or None))
            snrs = Rows(path, "Z", (len(samples), 1))
            for row in range(0, len(samples), pictures.every):
                source = f"{path}[{row}]"
                hot = np.flatnonzero(classes[row])
                if len(hot) != 1:
                    raise InputError(source, "Y", f"{len(hot)} classes", "one")
                target = int(hot[0]) if task.kind == "classification" else None
                array = partial(_picture, samples, row, pictures, source)
                rate = pictures.log10_rate()
                yield Raw(array, target, source, log10_rate=rate, snr_db=float(snrs[row][0]))


def _picture(samples: Rows, row: int, pictures: IqPictures, source: str) -> Array:
    return pictures.picture(complex_samples(samples[row], source))


READER = Rml2018Reader()
