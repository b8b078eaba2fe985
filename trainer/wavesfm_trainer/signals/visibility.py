# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a signal stands out of the noise in a tile, so that no tile of plain noise has the label of a signal."""

from __future__ import annotations

import numpy as np

from .base import Emission, SilentWindow

FRAME = 512  # samples of one spectrogram row, and bins in it
LEAST_DEFLECTION = 25.0


def deflection(emission: Emission, snr_db: float, rate_hz: float, n_samples: int) -> float:
    """How far the signal's energy in the spectrogram stands over what noise alone has there, in standard deviations.

    The detector is an ideal one that knows where the signal is. At 25, bursts are visible in short and long tiles.

    Parameters
    ----------
    emission : with mean power 1 while it is on the air.
    snr_db : signal-to-noise ratio in its occupied bandwidth.
    rate_hz, n_samples : of the recording.

    References
    ----------
    S. M. Kay, Fundamentals of Statistical Signal Processing, vol. 2, section 5.3 (energy detector, low SNR).
    """
    frame = max(int(FRAME * emission.rate_hz / rate_hz), 1)
    iq = emission.iq[: int(n_samples * emission.rate_hz / rate_hz)]
    starts = np.arange(0, max(len(iq), 1), frame)
    power = np.add.reduceat(iq.real**2 + iq.imag**2, starts) / frame if len(iq) else np.zeros(1)
    bins = np.clip(FRAME * emission.occupied_hz / rate_hz, 1, FRAME)
    rows = frame * rate_hz / (FRAME * emission.rate_hz)  # 1, unless a row is shorter than a sample of the emission
    return float(10 ** (snr_db / 10) * np.sqrt(bins * rows * np.sum(power.astype(np.float64) ** 2)))


def raised_snr_db(emission: Emission, snr_db: float, rate_hz: float, n_samples: int) -> float:
    """The largest of snr_db, the emission's least, and what the signal needs for LEAST_DEFLECTION, in dB.

    Raises
    ------
    SilentWindow : the recording holds nothing of the emission.
    """
    at_0_db = deflection(emission, 0.0, rate_hz, n_samples)
    if at_0_db <= 0:
        raise SilentWindow("visibility: emission: found only zeros in the window, expected a signal")
    return max(snr_db, emission.least_snr_db, float(10 * np.log10(LEAST_DEFLECTION / at_0_db)))
