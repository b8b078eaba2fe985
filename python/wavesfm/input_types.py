# SPDX-License-Identifier: GPL-3.0-or-later
"""Item types of a classifier's stream: complex floats, or the integers of the radio, converted by the kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from wavesfm_core._kernels import to_complex64
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.types import Samples


class InputType(NamedTuple):
    """How the items of a stream hold samples."""

    signature: Any
    """As the input signature of a Python block has it."""
    item_bytes: int
    """Size of an item, which is one sample."""
    sample_format: str
    """Name for the kernel, which divides 16 bits by 32768 and 8 bits by 128; "" for complex64."""

    def samples(self, items: np.ndarray) -> Samples:
        """The items as complex64 [n]; those that are complex64 are not copied."""
        return to_complex64(items, self.sample_format) if self.sample_format else items


INPUT_TYPES = {
    "fc32": InputType(np.complex64, 8, ""),
    "sc16": InputType((np.int16, 2), 4, "cs16"),
    "sc8": InputType((np.int8, 2), 2, "cs8"),
}
"""By the names of GNU Radio Companion."""


def input_type(block: str, name: str) -> InputType:
    """The type of this name; ConfigurationError, naming the block, for another name."""
    if name not in INPUT_TYPES:
        raise ConfigurationError(block, "input_type", repr(name), f"one of {', '.join(INPUT_TYPES)}")
    return INPUT_TYPES[name]
