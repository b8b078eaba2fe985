# SPDX-License-Identifier: GPL-3.0-or-later
"""DMR: 4-FSK in two-slot TDMA, as a continuous repeater downlink or as mobiles' bursts."""

from __future__ import annotations

import numpy as np
from scipy.signal import upfirdn

from ..base import IQ, Emission, SignalClass, View, unit_power
from ..narrowband import add_gate, amplitude, hex_bits, phasor, raster, side_by_side, spans
from ..shaping import rrc_taps, sample_count

RATE_HZ, SAMPLES_PER_SYMBOL = 48e3, 10  # 4,800 symbols/s, ETSI TS 102 361-1 clause 10.2
SLOT_SYMBOLS, BURST_SYMBOLS, SYNC_SYMBOLS = 144, 132, 24  # clause 4.2.2: 30 ms slot, 27.5 ms burst
SLOT_S, BURST_S = 0.03, 0.0275
UNIT_HZ = 648.0  # symbols +-1 and +-3 at +-648 and +-1944 Hz, clause 10.2
# Sync words of clause 9.1.1: base station and mobile station, each for voice and data.
SYNC = {"bs": ("755FD7DF75F7", "DFF57D75DF5D"), "ms": ("7F7D5DD57DFD", "D5D7F77FD757")}


def _levels(dibits: np.ndarray) -> np.ndarray:
    """Dibits 0..3 to symbols +1 +3 -1 -3 (clause 10.2)."""
    return np.array([1, 3, -1, -3], np.float32)[dibits]


def _sync_symbols(source: str, data: bool) -> np.ndarray:
    """The 24 symbols of a sync word."""
    word = hex_bits(SYNC[source][int(data)]).reshape(-1, 2)
    return _levels(2 * word[:, 0] + word[:, 1])


def _bursts(rng: np.random.Generator, n_slots: int, source: str) -> np.ndarray:
    """Symbols [n_slots, 144] of alternating time slots: voice superframes, data or idle bursts, then CACH or guard."""
    symbols = _levels(rng.integers(0, 4, (n_slots, SLOT_SYMBOLS)))
    low = (BURST_SYMBOLS - SYNC_SYMBOLS) // 2
    for timeslot in range(2):
        kind = rng.choice(["voice", "data", "idle"], p=[0.6, 0.15, 0.25] if source == "bs" else [0.8, 0.2, 0.0])
        mine = symbols[timeslot::2]
        if kind == "voice":  # clause 5.1.2.1: sync in burst A, embedded signalling in B to F
            start = int(rng.integers(6))
            mine[start::6, low : low + SYNC_SYMBOLS] = _sync_symbols(source, data=False)
        else:
            mine[:, low : low + SYNC_SYMBOLS] = _sync_symbols(source, data=True)
        if kind == "idle":  # an idle message repeats one burst
            mine[:, :BURST_SYMBOLS] = mine[:1, :BURST_SYMBOLS].copy() if len(mine) else 0
    return symbols


def _frequency(symbols: np.ndarray) -> np.ndarray:
    """Instantaneous frequency in Hz [10 per symbol] after the root-raised-cosine filter (clause 10.2)."""
    taps = rrc_taps(0.2, SAMPLES_PER_SYMBOL, 12)
    taps *= SAMPLES_PER_SYMBOL / taps.sum()
    shaped = upfirdn(taps, symbols, up=SAMPLES_PER_SYMBOL)
    half = len(taps) // 2 - SAMPLES_PER_SYMBOL // 2
    return UNIT_HZ * shaped[half : half + SAMPLES_PER_SYMBOL * len(symbols)]


def _channel(rng: np.random.Generator, duration_s: float) -> IQ:
    """One channel: repeater downlink, one mobile, or two mobiles in the two slots."""
    kind = rng.choice(["repeater", "mobile", "two mobiles"], p=[0.4, 0.45, 0.15])
    n_samples = sample_count(duration_s, RATE_HZ) + 2
    calls = spans(rng, duration_s, lambda: rng.uniform(0.5, 8.0), lambda: rng.uniform(0.2, 3.0))
    n_slots = int(duration_s / SLOT_S) + 3
    # At a random instant inside the first call in the window, the owner of slot 0 is in the middle of a burst.
    seen_s = rng.uniform(max(calls_in(calls, duration_s)[0], 0), min(calls_in(calls, duration_s)[1], duration_s))
    phase_s = (seen_s - rng.uniform(0.05, 0.9) * BURST_S) % (2 * SLOT_S) - 2 * SLOT_S
    frequency_hz = _frequency(_bursts(rng, n_slots + 2, "bs" if kind == "repeater" else "ms").ravel())
    lead = round(-phase_s * RATE_HZ)
    frequency_hz = frequency_hz[lead : lead + n_samples]
    envelope = np.zeros(n_samples, np.float32)
    error_hz = np.zeros(n_samples, np.float32)
    levels, errors_hz = (1.0, amplitude(rng, -18, 6)), rng.normal(0, 200, 2)
    if kind == "repeater":
        for span in calls:
            error_hz[add_gate(envelope, RATE_HZ, span, 1.5e-3)] = errors_hz[0]
        return phasor(frequency_hz + error_hz, RATE_HZ, rng.random()) * envelope
    for slot in range(n_slots + 2):
        start_s = phase_s + slot * SLOT_S
        owner, middle_s = slot % 2, start_s + BURST_S / 2
        talking = any(low - BURST_S <= middle_s <= high + BURST_S for low, high in calls)
        if talking and (owner == 0 or kind == "two mobiles"):
            # Power ramps lie in the 2.5 ms guard, clause 10.2.
            span = (start_s - 1.0e-3, start_s + BURST_S + 1.0e-3)
            error_hz[add_gate(envelope, RATE_HZ, span, 1.0e-3, levels[owner])] = errors_hz[owner]
    return phasor(frequency_hz + error_hz, RATE_HZ, rng.random()) * envelope


def calls_in(calls: list[tuple[float, float]], duration_s: float) -> tuple[float, float]:
    """The call that covers most of the window."""
    return max(calls, key=lambda span: min(span[1], duration_s) - max(span[0], 0))


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """One channel at any offset, or two or three on the 12.5 kHz raster."""
    count = int(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))
    channels = [_channel(rng, duration_s) for _ in range(count)]
    if count == 1:
        return Emission(unit_power(channels[0]), RATE_HZ, 7.6e3)
    offsets_hz = raster(rng, count, 12.5e3, min(0.8 * view_hz, 400e3))
    channels = [np.complex64(amplitude(rng, -20)) * iq if index else iq for index, iq in enumerate(channels)]
    return side_by_side(channels, offsets_hz, RATE_HZ, 7.6e3, placed=True)


SIGNAL = SignalClass(
    label="dmr",
    standard="ETSI TS 102 361-1 clauses 4.2 (TDMA), 9.1.1 (sync words) and 10.2 (4-FSK, RRC 0.2)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 0.55e6, 1.5)),
    make=make,
    shortest_s=0.2,
)
