# SPDX-License-Identifier: GPL-3.0-or-later
"""From an emission to what a receiver writes down: offset, paths, fading, noise, neighbours, front end, converter.

Resampling, carrier offset, multipath, receiver filter and noise are one pass in the frequency domain, so a tile costs
one forward transform at the emission's rate and one inverse at the receiver's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import scipy.fft as fft
from numpy.typing import NDArray

from .base import IQ, Emission
from .shaping import from_turns

Spectrum = NDArray[np.complex64]
SMOOTH_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)
MAX_RATE_ERROR = 60e-6
MOST_SMOOTH = 1 << 26
UNIFORM_VALUES = 65536  # from this many on, the noise in the spectrum is drawn from a uniform distribution


@dataclass(frozen=True)
class Reception:
    """What one receiver and one path do; all draws of a tile in one place, so that a tile can be described.

    snr_db: signal-to-noise ratio in the emission's occupied bandwidth while it is on the air.
    offset_hz, drift_hz: carrier offset at the start and how far it moves over the tile.
    path_delays_s, path_gains: multipath taps (first is 1 at 0); fading_hz: Doppler spread of slow fading, 0 for none.
    linewidth_hz: of both oscillators together, phase noise as a random walk (skirts that only strong signals show).
    rolloff: fraction of the band's edge that the receiver's filter takes, edge_db: its attenuation at the very edge.
    image_db: IQ image below the signal (inf: none); dc_db: DC spike over the noise per sample (-inf: none).
    cubic_db: third harmonic of a full-scale tone on either rail, below it (inf: none); lines at -3 times an offset.
    gain_steps: (position in [0, 1), dB) each; bits: 0 for float samples; level_db: RMS at the converter, dBFS.
    converter_lsb: noise of the converter itself, in steps.
    noise_dbfs: where given, the level is set so that the thermal noise has this power per sample.
    squelch_s: the recording was cut around bursts: zeros where nothing was 6 dB over the noise for this long (0: not).
    """

    snr_db: float = 30.0
    offset_hz: float = 0.0
    drift_hz: float = 0.0
    path_delays_s: tuple[float, ...] = (0.0,)
    path_gains: tuple[complex, ...] = (1.0,)
    fading_hz: float = 0.0
    linewidth_hz: float = 0.0
    rolloff: float = 0.0
    edge_db: float = 0.0
    image_db: float = np.inf
    image_phase: float = 0.0
    dc_db: float = -np.inf
    cubic_db: float = np.inf
    gain_steps: tuple[tuple[float, float], ...] = ()
    bits: int = 0
    level_db: float = -12.0
    converter_lsb: float = 0.3
    noise_dbfs: float | None = None
    squelch_s: float = 0.0
    neighbours: tuple[tuple[Emission, float, float], ...] = field(default=(), repr=False)


def draw_reception(rng: np.random.Generator, rate_hz: float, snr_db: float | None = None) -> Reception:
    """Draw the receiver and the path, without carrier offset and neighbours, which depend on the emission."""
    if snr_db is None:
        snr_db = rng.uniform(30, 60) if rng.random() < 0.2 else rng.uniform(-5, 30)
    n_paths = int(rng.integers(1, 5)) if rng.random() < 0.6 else 1
    spread_s = 10 ** rng.uniform(-7.5, -5.3)
    delays = np.concatenate([[0.0], rng.exponential(spread_s, n_paths - 1)])
    powers = np.exp(-delays / spread_s) * rng.uniform(0.1, 1.0, n_paths)
    gains = np.sqrt(powers) * np.exp(2j * np.pi * rng.random(n_paths))
    gains[0] = 1.0
    steps = ()
    if rng.random() < 0.1:
        steps = tuple((float(rng.random()), float(rng.uniform(-10, 10))) for _ in range(rng.integers(1, 5)))
    return Reception(
        snr_db=float(snr_db),
        drift_hz=float(rng.normal() * min(300.0, 1e-4 * rate_hz)) if rng.random() < 0.5 else 0.0,
        path_delays_s=tuple(map(float, delays)),
        path_gains=tuple(map(complex, gains / np.linalg.norm(gains))),
        fading_hz=float(10 ** rng.uniform(-0.5, 1.7)) if rng.random() < 0.25 else 0.0,
        linewidth_hz=float(10 ** rng.uniform(-1, 1.5)) if snr_db > 20 and rng.random() < 0.5 else 0.0,
        rolloff=float(rng.uniform(0.02, 0.3)) if rng.random() < 0.7 else 0.0,
        edge_db=float(rng.uniform(1, 40)),
        image_db=float(rng.uniform(20, 50)) if rng.random() < 0.5 else np.inf,
        image_phase=float(rng.uniform(0, 2 * np.pi)),
        dc_db=float(rng.uniform(-30, 5)) if rng.random() < 0.5 else -np.inf,
        cubic_db=float(rng.uniform(15, 45)) if rng.random() < 0.3 else np.inf,
        gain_steps=steps,
        bits=int(rng.choice([0, 8, 12, 16], p=[0.15, 0.5, 0.2, 0.15])),
        level_db=float(rng.uniform(-40, -8)) if rng.random() < 0.85 else float(rng.uniform(-8, 3)),
        converter_lsb=float(rng.uniform(0.05, 0.6)) if rng.random() < 0.8 else 0.0,
        squelch_s=float(10 ** rng.uniform(-4, -2.3)) if snr_db > 10 and rng.random() < 0.12 else 0.0,
    )


def receive(rng: np.random.Generator, emission: Emission, reception: Reception, rate_hz: float, n_samples: int) -> IQ:
    """Complex64 [n_samples] at `rate_hz`, full scale 1.

    The noise density follows from snr_db and the emission's occupied bandwidth; an emission of only zeros gives noise.
    """
    n_fft, n_native = _transform_lengths(n_samples, len(emission.iq), rate_hz / emission.rate_hz)
    spectrum = np.zeros(n_fft, np.complex64)
    _add_emission(rng, spectrum, emission, reception, rate_hz, n_native, reception.offset_hz)
    for neighbour, offset_hz, gain_db in reception.neighbours:
        _, native = _transform_lengths(n_fft, len(neighbour.iq), rate_hz / neighbour.rate_hz, exact=n_fft)
        _add_emission(rng, spectrum, neighbour, reception, rate_hz, native, offset_hz, 10 ** (gain_db / 20))
    noise_power = 10 ** (-reception.snr_db / 10) * rate_hz / emission.occupied_hz
    _add_noise(rng, spectrum, np.sqrt(noise_power * n_fft / 2))
    _filter_and_dc(rng, spectrum, reception, noise_power)
    iq = fft.ifft(spectrum, overwrite_x=True, workers=1)[:n_samples]
    heard = _heard(iq, reception, noise_power, rate_hz)
    return _front_end(rng, iq, reception, noise_power) * heard


def _add_noise(rng: np.random.Generator, spectrum: Spectrum, scale: float) -> None:
    """Add white noise to all bins. Uniform values are cheaper, and a sample sums so many that it is Gaussian."""
    values = spectrum.view(np.float32)
    if len(values) < UNIFORM_VALUES:
        values += np.float32(scale) * rng.standard_normal(len(values), dtype=np.float32)
        return
    drawn = rng.random(len(values), dtype=np.float32)
    drawn -= np.float32(0.5)
    drawn *= np.float32(scale * np.sqrt(12))
    values += drawn


def _heard(iq: IQ, reception: Reception, noise_power: float, rate_hz: float) -> NDArray[np.float32] | np.float32:
    """1 where a squelch (or a person with an editor) keeps the samples, 0 elsewhere; 1 where there are no gaps."""
    block = max(16, int(20e-6 * rate_hz))
    n_blocks = len(iq) // block
    if not reception.squelch_s or n_blocks < 2 or noise_power > 0.1:
        return np.float32(1)
    power = np.square(iq[: n_blocks * block].view(np.float32)).reshape(n_blocks, -1).sum(1) / block
    above = np.flatnonzero(power > 4 * noise_power)
    hang = int(np.ceil(reception.squelch_s * rate_hz / block))
    edges = np.zeros(n_blocks + hang + 1, np.int64)
    np.add.at(edges, above, 1)
    np.add.at(edges, above + hang, -1)
    is_open = np.cumsum(edges)[:n_blocks] > 0
    if not is_open.any():
        return np.float32(1)
    heard = np.repeat(is_open, block).astype(np.float32)
    return np.concatenate([heard, np.full(len(iq) - len(heard), heard[-1], np.float32)])


def _transform_lengths(n_samples: int, n_native: int, ratio: float, exact: int = 0) -> tuple[int, int]:
    """Fast lengths (receiver, emission) whose ratio errs by at most MAX_RATE_ERROR: the sample-rate offset."""
    if exact:
        return exact, max(1, round(exact / ratio))
    wanted = max(16, round(n_samples / ratio))
    native = wanted
    for _ in range(8):
        native = fft.next_fast_len(native)
        centre = round(native * ratio)
        reach = max(1, int(centre * MAX_RATE_ERROR))
        low, high = np.searchsorted(_smooth_numbers(), (max(centre - reach, n_samples), centre + reach + 1))
        if low < high:
            smooth = _smooth_numbers()[low:high]
            return int(smooth[np.argmin(np.abs(smooth - native * ratio))]), native
        native += 1
    n_fft = fft.next_fast_len(n_samples)
    return n_fft, max(1, round(n_fft / ratio))


@cache
def _smooth_numbers() -> NDArray[np.int64]:
    """Numbers up to MOST_SMOOTH without a prime factor beyond SMOOTH_PRIMES, sorted."""
    numbers = np.ones(1, np.int64)
    for prime in SMOOTH_PRIMES:
        powers = prime ** np.arange(int(np.log(MOST_SMOOTH) / np.log(prime)) + 1)
        products = np.multiply.outer(numbers, powers).ravel()
        numbers = products[products <= MOST_SMOOTH]
    return np.sort(numbers)


def _add_emission(
    rng: np.random.Generator,
    spectrum: Spectrum,
    emission: Emission,
    reception: Reception,
    rate_hz: float,
    n_native: int,
    offset_hz: float,
    gain: float = 1.0,
) -> None:
    """Resample, shift and filter by the multipath: bins of the emission onto bins of the receiver."""
    iq = emission.iq[:n_native]
    if not iq.any():
        return
    if len(iq) < n_native:
        iq = np.concatenate([iq, np.zeros(n_native - len(iq), np.complex64)])
    iq = _fade_and_drift(rng, iq, emission.rate_hz, reception)
    bins = fft.fft(iq, workers=1)
    n_fft = len(spectrum)
    shift = round(offset_hz * n_fft / rate_hz)
    low = max(-(n_native // 2), -(n_fft // 2) - shift)
    high = min((n_native + 1) // 2, (n_fft + 1) // 2 - shift)
    if low >= high:
        return
    response = _multipath(reception, np.linspace(low + shift, high + shift, 513) * (rate_hz / n_fft))
    for first, last in ((low, min(high, 0)), (max(low, 0), high)):
        if first >= last:
            continue
        source = bins[first % n_native : (last - 1) % n_native + 1]
        weight = np.interp(np.arange(first, last), np.linspace(low, high, 513), response) * (gain * n_fft / n_native)
        source = source * weight.astype(np.complex64)
        crossing = min(max(-shift, first), last)  # where the target index wraps from negative to positive frequencies
        for a, b in ((first, crossing), (crossing, last)):
            if a < b:
                target = (a + shift) % n_fft
                spectrum[target : target + b - a] += source[a - first : b - first]


def _multipath(reception: Reception, frequency_hz: NDArray) -> NDArray[np.complex128]:
    delays = np.array(reception.path_delays_s)
    return np.exp(-2j * np.pi * np.outer(frequency_hz, delays)) @ np.array(reception.path_gains)


def _fade_and_drift(rng: np.random.Generator, iq: IQ, rate_hz: float, reception: Reception) -> IQ:
    """Slow Rician fading (K = 4), a linear carrier drift, and phase noise."""
    n = len(iq)
    if reception.fading_hz and reception.fading_hz * n / rate_hz > 0.05:
        n_points = int(min(max(4, 4 * reception.fading_hz * n / rate_hz), 4096))
        points = 0.9 + 0.32 * (rng.standard_normal(n_points) + 1j * rng.standard_normal(n_points))
        iq = iq * np.interp(np.linspace(0, n_points - 1, n), np.arange(n_points), points).astype(np.complex64)
    if reception.drift_hz:
        t = np.arange(n, dtype=np.float64)
        iq = iq * from_turns(0.5 * reception.drift_hz / rate_hz / n * t * t)
    if reception.linewidth_hz:
        step = np.float32(np.sqrt(reception.linewidth_hz / (2 * np.pi * rate_hz)))
        iq = iq * from_turns(np.cumsum(step * rng.standard_normal(n, dtype=np.float32), dtype=np.float64))
    return iq.astype(np.complex64, copy=False)


def _filter_and_dc(rng: np.random.Generator, spectrum: Spectrum, reception: Reception, noise_power: float) -> None:
    """The receiver's filter takes the band's edges; the DC spike has a narrow 1/f skirt."""
    n = len(spectrum)
    if reception.rolloff > 0:
        edge = max(1, int(reception.rolloff * n / 2))
        taper = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
        loss = (10 ** (-reception.edge_db / 20 * taper)).astype(np.float32)
        spectrum[n // 2 - edge : n // 2] *= loss
        spectrum[n // 2 : n // 2 + edge] *= loss[::-1]
    if np.isfinite(reception.dc_db):
        amplitude = n * np.sqrt(noise_power) * 10 ** (reception.dc_db / 20)
        spectrum[0] += amplitude * np.exp(2j * np.pi * rng.random())
        k = np.arange(1, min(64, n // 4))
        skirt = 0.05 * amplitude * (rng.standard_normal(len(k)) + 1j * rng.standard_normal(len(k))) / k
        spectrum[k] += skirt.astype(np.complex64)
        spectrum[-k] += np.conj(skirt).astype(np.complex64)


def _front_end(rng: np.random.Generator, iq: IQ, reception: Reception, noise_power: float) -> IQ:
    """Gain steps, IQ imbalance, then the converter: level, odd-order distortion of each rail, clipping, rounding."""
    for position, step_db in reception.gain_steps:
        iq[int(position * len(iq)) :] *= np.float32(10 ** (step_db / 20))
    if np.isfinite(reception.image_db):
        image = 10 ** (-reception.image_db / 20) * np.exp(1j * reception.image_phase)
        iq = iq + np.complex64(image) * np.conj(iq)
    values = np.ascontiguousarray(iq, np.complex64).view(np.float32)
    if reception.noise_dbfs is not None:
        scale = 10 ** (reception.noise_dbfs / 20) / np.sqrt(noise_power)
    else:
        rms = float(np.sqrt(np.mean(np.square(values[:: max(1, len(values) // 65536)])) + 1e-30))
        scale = 10 ** (reception.level_db / 20) / rms
    values = values * np.float32(scale)
    if np.isfinite(reception.cubic_db):  # cos^3 holds a quarter of the third harmonic
        rails = np.clip(values, -1, 1)
        values -= np.float32(4 * 10 ** (-reception.cubic_db / 20)) * rails * rails * rails
    if reception.bits:
        steps = np.float32(2 ** (reception.bits - 1))
        values *= steps
        # Thermal noise far below one step would become exact zeros; most converters have some noise of their own.
        if reception.converter_lsb:
            spread = np.float32(reception.converter_lsb * np.sqrt(12))  # uniform values of the same power are cheaper
            values += spread * (rng.random(len(values), dtype=np.float32) - np.float32(0.5))
        np.rint(values, out=values)
        np.clip(values, -steps, steps - 1, out=values)
        values /= steps
    return values.view(np.complex64)
