# SPDX-License-Identifier: GPL-3.0-or-later
"""Narrow channels side by side: transmission times, power ramps, and multiplexing of channels into one band."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .base import IQ, Emission, unit_power
from .shaping import Reals, from_turns

Span = tuple[float, float]
PAD_SAMPLES = 64


def spans(
    rng: np.random.Generator, duration_s: float, draw_on: Callable[[], float], draw_off: Callable[[], float]
) -> list[Span]:
    """Start and stop times in seconds of transmissions with pauses; one of them covers a random instant of the window.

    Parameters
    ----------
    rng : random generator.
    duration_s : length of the window.
    draw_on, draw_off : functions that draw the length of a transmission and of a pause in seconds.
    """
    on_s = draw_on()
    start = rng.uniform(0, duration_s) - rng.uniform(0.03, 0.97) * on_s
    found = [(start, start + on_s)]
    while (stop := found[0][0] - draw_off()) > 0:
        found.insert(0, (stop - draw_on(), stop))
    while (start := found[-1][1] + draw_off()) < duration_s:
        found.append((start, start + draw_on()))
    return found


def add_gate(envelope: Reals, rate_hz: float, span: Span, ramp_s: float, level: float = 1.0) -> slice:
    """Add a transmission with raised-cosine ramps to `envelope` [n].

    Parameters
    ----------
    envelope : changed in place.
    rate_hz : its sample rate.
    span : start and stop in seconds; the ramps are inside.
    ramp_s : length of a ramp.
    level : amplitude.

    Returns
    -------
    The samples of the transmission.
    """
    low, high = (int(np.clip(np.ceil(edge * rate_hz), 0, len(envelope))) for edge in span)
    ramp = max(ramp_s, 1e-9) * rate_hz
    edge = np.arange(low, min(high, low + 1 + int(ramp)))
    shape = np.full(max(high - low, 0), level, np.float32)
    rise = np.clip((edge - span[0] * rate_hz + 1) / ramp, 0, 1)
    shape[: len(edge)] *= np.sin(np.pi / 2 * rise) ** 2
    edge = np.arange(max(low, high - 1 - int(ramp)), high)
    fall = np.clip((span[1] * rate_hz - edge) / ramp, 0, 1)
    shape[len(shape) - len(edge) :] *= np.sin(np.pi / 2 * fall) ** 2
    envelope[low:high] += shape
    return slice(low, high)


def phasor(frequency_hz: NDArray, rate_hz: float, phase_turns: float = 0.0) -> IQ:
    """Constant-envelope signal with instantaneous frequency `frequency_hz` [n], in single precision for speed."""
    turns = np.cumsum(frequency_hz, dtype=np.float64)
    turns *= 1 / rate_hz
    turns += phase_turns
    return from_turns(turns)


def amplitude(rng: np.random.Generator, low_db: float, high_db: float = 0.0) -> float:
    """Amplitude factor of a level drawn uniformly in dB."""
    return float(10 ** (rng.uniform(low_db, high_db) / 20))


def raster(rng: np.random.Generator, count: int, step_hz: float, span_hz: float, apart: int = 1) -> NDArray[np.float64]:
    """Offsets of channels on a raster.

    Parameters
    ----------
    rng : random generator.
    count : most channels.
    step_hz : step of the raster.
    span_hz : width of the band.
    apart : least distance of two channels in steps.

    Returns
    -------
    Offsets in Hz.
    """
    steps = max(int(span_hz / (step_hz * apart)), 1)
    picks = rng.choice(steps, min(count, steps), replace=False) * apart
    if apart > 1:
        picks = picks + rng.integers(0, apart)
    return (picks - (steps * apart - 1) / 2) * step_hz + rng.uniform(-0.3, 0.3) * step_hz


def multiplex(channels: Sequence[IQ], offsets_hz: Sequence[float], rate_hz: float) -> tuple[IQ, float]:
    """Shift channels of equal length to their offsets and sum them, by their spectra.

    Returns
    -------
    The sum and its sample rate.
    """
    n_samples = len(channels[0])
    n_in = fft.next_fast_len(n_samples + PAD_SAMPLES)
    bin_hz = rate_hz / n_in
    top_bins = int(np.ceil(max(abs(offset) for offset in offsets_hz) / bin_hz))
    n_out = fft.next_fast_len(n_in + 2 * top_bins + 4)
    band = np.zeros(n_out, np.complex64)
    # The transform is periodic: a fade from the last to the first sample avoids splatter at the seam.
    fade = (np.cos(np.linspace(0, np.pi, n_in - n_samples)) / 2 + 0.5).astype(np.float32)
    for iq, offset_hz in zip(channels, offsets_hz, strict=True):
        spectrum = fft.fftshift(fft.fft(np.concatenate([iq, iq[-1] * fade + iq[0] * (1 - fade)])))
        start = n_out // 2 - n_in // 2 + round(offset_hz / bin_hz)
        band[start : start + n_in] += spectrum
    band *= np.float32(n_out / n_in)
    wide = fft.ifft(fft.ifftshift(band), overwrite_x=True)[: int(np.ceil(n_samples * n_out / n_in))]
    power = wide.real**2 + wide.imag**2
    wide[power < 1e-7 * power.max()] = 0  # remove the tails of the band limitation
    return wide, n_out * bin_hz


def side_by_side(
    channels: Sequence[IQ], offsets_hz: Sequence[float], rate_hz: float, channel_hz: float, placed: bool
) -> Emission:
    """One emission of several channels.

    Parameters
    ----------
    channels : complex64 [n] each.
    offsets_hz : their offsets.
    rate_hz : their sample rate.
    channel_hz : bandwidth of a channel; the occupied bandwidth is scaled so that the strongest channel has the drawn
        SNR.
    placed : see Emission.
    """
    powers = [float(np.mean(np.abs(iq) ** 2)) for iq in channels]
    iq, out_hz = multiplex(channels, offsets_hz, rate_hz)
    return Emission(unit_power(iq), out_hz, channel_hz * sum(powers) / max(powers), placed)


def stuffed(data: NDArray[np.int8]) -> NDArray[np.int8]:
    """HDLC bit stuffing: a zero after five consecutive ones (ISO/IEC 13239)."""
    text = "".join(map(str, data.tolist())).replace("11111", "111110")
    return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int8) - 48


def nrzi(data: NDArray[np.int8], start: int = 0) -> NDArray[np.int8]:
    """NRZI levels 0 or 1, which change on a zero bit."""
    return ((np.cumsum(1 - data) + start) % 2).astype(np.int8)


def hex_bits(text: str) -> NDArray[np.int8]:
    """Bits of a hexadecimal word, most significant first."""
    return np.array([int(bit) for digit in text for bit in f"{int(digit, 16):04b}"], np.int8)
