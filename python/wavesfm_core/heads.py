"""What a model's outputs mean: logits to predictions. The trainer's evaluation uses the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from .errors import ConfigurationError, EngineError
from .spec import HeadSpec
from .types import NO_SIGNAL, UNKNOWN, Prediction, Tensor, Tile


def softmax(logits: Tensor) -> np.ndarray:
    """float64 probabilities over the last axis, for any finite logits."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class ClassificationHead:
    """Softmax over the labels; below `threshold` (settable while running) the label is UNKNOWN.

    threshold: None for the bundle's own.
    """

    def __init__(self, spec: HeadSpec, bundle_id: str, threshold: float | None = None) -> None:
        self.labels = spec.labels
        self._bundle_id = bundle_id
        self.threshold = spec.threshold if threshold is None else threshold

    @property
    def threshold(self) -> float:
        """Confidence, 0 to 1, below which the answer is UNKNOWN; raises ConfigurationError outside."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ConfigurationError("classification head", "threshold", value, "0 to 1")
        self._threshold = float(value)

    def predict(self, logits: Tensor, tiles: Sequence[Tile]) -> list[Prediction]:
        """One prediction for each tile from logits [B, L]; EngineError for a wrong shape or values not finite."""
        if logits.shape != (len(tiles), len(self.labels)):
            expected = f"{(len(tiles), len(self.labels))}"
            raise EngineError("classification head", "logits shape", logits.shape, expected)
        if not np.isfinite(logits).all():
            bad = np.count_nonzero(~np.isfinite(logits).all(axis=1))
            raise EngineError(
                "classification head", "logits", f"NaN or infinity for {bad} of {len(tiles)} tiles", "finite values"
            )
        return [self._prediction(row, tile) for row, tile in zip(softmax(logits), tiles, strict=True)]

    def no_signal(self, tile: Tile) -> Prediction:
        """What is said of a tile that the power gate held back."""
        return self._answer(tile, NO_SIGNAL, None, {})

    def _prediction(self, probabilities: np.ndarray, tile: Tile) -> Prediction:
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        label = self.labels[best] if confidence >= self._threshold else UNKNOWN
        return self._answer(tile, label, confidence, dict(zip(self.labels, map(float, probabilities), strict=True)))

    def _answer(
        self, tile: Tile, label: str, confidence: float | None, probabilities: Mapping[str, float]
    ) -> Prediction:
        return Prediction(
            label=label,
            confidence=confidence,
            probabilities=probabilities,
            start_sample=tile.start_sample,
            n_samples=tile.n_samples,
            rate_hz=tile.rate_hz,
            centre_hz=tile.centre_hz,
            time=tile.time,
            partial=tile.partial,
            latency_s=None if tile.arrived_s is None else time.monotonic() - tile.arrived_s,
            bundle_id=self._bundle_id,
            n_nonfinite=tile.n_nonfinite,
        )
