# SPDX-License-Identifier: GPL-3.0-or-later
"""Data classes that pass between the modules: tiles and slots in, answers out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.complex64]
Tensor = NDArray[np.float32]

NOISE = "noise"  # the class of an empty band, and the label of a tile that the power gate held back
UNKNOWN = "unknown"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StreamTime(NamedTuple):
    """Absolute time as in GNU Radio's rx_time: whole seconds since the epoch, and the fraction in [0, 1)."""

    full_s: int
    frac_s: float

    def advanced(self, seconds: float) -> StreamTime:
        """This time `seconds` later."""
        whole = int(np.floor(self.frac_s + seconds))
        return StreamTime(self.full_s + whole, self.frac_s + seconds - whole)

    def seconds_after(self, earlier: StreamTime) -> float:
        """Seconds from `earlier` to this time, without the rounding of a float of the whole epoch."""
        return (self.full_s - earlier.full_s) + (self.frac_s - earlier.frac_s)

    def as_dict(self) -> dict[str, object]:
        """Exact for JSON: whole seconds, fraction, and ISO 8601 text in UTC to the nanosecond (None past year 9999)."""
        full_s, nanoseconds = divmod(self.full_s * 10**9 + round(self.frac_s * 1e9), 10**9)
        try:
            text = (EPOCH + timedelta(seconds=full_s)).strftime("%Y-%m-%dT%H:%M:%S")
        except OverflowError:
            return {"full_s": self.full_s, "frac_s": self.frac_s, "utc": None}
        return {"full_s": self.full_s, "frac_s": self.frac_s, "utc": f"{text}.{nanoseconds:09d}Z"}

    def __float__(self) -> float:
        return self.full_s + self.frac_s


@dataclass(frozen=True, slots=True)
class Tile:
    """One prepared tile and its place in the stream."""

    data: Tensor
    """float32 [C, height, width], ready for the engine."""
    start_sample: int
    """Absolute index of the tile's first sample in the stream."""
    n_samples: int
    """Samples from the first to the last that the tile covers, with the gaps between."""
    rate_hz: float = 0.0
    """Sample rate in Hz; 0.0 when unknown."""
    centre_hz: float | None = None
    """Centre frequency in Hz; None when unknown."""
    time: StreamTime | None = None
    """Time of the first sample; None when unknown."""
    partial: bool = False
    """True when the tile has fewer rows than the bundle's full tile."""
    floor_db: float = 0.0
    """Median of the tile in dB relative to full scale per FFT bin: its noise floor in most tiles."""
    peak_db: float = 0.0
    """99.9 % quantile of the tile in dB relative to full scale per FFT bin."""
    n_nonfinite: int = 0
    """Samples that were NaN, infinite or beyond 1e15."""
    arrived_s: float | None = None
    """time.monotonic() at the arrival of the tile's last sample; None offline."""
    n_gap_samples: int = 0
    """Samples of digital silence between the first and the last: left out of the tile."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer for one tile, or the power gate's."""

    label: str
    """A label of the bundle; UNKNOWN when the confidence is below the threshold; NOISE when the gate held it back."""
    confidence: float | None
    """Probability of the most probable label; None when the model was not asked."""
    probabilities: Mapping[str, float]
    """Probability of each label; empty when the model was not asked."""
    start_sample: int
    """Absolute index of the tile's first sample in the stream."""
    n_samples: int
    """Samples from the first to the last that the tile covers."""
    rate_hz: float
    """Sample rate in Hz; 0.0 when unknown."""
    centre_hz: float | None
    """Centre frequency in Hz; None when unknown."""
    time: StreamTime | None
    """Time of the first sample; None when unknown."""
    partial: bool
    """True when the tile has fewer rows than the bundle's full tile."""
    latency_s: float | None
    """Seconds from the arrival of the tile's last sample to this prediction; None offline."""
    bundle_id: str
    """Identity of the bundle that answered."""
    n_nonfinite: int = 0
    """Samples of the tile that were NaN, infinite or beyond 1e15."""
    inferred: bool = True
    """True when the model was asked; False when the power gate held the tile back."""
    floor_db: float = 0.0
    """The tile's median in dB relative to full scale per FFT bin."""
    peak_db: float = 0.0
    """The tile's 99.9 % quantile in dB relative to full scale per FFT bin."""
    margin_db: float = 0.0
    """peak_db over the noise floor known for this tuning, or over floor_db where none is known."""
    rate_note: str = ""
    """"" or why the sample rate makes this prediction doubtful: "unknown" or "outside 0.25 to 25 MS/s"."""
    n_gap_samples: int = 0
    """Samples of digital silence that were left out of the tile."""

    @property
    def gated(self) -> bool:
        """True when the power gate held the tile back."""
        return not self.inferred

    def as_dict(self) -> dict[str, object]:
        """Plain types for JSON; `time` as `StreamTime.as_dict` or None."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": dict(self.probabilities),
            "inferred": self.inferred,
            "start_sample": self.start_sample,
            "n_samples": self.n_samples,
            "rate_hz": self.rate_hz,
            "rate_note": self.rate_note,
            "centre_hz": self.centre_hz,
            "time": None if self.time is None else self.time.as_dict(),
            "partial": self.partial,
            "latency_s": self.latency_s,
            "floor_db": self.floor_db,
            "peak_db": self.peak_db,
            "margin_db": self.margin_db,
            "n_nonfinite": self.n_nonfinite,
            "n_gap_samples": self.n_gap_samples,
            "bundle_id": self.bundle_id,
        }


@dataclass(frozen=True, slots=True)
class PositionEstimate:
    """The model's estimate of a transmitter's position."""

    position_m: tuple[float, ...]
    """Coordinates in metres."""
    axes: tuple[str, ...]
    """Names of the coordinates."""
    bundle_id: str
    """Identity of the bundle that answered."""

    def as_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return {"position_m": dict(zip(self.axes, self.position_m)), "bundle_id": self.bundle_id}


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The received grid of one OFDM slot and its place in the stream."""

    grid: NDArray[np.complex64]
    """complex64 [antennas, symbols, subcarriers], subcarriers in the order of rising frequency."""
    start_sample: int
    """Absolute index of the slot's first sample, that of its first cyclic prefix."""
    n_samples: int
    """Samples that the slot covers."""
    rate_hz: float = 0.0
    """Sample rate in Hz; 0.0 when unknown."""
    time: StreamTime | None = None
    """Time of the first sample; None when unknown."""
    n_nonfinite: int = 0
    """Samples of all antennas that were NaN or infinite and were replaced by zero."""
    sync_metric: float | None = None
    """Correlation that found the slot, 0 to 1; None where a tag marked it."""
    arrived_s: float | None = None
    """time.monotonic() at the arrival of the slot's last sample; None offline."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelEstimate:
    """An estimate of the channel of one slot, and its quality as measured at the pilots."""

    channel: NDArray[np.complex64]
    """complex64 [antennas, symbols, subcarriers], in the units of the received grid."""
    bundle_id: str
    """Identity of the model's bundle; "" without a model."""
    method: str = ""
    """"ls", "ls-nearest", "lmmse", "lmmse-tf" or "model"; "" when unknown."""
    noise_power: float | None = None
    """Per antenna and subcarrier; None when not measured."""
    snr_db: float | None = None
    """Limited to -40 to 80 dB; None when not measured."""
    residual: float | None = None
    """Mean |y - h x|^2 at the pilots over noise_power: about 1 for a right estimate, more for a wrong one, 0 for least
    squares (which pass through the pilots). None when not measured."""
    backed_off: bool = False
    """True when least squares replaced `method`; `residual` is that of the rejected estimate."""
    start_sample: int = 0
    """Absolute index of the slot's first sample."""
    n_samples: int = 0
    """Samples that the slot covers."""
    time: StreamTime | None = None
    """Time of the first sample; None when unknown."""
    latency_s: float | None = None
    """Seconds from the arrival of the slot's last sample to this estimate; None offline."""
    n_nonfinite: int = 0
    """Samples of the slot that were NaN or infinite."""
    nmse_db: float | None = None
    """Expected mean squared error over the channel's power: the theory's for `method` at this SNR (LMMSE's for a
    model), or more where the residual exceeds the noise. None when unknown."""

    @property
    def gated(self) -> bool:
        """Always False: the power gate is for tiles."""
        return False

    def facts(self) -> dict[str, object]:
        """All but the channel, in plain types for JSON; `time` as `StreamTime.as_dict` or None."""
        return {
            "method": self.method,
            "noise_power": self.noise_power,
            "snr_db": self.snr_db,
            "residual": self.residual,
            "nmse_db": self.nmse_db,
            "backed_off": self.backed_off,
            "start_sample": self.start_sample,
            "n_samples": self.n_samples,
            "time": None if self.time is None else self.time.as_dict(),
            "latency_s": self.latency_s,
            "n_nonfinite": self.n_nonfinite,
            "bundle_id": self.bundle_id,
        }

    def as_dict(self) -> dict[str, object]:
        """The real and the imaginary parts as nested lists, and `facts`: plain types for JSON."""
        return {"real": self.channel.real.tolist(), "imag": self.channel.imag.tolist(), **self.facts()}


Estimate = Prediction | PositionEstimate | ChannelEstimate


@dataclass(slots=True)
class Accounts:
    """Counts of tiles by outcome; at every moment tiles_in = inferred + gated + dropped + failed + waiting."""

    tiles_in: int = 0
    """Tiles submitted."""
    inferred: int = 0
    """Tiles that the engine answered."""
    gated: int = 0
    """Tiles that the power gate held back."""
    dropped: int = 0
    """Tiles discarded without an answer."""
    failed: int = 0
    """Tiles whose inference failed."""
    waiting: int = 0
    """Tiles in the queue or in the engine."""
    batches: int = 0
    """Batches processed."""
    last_error: str = ""
    """Text of the last error; "" for none."""
    extra: dict[str, float] = field(default_factory=dict)
    """Further counts by name."""

    def closes(self) -> bool:
        """Whether every tile is accounted for."""
        return self.tiles_in == self.inferred + self.gated + self.dropped + self.failed + self.waiting
