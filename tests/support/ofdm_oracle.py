# SPDX-License-Identifier: GPL-3.0-or-later
"""Readable numpy versions of the OFDM kernels, in double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.ofdm_spec import OFDMSpec


def grid(samples: NDArray[np.complex64], spec: OFDMSpec) -> NDArray[np.complex128]:
    """[A, S, F] of samples [A, slot_samples], by the sum that a DFT is."""
    matrix = np.exp(-2j * np.pi * np.outer(np.arange(spec.fft_size), spec.frequencies) / spec.fft_size)
    made, start = [], 0
    for prefix in spec.prefix_samples:
        start += prefix
        made.append(samples[:, start : start + spec.fft_size].astype(np.complex128) @ matrix)
        start += spec.fft_size
    return np.stack(made, axis=1) / np.sqrt(spec.fft_size)


def pilot_image(grid: NDArray[np.complex64], spec: OFDMSpec) -> NDArray[np.float32]:
    """[2, 1 + A, P * Fp]: what was sent above what each antenna received, pilot symbol after pilot symbol."""
    rows = [np.concatenate(list(spec.pilots))]
    for antenna in grid:
        rows.append(np.concatenate([antenna[symbol][spec.pilot_subcarriers] for symbol in spec.pilot_symbols]))
    image = np.stack(rows)
    return np.stack([image.real, image.imag])


def waveform_correlation(samples: NDArray[np.complex64], waveform: NDArray[np.complex64]) -> NDArray[np.float64]:
    """[n - k + 1]: the share of the power that has the waveform's shape, mean over antennas."""
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.complex128), waveform.size, axis=1)
    inner = np.abs(windows @ waveform.astype(np.complex128).conj()) ** 2
    power = (np.abs(windows) ** 2).sum(axis=-1) * (np.abs(waveform.astype(np.complex128)) ** 2).sum()
    return (inner / np.where(power > 0, power, np.inf)).mean(axis=0)
