"""What a model's outputs mean: logits to predictions, metres, channels. The trainer's evaluation uses the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigurationError, EngineError
from .spec import HeadSpec
from .types import NO_SIGNAL, UNKNOWN, ChannelEstimate, PositionEstimate, Prediction, Tensor, Tile


def softmax(logits: Tensor) -> np.ndarray:
    """float64 probabilities over the last axis, for any finite logits."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class ClassificationHead:
    """Softmax over the labels at the spec's temperature; below `threshold` (settable while running) it is UNKNOWN.

    So it is where a label UNKNOWN of the bundle has the probability `unknown_from` of the spec.

    threshold: None for the bundle's own.
    """

    def __init__(self, spec: HeadSpec, bundle_id: str, threshold: float | None = None) -> None:
        self.labels = spec.labels
        self._bundle_id = bundle_id
        self.threshold = spec.threshold if threshold is None else threshold
        self._temperature = spec.temperature
        self._unknown_from = spec.unknown_from

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
        _check(logits, "classification head", "logits", (len(tiles), len(self.labels)))
        rows = softmax(np.asarray(logits, np.float64) / self._temperature)
        return [self._prediction(row, tile) for row, tile in zip(rows, tiles, strict=True)]

    def no_signal(self, tile: Tile) -> Prediction:
        """What is said of a tile that the power gate held back."""
        return self._answer(tile, NO_SIGNAL, None, {})

    def _prediction(self, probabilities: np.ndarray, tile: Tile) -> Prediction:
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        by_label = dict(zip(self.labels, map(float, probabilities), strict=True))
        rejected = confidence < self._threshold or by_label.get(UNKNOWN, 0.0) >= self._unknown_from
        return self._answer(tile, UNKNOWN if rejected else self.labels[best], confidence, by_label)

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


class PositionHead:
    """Outputs in [-1, 1] to metres, linearly; what lies outside is taken as it is."""

    def __init__(self, spec: HeadSpec, bundle_id: str) -> None:
        self.axes = spec.axes
        self._bundle_id = bundle_id
        self._low_m = np.array(spec.low_m, np.float64)
        self._high_m = np.array(spec.high_m, np.float64)

    def predict(self, outputs: Tensor, tiles: Sequence[object]) -> list[PositionEstimate]:
        """One estimate for each tile from outputs [B, D]; EngineError for a wrong shape or values not finite."""
        _check(outputs, "position head", "outputs", (len(tiles), len(self.axes)))
        rows = self.positions_m(outputs).tolist()
        return [PositionEstimate(tuple(row), self.axes, self._bundle_id) for row in rows]

    def positions_m(self, outputs: Tensor) -> NDArray[np.float64]:
        """Metres, float64 [B, D], for outputs [B, D]; EngineError as in `predict`."""
        _check(outputs, "position head", "outputs", (len(outputs), len(self.axes)))
        return self._low_m + (outputs.astype(np.float64) + 1.0) / 2.0 * (self._high_m - self._low_m)


class ChannelHead:
    """Real and imaginary parts to complex channels, times the spec's scale."""

    def __init__(self, spec: HeadSpec, bundle_id: str) -> None:
        self.grid = spec.grid
        self._shape = spec.output_shape
        self._scale = np.float32(spec.scale)
        self._bundle_id = bundle_id

    def predict(self, outputs: Tensor, tiles: Sequence[object]) -> list[ChannelEstimate]:
        """One estimate for each tile from outputs [B, 2, antennas, symbols * subcarriers], symbol after symbol.

        EngineError for a wrong shape or values not finite.
        """
        _check(outputs, "channel head", "outputs", (len(tiles), *self._shape))
        return [ChannelEstimate(channel, self._bundle_id) for channel in self.channels(outputs)]

    def channels(self, outputs: Tensor) -> NDArray[np.complex64]:
        """complex64 [B, antennas, symbols, subcarriers]; EngineError as in `predict`."""
        _check(outputs, "channel head", "outputs", (len(outputs), *self._shape))
        channels = np.empty((len(outputs), *self.grid), np.complex64)
        parts = (outputs.astype(np.float32) * self._scale).reshape(len(outputs), 2, *self.grid)
        channels.real, channels.imag = parts[:, 0], parts[:, 1]
        return channels


Head = ClassificationHead | PositionHead | ChannelHead


def make_head(spec: HeadSpec, bundle_id: str, threshold: float | None = None) -> Head:
    """The head of the spec's task; threshold: None for the bundle's own, and None for a task that has none.

    Raises ConfigurationError for a threshold out of range or of another task.
    """
    if spec.task == "classification":
        return ClassificationHead(spec, bundle_id, threshold)
    if threshold is not None:
        raise ConfigurationError(f"{spec.task} head", "threshold", threshold, "none: only classification has one")
    return PositionHead(spec, bundle_id) if spec.task == "position" else ChannelHead(spec, bundle_id)


def _check(outputs: Tensor, head: str, name: str, shape: tuple[int, ...]) -> None:
    if outputs.shape != shape:
        raise EngineError(head, f"{name} shape", outputs.shape, f"{shape}")
    finite = np.isfinite(outputs)
    if not finite.all():
        bad = np.count_nonzero(~finite.reshape(len(outputs), -1).all(axis=1))
        raise EngineError(head, name, f"NaN or infinity for {bad} of {len(outputs)} tiles", "finite values")
