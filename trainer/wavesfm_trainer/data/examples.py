"""Prepared examples as training has them: arrays in memory with what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.spec import ImageSpec, SpectrogramSpec

FORMAT = 1  # of the note


@dataclass(frozen=True)
class Examples:
    """Prepared examples in memory.

    image: [N, C, H, W] before standardisation, float16 over the spec's range or uint8 whose 0..255 are 0..1.
    target: int64 [N], float32 [N, D] metres, float32 [N, 2, A, S * F] or None. log10_rate, snr_db: float32 [N], or None
    where no example has one; single ones that are unknown are 0 and NaN.
    spec: with mean and std of the training split; note: see `write_cache`; source, group: of every example.
    """

    image: NDArray[np.float16] | NDArray[np.uint8]
    target: NDArray[Any] | None
    log10_rate: NDArray[np.float32] | None
    snr_db: NDArray[np.float32] | None
    spec: ImageSpec | SpectrogramSpec
    note: dict[str, Any]
    source: tuple[str, ...] = ()
    group: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image)

    def standardised(self, rows: Sequence[int] | slice = slice(None)) -> NDArray[np.float32]:
        """float32 [n, C, H, W] as the model takes them (what `prepare` gives for the spec, but for rounding)."""
        image = self.image[rows].astype(np.float32)
        if self.image.dtype == np.uint8:
            image /= 255
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (image - mean) / std

    def subset(self, rows: Sequence[int]) -> Examples:
        """These examples, with everything that belongs to them."""
        index = np.asarray(rows, np.int64)

        def each(values):
            return None if values is None else values[index]

        def names(values):
            return tuple(values[i] for i in index) if values else ()

        return replace(self, image=self.image[index], target=each(self.target), log10_rate=each(self.log10_rate),
                       snr_db=each(self.snr_db), source=names(self.source), group=names(self.group))  # fmt: skip

    def class_counts(self) -> NDArray[np.int64]:
        """Examples of every label, int64 [L], of these very examples; ConfigurationError without labels."""
        if self.target is None or not self.note["labels"]:
            raise ConfigurationError(self.note["task"], "class_weights", f"kind {self.note['kind']}", "classification")
        return np.bincount(self.target, minlength=len(self.note["labels"]))

    def class_weights(self) -> NDArray[np.float32]:
        """One over each class's frequency here, scaled to sum 1, float32 [L]; InputError names a class without any."""
        counts = self.class_counts()
        if not counts.all():
            names = ", ".join(self.note["labels"][i] for i in np.flatnonzero(counts == 0))
            raise InputError(self.note["task"], "class_weights", f"no example of {names}", "every label")
        weights = 1 / counts
        return (weights / weights.sum()).astype(np.float32)
