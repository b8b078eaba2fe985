# SPDX-License-Identifier: GPL-3.0-or-later
"""AIS: GMSK bursts of ships in a slotted frame on two channels 50 kHz apart."""

from __future__ import annotations

import numpy as np

from ..base import IQ, Emission, SignalClass, View
from ..narrowband import amplitude, nrzi, phasor, side_by_side, stuffed
from ..shaping import Reals, bits, gaussian_taps, sample_count, smooth

RATE_HZ = 57600.0
BIT_HZ, SLOT_BITS = 9600.0, 256  # ITU-R M.1371-5 annex 2 clause 3.2.2 (slot 26.67 ms)
SLOT_S = SLOT_BITS / BIT_HZ
DEVIATION_HZ = BIT_HZ / 4  # modulation index 0.5, annex 2 clause 2.3
CHANNEL_HZ = 25e3  # half the distance of 161.975 and 162.025 MHz
RAMP_BITS, TRAINING_BITS = 8, 24
FLAG = np.array([0, 1, 1, 1, 1, 1, 1, 0], np.int8)


def _message(rng: np.random.Generator, slots: int) -> np.ndarray:
    """Levels 0/1 of a burst of `slots` slots: ramp, training, flag, stuffed data, check sum, flag (clause 3.2.2)."""
    n_data = 168 + 16 + (slots - 1) * SLOT_BITS - int(rng.integers(0, 40)) * (slots > 1)
    training = np.tile(np.array([0, 1], np.int8), TRAINING_BITS // 2)
    data = stuffed(bits(rng, n_data))
    if rng.random() < 0.3:  # text and unset fields are runs of zeros
        data[40:80] = 0
    return nrzi(np.concatenate([np.zeros(RAMP_BITS, np.int8), training, FLAG, data, FLAG]))


def _schedule(rng: np.random.Generator, n_slots: int, load: float) -> list[tuple[int, int]]:
    """(slot, length in slots) of the messages on one channel, without overlaps."""
    found, slot = [], 0
    while slot < n_slots:
        if rng.random() < load:
            length = int(rng.choice([1, 2, 3, 4, 5], p=[0.88, 0.08, 0.02, 0.01, 0.01]))
            found.append((slot, length))
            slot += length
        else:
            slot += 1
    return found


def _channel(
    rng: np.random.Generator, n_samples: int, origin_s: float, messages: list[tuple[int, int]], spread_db: float
) -> IQ:
    """One channel, whose slot 0 starts at `origin_s`; level, frequency error and delay vary by message."""
    level = np.zeros(n_samples, np.float32)
    frequency_hz: Reals = np.zeros(n_samples, np.float32)
    error_hz = np.zeros(n_samples, np.float32)
    for slot, length in messages:
        levels = _message(rng, length)
        # Synchronisation jitter and up to 200 nautical miles of delay (clause 3.1.1).
        start = (origin_s + slot * SLOT_S + rng.uniform(0, 0.4e-3)) * RATE_HZ
        low, high = (int(np.clip(np.ceil(edge), 0, n_samples)) for edge in (start, start + 6 * len(levels)))
        at = np.arange(low, high) - start
        bit = np.minimum((at * (BIT_HZ / RATE_HZ)).astype(np.int64), len(levels) - 1)
        frequency_hz[low:high] = 2.0 * levels[bit] - 1
        error_hz[low:high] = rng.normal(0, 250)
        ramp = 6 * RAMP_BITS / 2
        rise, fall = np.clip((at + 1) / ramp, 0, 1), np.clip((6 * len(levels) - at) / (ramp / 2), 0, 1)
        level[low:high] = amplitude(rng, -spread_db) * np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
    shaped = smooth(frequency_hz, gaussian_taps(0.4, RATE_HZ / BIT_HZ))
    return phasor(DEVIATION_HZ * shaped + error_hz, RATE_HZ, rng.random()) * level


def make(rng: np.random.Generator, duration_s: float, view_hz: float) -> Emission:
    """Both channels around the receiver's centre or at one side; from a single ship to a busy harbour."""
    n_samples = sample_count(duration_s, RATE_HZ) + 2
    n_slots = int(duration_s / SLOT_S) + 3
    load = np.exp(rng.uniform(np.log(0.01), np.log(0.7)))
    sure_slot = int(rng.integers(0, n_slots - 2))
    # A message on the first channel is on the air at a random instant of the window.
    origin_s = rng.uniform(0, duration_s) - sure_slot * SLOT_S - rng.uniform(0.1, 0.85) * SLOT_S
    first_slot = -int(np.ceil(origin_s / SLOT_S)) - 5
    last_slot = int((duration_s - origin_s) / SLOT_S) + 1
    schedules = [
        [(slot + first_slot, length) for slot, length in _schedule(rng, last_slot - first_slot, load)] for _ in range(2)
    ]
    schedules[0] = [(s, n) for s, n in schedules[0] if s + n <= sure_slot or s > sure_slot] + [(sure_slot, 1)]
    spread_db = rng.uniform(3, 35)
    channels = [_channel(rng, n_samples, origin_s, schedule, spread_db) for schedule in schedules]
    centre_hz = rng.normal(0, 1e3) if rng.random() < 0.6 else rng.uniform(-0.5, 0.5) * max(min(view_hz, 1e6) - 85e3, 0)
    sides_hz = np.array([-CHANNEL_HZ, CHANNEL_HZ]) * rng.choice([-1, 1])
    emission = side_by_side(channels, centre_hz + sides_hz, RATE_HZ, 10e3, placed=True)
    return Emission(emission.iq, emission.rate_hz, 10e3, placed=True)


SIGNAL = SignalClass(
    label="ais",
    standard="ITU-R M.1371-5 annex 2 clauses 2.3 to 2.5 (GMSK BT 0.4, 9600 bit/s) and 3.1, 3.2 (slots, packet format)",
    views=(View(0.25e6, 0.32e6, 6), View(0.32e6, 1.05e6, 2)),
    make=make,
    shortest_s=0.1,
)
