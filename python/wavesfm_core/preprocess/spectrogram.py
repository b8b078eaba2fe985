# SPDX-License-Identifier: GPL-3.0-or-later
"""SpectrogramSpec -> the C++ kernel that makes its tiles."""

from __future__ import annotations

import dataclasses

from .._kernels import SpectrogramTiler
from ..bundle.spec import SpectrogramSpec


def make_tiler(spec: SpectrogramSpec) -> SpectrogramTiler:
    """A fresh streaming kernel for `spec`; one per stream.

    `push(complex64 [n])` returns the tiles that the samples complete, `flush()` the partial one or None, each a tuple
    (float32 [1, height, width], start_sample, n_samples, partial, floor_db, peak_db, n_nonfinite) with start_sample
    counted from the construction or the last flush. The same samples give the same bits in any chunk sizes.
    Samples that are NaN, infinite or 1e15 and more in magnitude count as non-finite and are taken as zero.
    """
    return SpectrogramTiler(**dataclasses.asdict(spec))
