# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary that passes between the modules: tiles in, answers out; shapes, units and dtypes stated once."""

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
    """Absolute time as GNU Radio's rx_time has it: whole seconds since the epoch and the fraction in [0, 1)."""

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
    """Where the model places a transmitter: position_m in metres along `axes`; bundle_id: of the model that said so."""

    position_m: tuple[float, ...]
    axes: tuple[str, ...]
    bundle_id: str

    def as_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return {"position_m": dict(zip(self.axes, self.position_m)), "bundle_id": self.bundle_id}


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """What was received in one OFDM slot, after the FFT, and where in the stream it came from.

    grid: complex64 [antennas, symbols, subcarriers], the subcarriers in the order of rising frequency.
    start_sample: absolute index of the slot's first sample (of its first cyclic prefix); n_samples: that it covers.
    rate_hz: sample rate, 0.0 when unknown; time: of the first sample, None when unknown.
    n_nonfinite: samples of all antennas that were NaN or infinite and were taken as zero.
    sync_metric: of the correlation that found the slot, 0 to 1; None where a tag did.
    arrived_s: time.monotonic() at which the slot's last sample was there; None offline.
    """

    grid: NDArray[np.complex64]
    start_sample: int
    n_samples: int
    rate_hz: float = 0.0
    time: StreamTime | None = None
    n_nonfinite: int = 0
    sync_metric: float | None = None
    arrived_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ChannelEstimate:
    """What an estimator takes the channel to be, and what the pilots say of it.

    channel: complex64 [antennas, symbols, subcarriers], in the units of the received grid; bundle_id: of the model, ""
    where there was none.
    method: "ls", "ls-nearest", "lmmse", "lmmse-tf" or "model", the one that made `channel`; "" when not said.
    noise_power: measured at the pilots, per antenna and subcarrier; snr_db: measured there, limited to -40 to 80 dB.
    residual: mean |y - h x|^2 at the pilots over noise_power: about 1 when h is right, and well above when not; 0 for
        least squares, which go through the pilots. These three are None where nothing measured them.
    backed_off: least squares stand here in place of another method's answer, whose residual this is.
    nmse_db: the mean squared error to be expected, over the channel's power; None where unknown. It is what theory says
        of `method` at this SNR (of LMMSE in place of a model), and what the residual shows beyond the noise.
    start_sample, n_samples, time, n_nonfinite: of the slot; latency_s: from the arrival of the slot's last sample to
        the making of this estimate, None offline.
    """

    channel: NDArray[np.complex64]
    bundle_id: str
    method: str = ""
    noise_power: float | None = None
    snr_db: float | None = None
    residual: float | None = None
    backed_off: bool = False
    start_sample: int = 0
    n_samples: int = 0
    time: StreamTime | None = None
    latency_s: float | None = None
    n_nonfinite: int = 0
    nmse_db: float | None = None

    @property
    def gated(self) -> bool:
        """Never: no gate holds a slot back."""
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
    inferred: int = 0
    gated: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    batches: int = 0
    last_error: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    def closes(self) -> bool:
        """Whether every tile is accounted for."""
        return self.tiles_in == self.inferred + self.gated + self.dropped + self.failed + self.waiting
