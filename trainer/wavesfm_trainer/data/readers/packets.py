# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of a CSI capture that fit together, and what is said of the others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

log = logging.getLogger(__name__)
LEAST_SHARE = 0.5
"""Share of the packets that must have the expected shape."""


def same_shape(path: Path, shapes: Sequence[tuple[int, ...]], antennas: int) -> list[int]:
    """Packets of the most frequent shape [streams, subcarriers] with the expected number of streams.

    Parameters
    ----------
    path : of the capture, for messages.
    shapes : of each packet.
    antennas : streams that a task expects.

    Returns
    -------
    Their numbers, in order. The others are counted in a warning.

    Raises
    ------
    InputError : fewer than LEAST_SHARE of the packets have it.
    """
    counts = Counter(shapes)
    fitting = [shape for shape, _ in counts.most_common() if shape[0] == antennas]
    kept = [number for number, shape in enumerate(shapes) if fitting and shape == fitting[0]]
    found = ", ".join(f"{n} of {a} x {s}" for (a, s), n in counts.most_common(4))
    if len(kept) < LEAST_SHARE * len(shapes):
        expected = f"{antennas} streams and one number of subcarriers in at least half of them"
        raise InputError(path, "packets (streams x subcarriers)", found, expected)
    if len(kept) < len(shapes):
        log.warning("%s: packets (streams x subcarriers): found %s; the most frequent alone are used", path, found)
    return kept


def require_order(path: Path, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The times [P] unchanged; a few steps back are counted in a warning, since a window ends there.

    Raises
    ------
    InputError : the times step back so often that the packets are out of order.
    """
    back = int((np.diff(time_s) < 0).sum())
    if back > max(2, 0.02 * len(time_s)):
        expected = "packets in the order of their times"
        raise InputError(path, "time", f"{back} steps back in {len(time_s)} packets", expected)
    if back:
        log.warning("%s: time: found %d steps back in %d packets; windows end there", path, back, len(time_s))
    return time_s
