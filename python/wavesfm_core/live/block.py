# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source of samples delivers, and the interface of a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ..recordings.sample_formats import FORMATS, RawBytes
from ..types import Samples, StreamTime

BLOCK_S = 0.02  # of samples in a block, so that the delay stays short
BLOCK_SAMPLES = (1 << 10, 1 << 18)  # least and most


@dataclass(frozen=True, slots=True, eq=False)
class SampleBlock:
    """Consecutive samples at one rate and one centre frequency, in the format in which they arrived."""

    raw: RawBytes
    """uint8 [n * bytes of a sample]; nobody changes it after the block was made."""
    sample_format: str
    """A complex format of FORMATS, such as cf32, cs16 or cu8."""
    rate_hz: float
    """Sample rate in Hz, positive."""
    centre_hz: float | None = None
    """Centre frequency in Hz; None when unknown."""
    time: StreamTime | None = None
    """Time of the first sample; None: it follows on the block before, or the time is unknown."""
    lost: int = 0
    """Samples that were lost between the block before and this one."""

    @classmethod
    def of(
        cls,
        samples: Samples,
        rate_hz: float,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
        lost: int = 0,
    ) -> SampleBlock:
        """A block of complex64 [n]."""
        return cls(np.ascontiguousarray(samples).view(np.uint8), "cf32", rate_hz, centre_hz, time, lost)

    @property
    def n_samples(self) -> int:
        """Samples in the block."""
        return len(self.raw) // FORMATS[self.sample_format].sample_bytes

    def complex64(self, start: int = 0, stop: int | None = None) -> Samples:
        """Samples `start` to before `stop` (None: all) as complex64 with full scale 1."""
        each = FORMATS[self.sample_format].sample_bytes
        raw = self.raw[start * each : None if stop is None else stop * each]
        if self.sample_format == "cf32":
            return raw.view(np.complex64)
        return FORMATS[self.sample_format].complex64(raw)


def block_samples(rate_hz: float) -> int:
    """Samples of a block at this sample rate in Hz."""
    return int(np.clip(rate_hz * BLOCK_S, *BLOCK_SAMPLES))


class Source(Protocol):
    """Where samples come from. `blocks` runs on one thread; `stop` may be called from another one."""

    description: str
    """For people, such as "file capture.cu8"."""
    is_live: bool
    """True: samples that nobody takes in time are lost. False: the source can be held back."""

    def blocks(self) -> Iterator[SampleBlock]:
        """Blocks as they arrive, until the end of the source or `stop`. Raises InputError for a fault for good."""
        ...

    def stop(self) -> None:
        """End `blocks` soon."""
        ...

    def close(self) -> None:
        """Free the device or the file; after `blocks` has ended."""
        ...


@runtime_checkable
class TunableSource(Source, Protocol):
    """A source whose rate and centre frequency can be set while it runs."""

    def tune(self, centre_hz: float, rate_hz: float | None = None) -> None:
        """Set the centre frequency in Hz and, unless None, the sample rate in Hz, from a block soon on."""
        ...
