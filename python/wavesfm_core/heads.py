# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs of a model to answers: logits to predictions, positions in metres, channels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .bundle.spec import HeadSpec
from .errors import ConfigurationError, EngineError
from .types import NOISE, UNKNOWN, ChannelEstimate, PositionEstimate, Prediction, Tensor, Tile

RATE_TOLERANCE = 1e-3  # relative: a rate so little outside of those trained at is taken for one of them


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64 probabilities over the last axis, for any finite logits."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class ClassificationHead:
    """Softmax over the labels at the spec's temperature.

    The label is UNKNOWN where the confidence is below `threshold`, and where the bundle's own label UNKNOWN has the
    probability `unknown_from` of the spec or more.

    Parameters
    ----------
    spec : HeadSpec
        Labels in the order of the logits, and the default threshold.
    bundle_id : str
        Identity of the bundle.
    threshold : float or None
        Confidence below which the answer is UNKNOWN; None for the spec's. May be set while running.
    rates_hz : (float, float)
        Lowest and highest sample rate that the model was trained at; (0, 0) when unknown.

    Raises
    ------
    ConfigurationError
        For a threshold outside 0 to 1.
    """

    def __init__(
        self,
        spec: HeadSpec,
        bundle_id: str,
        threshold: float | None = None,
        rates_hz: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.labels = spec.labels
        self._bundle_id = bundle_id
        self._rates_hz = rates_hz
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

    def predict(
        self, logits: Tensor, tiles: Sequence[Tile], margins_db: Sequence[float] | None = None
    ) -> list[Prediction]:
        """One prediction for each tile.

        Parameters
        ----------
        logits : ndarray of float32 [B, L]
        tiles : sequence of B Tiles
        margins_db : sequence of B floats or None
            Peaks over the noise floors known; None: over each tile's own floor.

        Raises
        ------
        EngineError
            For logits of another shape or that are not finite.
        """
        _check(logits, "classification head", "logits", (len(tiles), len(self.labels)))
        if margins_db is None:
            margins_db = [tile.peak_db - tile.floor_db for tile in tiles]
        rows = self.probabilities(logits)
        return [self._prediction(*each) for each in zip(rows, tiles, margins_db, strict=True)]

    def probabilities(self, logits: Tensor) -> NDArray[np.float64]:
        """Calibrated probabilities float64 [B, L] of finite logits [B, L]."""
        return softmax(np.asarray(logits, np.float64) / self._temperature)

    def decide(self, probabilities: NDArray[np.floating]) -> tuple[str, float]:
        """Label and confidence of probabilities [L]."""
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        unknown = float(probabilities[self.labels.index(UNKNOWN)]) if UNKNOWN in self.labels else 0.0
        rejected = confidence < self._threshold or unknown >= self._unknown_from
        return UNKNOWN if rejected else self.labels[best], confidence

    def held_back(self, tile: Tile, margin_db: float, label: str = NOISE) -> Prediction:
        """The answer for a tile that was not inferred: noise for the power gate, an earlier label for the thinning."""
        return self._answer(tile, label, None, {}, margin_db)

    def _prediction(self, probabilities: np.ndarray, tile: Tile, margin_db: float) -> Prediction:
        label, confidence = self.decide(probabilities)
        by_label = dict(zip(self.labels, map(float, probabilities), strict=True))
        return self._answer(tile, label, confidence, by_label, margin_db)

    def _answer(
        self,
        tile: Tile,
        label: str,
        confidence: float | None,
        probabilities: Mapping[str, float],
        margin_db: float,
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
            inferred=confidence is not None,
            floor_db=tile.floor_db,
            peak_db=tile.peak_db,
            margin_db=margin_db,
            rate_note=rate_note(tile.rate_hz, self._rates_hz),
            n_gap_samples=tile.n_gap_samples,
        )


def rate_note(rate_hz: float, trained_hz: tuple[float, float]) -> str:
    """Why a sample rate makes an answer doubtful.

    Parameters
    ----------
    rate_hz : float
        Sample rate of the tile; 0.0 when unknown.
    trained_hz : (float, float)
        Lowest and highest sample rate trained at; (0, 0) for a model that takes no rate.

    Returns
    -------
    str
        "unknown", "outside 0.25 to 25 MS/s" (the rates trained at), or "" for a rate that was trained.
    """
    low_hz, high_hz = trained_hz
    if high_hz == 0.0:
        return ""
    if rate_hz == 0.0:
        return "unknown"
    if low_hz * (1 - RATE_TOLERANCE) <= rate_hz <= high_hz * (1 + RATE_TOLERANCE):
        return ""
    return f"outside {low_hz / 1e6:g} to {high_hz / 1e6:g} MS/s"


class PositionHead:
    """Outputs in [-1, 1] to metres, linearly and without clipping.

    Parameters
    ----------
    spec : HeadSpec
        Names of the axes and the coordinates in metres of -1 and 1.
    bundle_id : str
        Identity of the bundle.
    """

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
    """Real and imaginary parts to complex channels, times the spec's scale.

    Parameters
    ----------
    spec : HeadSpec
        Shape of the grid and scale.
    bundle_id : str
        Identity of the bundle.
    """

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


def make_head(
    spec: HeadSpec, bundle_id: str, threshold: float | None = None, rates_hz: tuple[float, float] = (0.0, 0.0)
) -> Head:
    """The head of the spec's task.

    Parameters
    ----------
    spec : HeadSpec
    bundle_id : str
        Identity of the bundle.
    threshold : float or None
        Of classification, see `ClassificationHead`; None for another task.
    rates_hz : (float, float)
        Of classification: lowest and highest sample rate trained at; (0, 0) when unknown.

    Raises
    ------
    ConfigurationError
        For a threshold out of range or of another task.
    """
    if spec.task == "classification":
        return ClassificationHead(spec, bundle_id, threshold, rates_hz)
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
