# SPDX-License-Identifier: GPL-3.0-or-later
"""Aircraft transponders at 1090 MHz: Mode S squitters and replies, and Mode A/C replies.

ICAO Annex 10 Volume IV, 3.1.2.2.5 (Mode S reply: preamble, PPM at 1 Mb/s) and 3.1.1.6 (Mode A/C reply: pulses 1.45 us
apart between F1 and F2, 20.3 us); RTCA DO-260B 2.2.3 (extended squitter).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..shaping import bits, place, sample_count, trapezoids

PREAMBLE_S = np.array([0.0, 1.0, 3.5, 4.5]) * 1e-6
PREAMBLE_LENGTH_S = 8e-6
DOWNLINK_FORMATS = {11: 56, 17: 112, 0: 56, 4: 56, 5: 56, 20: 112, 21: 112, 16: 112, 18: 112}
FORMAT_SHARES = np.array([0.3, 0.34, 0.14, 0.07, 0.04, 0.04, 0.03, 0.02, 0.02])
FRAMING_SPACING_S = 1.45e-6
REPLY_SLOTS = 15  # F1 is slot 0, F2 slot 14, the unused X pulse slot 7
SPI_S = 24.65e-6


def _mode_s(rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Starts and lengths in seconds of the pulses of a Mode S reply."""
    downlink_format = int(rng.choice(list(DOWNLINK_FORMATS), p=FORMAT_SHARES))
    data = bits(rng, DOWNLINK_FORMATS[downlink_format])
    data[:5] = [(downlink_format >> shift) & 1 for shift in (4, 3, 2, 1, 0)]
    starts = PREAMBLE_LENGTH_S + (np.arange(len(data)) + np.where(data == 1, 0.0, 0.5)) * 1e-6
    starts = np.concatenate([PREAMBLE_S, starts])
    return starts, np.full(len(starts), 0.5e-6)


def _mode_ac(rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Starts and lengths in seconds of the pulses of a Mode A or C reply."""
    present = bits(rng, REPLY_SLOTS).astype(bool)
    present[[0, REPLY_SLOTS - 1]] = True
    present[7] = False
    starts = np.flatnonzero(present) * FRAMING_SPACING_S
    if rng.uniform() < 0.02:
        starts = np.append(starts, SPI_S)
    return starts, np.full(len(starts), 0.45e-6)


def _times(rng: np.random.Generator, duration_s: float, rate_per_s: float) -> NDArray:
    """Start times of replies in seconds: random, and partly in trains that a ground radar's beam triggers."""
    single = rng.uniform(-120e-6, duration_s, rng.poisson(rate_per_s * (duration_s + 120e-6)))
    in_train = rng.uniform(size=len(single)) < rng.choice([0.0, 0.02, 0.08])
    trains = [
        start + np.arange(rng.integers(3, 16)) * (1 / rng.uniform(150, 450))
        for start in single[in_train] - rng.uniform(0, 0.03)
    ]
    times = np.concatenate([single[~in_train], *trains])
    return times[(times > -120e-6) & (times < duration_s)]


def _reply(rng: np.random.Generator, mode_ac: bool, rise_s: float, rate_hz: float, fraction: float) -> IQ:
    """The envelope of one reply at `rate_hz`, starting `fraction` of a sample after its first sample."""
    starts, lengths = _mode_ac(rng) if mode_ac else _mode_s(rng)
    lead_s = (2 + fraction) / rate_hz
    count = sample_count(starts[-1] + lengths[-1] + rise_s + lead_s, rate_hz) + 1
    return trapezoids(starts + lead_s, lengths, max(rise_s, 1 / rate_hz), rate_hz, count)


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Replies of several aircraft with powers spread over 30 dB."""
    rate_hz = max(view_hz, 2e6)
    target = np.zeros(sample_count(duration_s, rate_hz), np.complex64)
    aircraft = int(rng.integers(1, 30))
    amplitudes = 10 ** (rng.uniform(-30, 0, aircraft) / 20)
    mode_s_offsets_hz = rng.normal(0, 40e3, aircraft)
    mode_ac_offsets_hz = mode_s_offsets_hz + rng.uniform(-1e6, 1e6, aircraft) * (rng.uniform(size=aircraft) < 0.4)
    rise_s = rng.uniform(0.05e-6, 0.1e-6)
    mode_ac_share = rng.choice([0.0, 0.3, 0.7], p=[0.4, 0.4, 0.2])
    times = _times(rng, duration_s, 10 ** rng.uniform(1.8, 3.6))
    sure_start = rng.uniform(-15e-6, duration_s - 10e-6)  # one reply always overlaps the window
    sure = int(rng.integers(aircraft))
    amplitudes[sure] = max(amplitudes[sure], 0.5)
    for number, start_s in enumerate(np.append(times, sure_start)):
        who = sure if number == len(times) else int(rng.integers(aircraft))
        mode_ac = bool(rng.uniform() < mode_ac_share)
        whole = int(np.floor(start_s * rate_hz))
        envelope = _reply(rng, mode_ac, rise_s, rate_hz, start_s * rate_hz - whole)
        offset_hz = (mode_ac_offsets_hz if mode_ac else mode_s_offsets_hz)[who]
        carrier = np.exp(2j * np.pi * (np.arange(len(envelope)) * (offset_hz / rate_hz) + rng.uniform()))
        place(target, (amplitudes[who] * envelope * carrier).astype(np.complex64), whole - 2)
    # Receivers of a few MS/s are tuned to 1090 MHz: the replies fill their band and are not shifted in it.
    return Emission(unit_power(target), rate_hz, 2.0e6, placed=view_hz < 8e6)


SIGNAL = SignalClass(
    label="ads-b",
    standard="ICAO Annex 10 Vol IV 3.1.1.6, 3.1.2.2.5; RTCA DO-260B 2.2.3",
    views=(View(2.0e6, 2.4e6, 4.0), View(2.4e6, 8e6, 1.0), View(8e6, 20e6, 1.0)),
    make=make,
    shortest_s=0.002,
)
