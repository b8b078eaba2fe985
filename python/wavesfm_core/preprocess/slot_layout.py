# SPDX-License-Identifier: GPL-3.0-or-later
"""OFDM numerologies as the C++ library takes them."""

from __future__ import annotations

from functools import lru_cache

from .._kernels import SlotLayout
from ..bundle.ofdm_spec import OFDMSpec


@lru_cache(maxsize=16)
def slot_layout(spec: OFDMSpec) -> SlotLayout:
    """Parameters of the slots of a numerology for `_kernels`."""
    return SlotLayout(
        antennas=spec.antennas,
        fft_size=spec.fft_size,
        prefix_samples=list(spec.prefix_samples),
        frequencies=spec.frequencies.tolist(),
        spacing_hz=spec.spacing_hz,
        pilot_symbols=list(spec.pilot_symbols),
        pilot_carriers=spec.pilot_subcarriers.tolist(),
        pilots=spec.pilots,
    )
