# SPDX-License-Identifier: GPL-3.0-or-later
"""Broadcast FM: stereo multiplex with pilot and RDS, one station or a part of the band with many."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..audio import band, equalise, limited, music, speech
from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import amplitude, phasor, raster, side_by_side
from ..shaping import Reals, bits, hold, sample_count

AUDIO_HZ = 32e3
DEVIATION_HZ = 75e3  # ITU-R BS.450-4, systems of western Europe and America
PILOT_HZ, RDS_HZ, RDS_BIT_HZ = 19e3, 57e3, 1187.5
CHANNEL_HZ = 180e3
UPSAMPLING, UPSAMPLING_HYBRID = 10, 14  # 320 kHz holds an analogue station, 448 kHz one with digital sidebands


def _programme(rng: np.random.Generator, n_audio: int) -> Reals:
    """Left and right audio [2, n] of a station: music, songs, speech or silence."""
    kind = rng.choice(["music", "song", "speech", "both", "silence"], p=[0.28, 0.26, 0.24, 0.16, 0.06])
    room = equalise(rng.standard_normal(n_audio, np.float32), AUDIO_HZ, lambda f: 1 / (1 + f / 300))
    balance = np.float32([[1], [rng.uniform(0.5, 1)]])
    sound = room * balance * np.float32(amplitude(rng, -60, -20))
    if kind in ("music", "song", "both"):
        sound += music(rng, n_audio, AUDIO_HZ) * np.float32(amplitude(rng, -20, -6) if kind == "both" else 1)
    if kind in ("song", "speech", "both"):
        sound += speech(rng, n_audio, AUDIO_HZ)
    return sound


def _rds(rng: np.random.Generator, n_audio: int) -> Reals:
    """RDS data before its subcarrier: differential biphase symbols, cosine filtered (IEC 62106:2015 clause 4)."""
    n_bits = int(n_audio / AUDIO_HZ * RDS_BIT_HZ) + 2
    data = 1.0 - 2.0 * (np.cumsum(bits(rng, n_bits)) % 2)
    halves = np.stack([data, -data], axis=1).ravel().astype(np.float32)
    chips = hold(halves, 2 * RDS_BIT_HZ, AUDIO_HZ, n_audio)
    shaped = equalise(
        chips, AUDIO_HZ, lambda f: np.where(f < 2 * RDS_BIT_HZ, np.cos(np.pi * f / (4 * RDS_BIT_HZ)), 0.0)
    )
    return shaped / np.abs(shaped).max()


def _double_sideband(spectrum: np.ndarray, baseband: np.ndarray, centre: int) -> None:
    """Add a real baseband spectrum times a cosine at bin `centre`."""
    spectrum[centre : centre + len(baseband)] += baseband / 2
    spectrum[centre - len(baseband) + 1 : centre + 1] += np.conj(baseband[::-1]) / 2


def _multiplex_signal(rng: np.random.Generator, n_audio: int, upsampling: int) -> Reals:
    """Stereo multiplex in units of full deviation [n_audio * upsampling], by its spectrum (ITU-R BS.450-4)."""
    emphasis_s = rng.choice([50e-6, 75e-6])
    sound = equalise(_programme(rng, n_audio), AUDIO_HZ, lambda f: 1 + 2j * np.pi * f * emphasis_s)
    sound = limited(sound, rng.uniform(0.12, 0.55))
    stereo, rds = rng.random() < 0.85, rng.random() < 0.75
    pilot = rng.uniform(0.08, 0.1) if stereo else 0.0
    data = rng.uniform(0.027, 0.08) if rds else 0.0
    left, right = fft.rfft(sound * np.float32(1 - pilot - data))
    bin_hz = AUDIO_HZ / n_audio
    gain = band(0, 15e3)(np.arange(len(left)) * bin_hz).astype(np.float32)
    top = int(16.5e3 / bin_hz)
    n_out = n_audio * upsampling
    spectrum = np.zeros(n_out // 2 + 1, np.complex64)
    spectrum[: len(left)] = (left + right) * gain / 2
    if stereo:
        _double_sideband(spectrum, ((left - right) * gain)[:top] / 2, round(2 * PILOT_HZ / bin_hz))
        spectrum[round(PILOT_HZ / bin_hz)] += pilot * n_audio / 2
    if rds:
        baseband = fft.rfft(_rds(rng, n_audio))[: int(2.4e3 / bin_hz) + 1]
        _double_sideband(spectrum, data * baseband, round(RDS_HZ / bin_hz))
    return fft.irfft(spectrum, n_out) * np.float32(upsampling)


def _add_hybrid_sidebands(rng: np.random.Generator, iq: IQ, rate_hz: float) -> IQ:
    """Add digital sidebands 129 to 198 kHz from the carrier as in NRSC-5 hybrid FM, as band-limited noise."""
    spectrum = np.zeros(len(iq), np.complex64)
    low, high = (int(edge / rate_hz * len(iq)) for edge in (129.4e3, rng.choice([150e3, 198.4e3])))
    noise = rng.standard_normal((2, 2, max(high - low, 1)), np.float32)
    for side, start in enumerate((low, len(iq) - low - noise.shape[-1])):
        spectrum[start : start + noise.shape[-1]] = noise[side, 0] + 1j * noise[side, 1]
    return iq + unit_power(fft.ifft(spectrum)) * np.float32(amplitude(rng, -20, -10))


def _station(rng: np.random.Generator, multiplex: Reals, upsampling: int) -> IQ:
    """One station that transmits `multiplex`, at `upsampling` times the audio rate."""
    rate_hz = AUDIO_HZ * upsampling
    deviation_hz = np.float32(DEVIATION_HZ * rng.uniform(0.8, 1.05))
    iq = phasor(deviation_hz * multiplex, rate_hz, rng.random())
    return _add_hybrid_sidebands(rng, iq, rate_hz) if upsampling == UPSAMPLING_HYBRID else iq


def _audio_samples(duration_s: float) -> int:
    """Audio samples that cover the window, an even length with a fast transform, enough to hold all subcarriers."""
    return 2 * fft.next_fast_len(sample_count(duration_s, AUDIO_HZ / 2) + 32)


def _band_piece(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """The stations in view: on a 100 or 200 kHz raster, with very different powers (BS.412-9 spacings)."""
    n_audio = _audio_samples(duration_s)
    hybrid = rng.random() < 0.1
    upsampling = UPSAMPLING_HYBRID if hybrid else UPSAMPLING
    most = max(int(view_hz / 400e3), 1)
    count = min(int(np.ceil(most * rng.uniform(0.15, 1.0))), 20)
    offsets_hz = raster(rng, count, 100e3, max(view_hz * 0.95, 200e3), apart=int(rng.choice([2, 3, 4])))
    levels = [1.0] + [amplitude(rng, -35) for _ in offsets_hz[1:]]
    # Many stations are narrow in the picture: six programmes, shifted in time, are enough for all.
    programmes = [_multiplex_signal(rng, n_audio, upsampling) for _ in range(min(len(levels), 6))]
    shifted = [np.roll(programmes[index % 6], index // 6 * 977) for index in range(len(levels))]
    stations = [
        np.complex64(level) * _station(rng, signal, upsampling) for level, signal in zip(levels, shifted, strict=True)
    ]
    return side_by_side(stations, offsets_hz, AUDIO_HZ * upsampling, CHANNEL_HZ, placed=True)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One station in a narrow view, mostly several in a wide one."""
    if view_hz > 4e6 or (view_hz > 500e3 and rng.random() < 0.8):
        return _band_piece(rng, duration_s, view_hz)
    hybrid = view_hz > 400e3 and rng.random() < 0.1
    upsampling = UPSAMPLING_HYBRID if hybrid else UPSAMPLING
    iq = _station(rng, _multiplex_signal(rng, _audio_samples(duration_s), upsampling), upsampling)
    return Emission(unit_power(iq), AUDIO_HZ * upsampling, CHANNEL_HZ)


SIGNAL = SignalClass(
    label="wbfm",
    standard="ITU-R BS.450-4 clauses 1 and 2 (pilot-tone stereo), IEC 62106:2015 clause 4 (RDS), NRSC-5-D (hybrid)",
    views=(View(0.25e6, 0.32e6, 3), View(0.9e6, 3.2e6, 5), View(3.2e6, 10e6, 1.5), View(10e6, 20e6, 0.5)),
    make=make,
    shortest_s=0.1,
)
