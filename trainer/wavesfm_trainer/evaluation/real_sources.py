# SPDX-License-Identifier: GPL-3.0-or-later
"""Real recordings as a source of training tiles: pieces of them, seen by a receiver of the same or a lower rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft as fft
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_core.recordings.iqfile import open_recording

from ..data.tile_dataset import Tiles
from ..signals.base import IQ
from ..signals.views import ALL_LABELS
from .evaluate_recordings import ManifestRow

MOST_SAMPLES = 5_000_000  # of a recording
EXTENT_BINS = 256
QUANTILE_20 = 0.223  # of an exponential distribution of mean 1, the power of noise in a bin
DRAWS_PER_TILE = 200
WIDE_HZ = 1e6  # recordings of more hold signals that a receiver may see a part of
LEAST_POWER = 1e-3  # of a piece, over the mean power of its recording


@dataclass(frozen=True)
class RealSource:
    """A recording and where its signal stands in it."""

    iq: IQ
    """complex64 [n], mean power 1, without its mean."""
    rate_hz: float
    """Sample rate in Hz."""
    label: str
    """Label of the signal."""
    low_hz: float
    """Lower edge of the signal, Hz from the middle of the band."""
    high_hz: float
    """Upper edge of the signal."""
    first: int
    """First sample of the signal."""
    last: int
    """One past its last sample."""


def real_sources(rows: Sequence[ManifestRow], most_s: float = 1.0) -> list[RealSource]:
    """The recordings of documented rate, the first `most_s` seconds of each."""
    sources = []
    for row in rows:
        if not row.rate_hz:
            continue
        with open_recording(row.path, rate_hz=row.rate_hz, sample_format=row.sample_format) as recording:
            stop = min(recording.n_samples, int(most_s * row.rate_hz), MOST_SAMPLES)
            iq = np.concatenate(list(recording.blocks(stop=stop))).astype(np.complex64)
        iq = iq - iq.mean()
        iq /= np.float32(np.sqrt(np.mean(np.abs(iq) ** 2)))
        sources.append(RealSource(iq, row.rate_hz, row.label, *extent(iq, row.rate_hz)))
    return sources


def extent(iq: IQ, rate_hz: float) -> tuple[float, float, int, int]:
    """Band in Hz and first and last sample of what stands over the recording's own floor; all of it if nothing does."""
    frames = iq[: len(iq) // EXTENT_BINS * EXTENT_BINS].reshape(-1, EXTENT_BINS)
    window = np.hanning(EXTENT_BINS).astype(np.float32)
    power = fft.fftshift(np.abs(fft.fft(frames * window, axis=1)) ** 2, axes=1)
    floor = np.quantile(power, 0.2) / QUANTILE_20
    peak = np.quantile(power, 0.99, axis=0)
    on = np.flatnonzero(peak > max(8 * floor, 1e-2 * peak.max()))
    if on.size == 0:
        return -rate_hz / 2, rate_hz / 2, 0, len(iq)
    rows = np.flatnonzero(power[:, on].mean(axis=1) > 4 * floor)
    rows = rows if rows.size else np.arange(len(power))
    low, high = ((edge / EXTENT_BINS - 0.5) * rate_hz for edge in (on[0], on[-1] + 1))
    return float(low), float(high), int(rows[0]) * EXTENT_BINS, int(rows[-1] + 1) * EXTENT_BINS


def part_of_band(rng: np.random.Generator, iq: IQ, kept: int, middle: int, edge: int) -> IQ:
    """`kept` bins of the spectrum of iq [n] around bin `middle`, the outer `edge` bins tapered; complex64 [kept]."""
    bins = fft.fft(iq)[(np.arange(-(kept // 2), kept - kept // 2) + middle) % len(iq)]
    if edge:
        taper = np.sin(np.linspace(0.03, np.pi / 2, edge)) ** 2
        bins[:edge] *= taper
        bins[-edge:] *= taper[::-1]
    return (fft.ifft(fft.ifftshift(bins)) * (kept / len(iq))).astype(np.complex64)


def draw_source(rng: np.random.Generator, sources: Sequence[RealSource]) -> RealSource:
    """A source of a label that is drawn first, so that labels with many recordings do not crowd out the others."""
    label = str(rng.choice(sorted({source.label for source in sources})))
    return sources[int(rng.choice([k for k, source in enumerate(sources) if source.label == label]))]


def whole_band_tiles(seed: Sequence[int], spec: SpectrogramSpec, sources: Sequence[RealSource], count: int) -> Tiles:
    """`count` tiles of whole bands, as receivers of the same or a lower rate with noise of their own see the sources.

    Raises
    ------
    ConfigurationError : no source, or sources too short for tiles.
    """
    if not sources:
        raise ConfigurationError("recordings", "sources", "none", "one recording of a documented rate at least")
    rng = np.random.default_rng([*seed, 29])
    made: list[tuple[np.ndarray, int, float, float, int]] = []
    for _ in range(DRAWS_PER_TILE * count):
        if len(made) == count:
            return tiles_of(made)
        drawn = _draw_piece(rng, spec, draw_source(rng, sources))
        if drawn is not None:
            made.append(drawn)
    raise ConfigurationError("recordings", "tiles", f"{len(made)} in {DRAWS_PER_TILE * count} draws", count)


def tiles_of(rows: Sequence[tuple[np.ndarray, int, float, float, int]]) -> Tiles:
    """Rows of picture, label index, log10 of the rate, SNR in dB and spectrogram rows as Tiles."""
    pictures, labels, rates, snrs, n_rows = zip(*rows, strict=True)
    return Tiles(
        np.stack(pictures),
        np.array(labels, np.int64),
        np.array(rates, np.float32),
        np.array(snrs, np.float32),
        np.array(n_rows, np.int32),
    )


def _draw_piece(
    rng: np.random.Generator, spec: SpectrogramSpec, source: RealSource
) -> tuple[np.ndarray, int, float, float, int] | None:
    """One tile; None where the draw holds too little of the signal."""
    most = min(len(source.iq), 4 * spec.tile_samples)
    n = int(np.exp(rng.uniform(np.log(min(1.2 * spec.min_samples, most)), np.log(most))))
    begin = int(rng.integers(0, len(source.iq) - n + 1))
    iq, rate_hz = source.iq[begin : begin + n], source.rate_hz
    on = iq[max(source.first - begin, 0) : max(min(source.last - begin, n), 0)]
    if len(on) < 0.05 * n or np.mean(np.abs(on) ** 2) < 0.3:
        return None
    if rng.random() < 0.5:
        least = 0.12 if rate_hz > WIDE_HZ else 0.6
        kept = int(n * np.exp(rng.uniform(np.log(least), 0))) // 2 * 2
        if kept < 1.1 * spec.min_samples:
            return None
        spare = (n - kept) // 2 if rate_hz > WIDE_HZ else 0
        iq = part_of_band(rng, iq, kept, int(rng.integers(-spare, spare + 1)), int(kept * rng.uniform(0, 0.12)))
        rate_hz *= kept / n
    received = _receive(rng, iq)
    if received is None:
        return None
    iq, snr_db = received
    iq = np.ascontiguousarray(iq[-spec.tile_samples :] - iq.mean(), np.complex64)
    try:
        tile = prepare(iq, spec.unscaled(), source.label)[0]
    except InputError:  # mostly digital silence: a receiver gets no tile of it either
        return None
    frames = (len(iq) - spec.fft_size) // spec.hop_samples + 1
    rows = min(spec.rows_per_tile, -(-frames // spec.frames_averaged))
    return np.rint(tile * 255).astype(np.uint8), ALL_LABELS.index(source.label), np.log10(rate_hz), snr_db, rows


def _receive(rng: np.random.Generator, iq: IQ) -> tuple[IQ, float] | None:
    """Shifted, at times mirrored, with noise at an SNR that is returned, at times through 8 bits that clip."""
    power = float(np.mean(np.abs(iq) ** 2))
    if power < LEAST_POWER:
        return None
    iq = iq.conj() if rng.random() < 0.5 else iq
    iq = (iq * np.exp(2j * np.pi * rng.uniform(-0.03, 0.03) * np.arange(len(iq)))).astype(np.complex64)
    snr_db = float(rng.uniform(-3, 40))
    noise = rng.standard_normal(2 * len(iq), dtype=np.float32).view(np.complex64)
    iq = iq + noise * np.float32(np.sqrt(power * 10 ** (-snr_db / 10) / 2))
    if rng.random() < 0.5:
        level = np.float32(np.sqrt(power) * 10 ** (rng.uniform(-2, 25) / 20))
        iq = (np.round(np.clip((iq / level).view(np.float32), -1, 1) * 127) / 127).view(np.complex64)
    return iq, snr_db
