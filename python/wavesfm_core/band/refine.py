# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges of one emitter, measured anew in a zoomed view, and whether it is nothing but a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Samples
from .views import Zoomed

BINS = 256
FRAMES = 1024  # at most, spread over the view
ON_AIR = 0.2  # of the power of the strongest tenth of the frames
LINE_REST = 0.003  # of a line's power that may lie beside it
LINE_VARIATION = 0.3  # standard deviation of a line's power over its mean
NARROW_HZ = 16e3  # of the sidebands of a carrier, which does not count then: voice
CLIP = 2.0  # times the strongest beside it
OUTSIDE = 0.005  # of the power, on either side of the edges
SIGMAS = 3.0  # of the noise in what lies outside
NOISE_BIAS = 0.015  # that the noise may be wrong by
TAIL_SIGMAS = 1.5  # of the noise, under which a signal's tails end
NOISE_FRAMES = 1.6  # frames that overlap by half count as so many fewer; Hann bins are correlated
SPLASH = 5.0  # times the noise, or the power beside the span
LEAST_ALONE = 8  # frames without a splash
FLAT = 0.15  # of a view, on either side, that its filter may attenuate
LEAST_BESIDE = 6  # bins that say what the noise is
LEAST_QUIET = 16  # frames that do
STEADY = 1.0  # of the noise, over it, from which on what stays on between bursts is not the emitter's
PEDESTAL = 0.8  # of the span, which another receiver's noise fills; its distortion then counts as little
DEPTH = 0.01  # of the strongest bin, under which it is that
QUIET_SIGMAS = 2.5  # of the noise's power in a frame
NOISE_ERROR = 1.3  # of the detector's floor
TAILS_ERROR = 1.04  # of it, where what is found may be the tails of the signal


@dataclass(frozen=True)
class Edges:
    """Of an emitter: low_hz and high_hz from the middle of the band; is_line: a constant carrier and nothing else."""

    low_hz: float
    high_hz: float
    is_line: bool


def frames_of(samples: Samples) -> NDArray[np.float32]:
    """Power of Hann frames that overlap by half, float32 [frames, BINS], frequency rising; at most FRAMES of them."""
    if samples.size < BINS:
        samples = np.pad(samples, (0, BINS - samples.size))
    window = np.hanning(BINS + 1)[:-1].astype(np.float32)
    window /= np.sqrt(np.mean(window**2)) * BINS
    frames = np.lib.stride_tricks.sliding_window_view(samples, BINS)[:: BINS // 2]
    frames = frames[:: max(1, len(frames) // FRAMES)]
    power: NDArray[np.float32] = np.abs(np.fft.fftshift(np.fft.fft(frames * window, axis=1), axes=1)) ** 2
    return power.astype(np.float32)


def refine(
    view: Zoomed, low_hz: float, high_hz: float, noise: float, clear_hz: tuple[float, float] = (-math.inf, math.inf)
) -> Edges | None:
    """Occupied bandwidth within a span of frequencies: 0.5 % of the power lies below it, and 0.5 % above it.

    The share rises where noise would decide it. A steady carrier with narrow sidebands does not count as power,
    because it would hide them.

    Parameters
    ----------
    view : Zoomed
        Samples around the emitter, with some noise on both sides of it.
    low_hz, high_hz : float
        The span, from the middle of the band.
    noise : float
        Power of one of the view's BINS bins without a signal, relative to full scale.
    clear_hz : tuple of float
        Frequencies between which no other signal is expected.

    Returns
    -------
    Edges or None
        None where nothing stands out.

    References
    ----------
    ITU-R SM.443-4, occupied bandwidth, beta = 1 %.
    """
    power = frames_of(view.samples)
    step = view.rate_hz / BINS
    offset = BINS // 2 - view.centre_hz / step
    first = int(np.clip(np.floor(low_hz / step + offset), 0, BINS - 1))
    last = int(np.clip(np.ceil(high_hz / step + offset) + 1, first + 1, BINS))
    noise = _noise_of(power, first, last, noise)
    power = _without_splashes(power, first, last, noise)
    on = _on_air(power[:, first:last].sum(1))
    steady = _steady(power[~on], noise)
    recorded = np.count_nonzero(steady[first:last]) > PEDESTAL * (last - first)
    power = power[on]
    mean = power.mean(0, dtype=np.float64) - steady
    spread = noise * float(np.sqrt(NOISE_FRAMES / len(power)))
    limits = [int(np.clip(hz / step + offset, 0, BINS)) for hz in clear_hz]
    first, last = _with_tails(mean - noise, first, last, spread, limits)
    excess = mean[first:last] - noise
    if not (excess > noise * max(0.5, 4 / np.sqrt(len(power)))).any():
        return None
    if recorded:
        excess = np.where(excess > DEPTH * excess.max(), excess, 0.0)
    low, high = _occupied(excess, noise, spread)
    sidebands = _occupied(_without_line(excess), noise, spread)
    if (sidebands[1] - sidebands[0]) * step <= NARROW_HZ:
        low, high = min(low, sidebands[0]), max(high, sidebands[1])
    edges = (first + low - offset - 0.5) * step, (first + high - offset - 0.5) * step
    return Edges(*edges, _is_line(power[:, first:last], noise))


def _steady(power: NDArray[np.float32], noise: float) -> NDArray[np.float64]:
    """Power over the noise while the emitter is off, float64 [BINS]: the noise of another receiver, in a recording.

    It is zero where it shows in too few frames, or is no more than noise.
    """
    if len(power) < LEAST_QUIET:
        return np.zeros(BINS)
    excess = np.median(power, axis=0) / np.log(2) - noise  # the median: some frames hold the begin or end of a burst
    return np.where(excess > STEADY * noise, excess, 0.0)


def _noise_of(power: NDArray[np.float32], first: int, last: int, expected: float) -> float:
    """Noise power of a bin: of the frames without the signal, or from the view beside the span.

    The tails of the signal lie beside it too, so that what is found there can only be a little more than expected.
    """
    margin = int(FLAT * BINS)
    flat = power[:, margin : BINS - margin]
    quiet = flat[flat.mean(1) < expected * (1 + QUIET_SIGMAS / np.sqrt(flat.shape[1]))]
    if len(quiet) >= LEAST_QUIET:
        found, above = float(quiet.mean()), NOISE_ERROR
    else:
        beside = np.concatenate([power[:, margin:first].mean(0), power[:, last : BINS - margin].mean(0)])
        if beside.size < LEAST_BESIDE:
            return expected
        found, above = float(np.median(beside)), TAILS_ERROR
    return float(np.clip(found, expected / NOISE_ERROR, expected * above))


def _without_splashes(power: NDArray[np.float32], first: int, last: int, noise: float) -> NDArray[np.float32]:
    """The frames in which the span stands out; in a splash of another signal all of the view does."""
    margin = int(FLAT * BINS)
    beside = np.concatenate([power[:, margin:first], power[:, last : BINS - margin]], axis=1)
    if beside.shape[1] < LEAST_BESIDE:
        return power
    level = beside.mean(1)
    alone = (level < SPLASH * noise) | (power[:, first:last].mean(1) > SPLASH * level)
    return power[alone] if np.count_nonzero(alone) >= LEAST_ALONE else power


def _with_tails(
    excess: NDArray[np.float64], first: int, last: int, spread: float, limits: Sequence[int]
) -> tuple[int, int]:
    """The span and what lies beside it while its mean over a few bins is more than noise.

    limits: bins that it may not pass; nor may it pass the flat part of the view.
    """
    width = max(3, (last - first) // 8)
    smooth = np.convolve(excess, np.full(width, 1 / width), "same")
    quiet = np.flatnonzero(smooth < TAIL_SIGMAS * spread / np.sqrt(width))
    margin = int(FLAT * BINS)
    below, above = quiet[quiet < first], quiet[quiet >= last]
    low = max(int(below[-1]) + 1 if below.size else 0, margin, limits[0])
    high = min(int(above[0]) if above.size else BINS, BINS - margin, limits[1])
    return min(first, low), max(last, high)


def _on_air(power: NDArray[np.float32]) -> NDArray[np.bool_]:
    strongest = np.sort(power)[-max(1, power.size // 10) :].mean()
    on: NDArray[np.bool_] = power >= ON_AIR * strongest
    return on


def _occupied(excess: NDArray[np.float64], noise: float, spread: float) -> tuple[float, float]:
    """Places, between bins, below and above which OUTSIDE of the power lies, or what noise of this spread may be."""
    top = int(np.argmax(excess))
    bins = np.arange(excess.size)
    of_noise = SIGMAS * spread * np.sqrt(bins) + NOISE_BIAS * noise * bins
    total = max(float(excess[excess > spread].sum()), float(excess[top]))
    return top + 1 - _reach(excess[top::-1], of_noise, total), top + _reach(excess[top:], of_noise, total)


def _reach(excess: NDArray[np.float64], of_noise: NDArray[np.float64], total: float) -> float:
    """Bins from the peak outwards until what is left is OUTSIDE of the total."""
    left = np.cumsum(excess[::-1])[::-1]
    enough = np.flatnonzero(left > np.maximum(OUTSIDE * total, of_noise[excess.size - 1 :: -1]))
    if enough.size == 0:
        return 1.0
    last = int(enough[-1])
    part = (left[last] - OUTSIDE * total) / max(float(excess[last]), 1e-300)
    return last + float(np.clip(part, 0.0, 1.0))


def _without_line(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """The five bins around the strongest brought down towards the rest: the sidebands of a carrier then count."""
    top = int(np.argmax(excess))
    near = slice(max(0, top - 2), top + 3)
    rest = np.delete(excess, near)
    clipped = excess.copy()
    clipped[near] = np.minimum(clipped[near], CLIP * rest.max(initial=0.0) if rest.any() else np.inf)
    return clipped


def _is_line(power: NDArray[np.float32], noise: float) -> bool:
    """Whether one bin and its neighbours hold all that is more than noise, and hold it evenly over time."""
    mean = power.mean(0)
    top = int(np.argmax(mean))
    near = slice(max(0, top - 3), top + 4)
    rest = np.delete(mean, near)
    if len(power) < 8 or rest.size < 8:
        return False
    level = min(noise, float(np.median(rest)))
    spread = 4 * level * np.sqrt(NOISE_FRAMES * rest.size / len(power))
    line = power[:, near].sum(1)
    if float(rest.sum()) - rest.size * level > max(LINE_REST * float(line.mean()), spread):
        return False
    return bool(line.std() < LINE_VARIATION * line.mean())
