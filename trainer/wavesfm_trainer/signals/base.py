# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of a signal class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IQ = NDArray[np.complex64]


class SilentWindow(ValueError):
    """A schedule of bursts left the requested window without a signal; the caller draws again."""


@dataclass(frozen=True)
class View:
    """A range of sample rates at which receivers observe a class, log-uniform."""

    low_hz: float
    """Lowest sample rate."""
    high_hz: float
    """Highest sample rate."""
    weight: float = 1.0
    """Relative frequency of this range among the views of a class."""


@dataclass(frozen=True)
class Emission:
    """The transmission of one transmitter, cell or network, before any channel."""

    iq: IQ
    """complex64 [n], mean power 1 over the samples that are not zero (zeros between bursts)."""
    rate_hz: float
    """Sample rate of `iq`; the channel resamples to the receiver's rate."""
    occupied_hz: float
    """Bandwidth in which the signal-to-noise ratio is defined."""
    placed: bool = False
    """True if the content has its place in the receiver's band (hopping networks, whole bands), so that the channel
    adds only a small carrier offset; False if the channel may shift it anywhere in the band.
    """
    least_snr_db: float = -np.inf
    """Signal-to-noise ratio in dB below which the emission makes no sense (a device so near that receivers clip)."""


@dataclass(frozen=True)
class SignalClass:
    """A class of the signal generator.

    Raises
    ------
    ValueError : a view with an empty range.
    """

    label: str
    """Label of the class."""
    standard: str
    """Standard and clauses that it follows."""
    views: tuple[View, ...]
    """Sample rates at which receivers observe it."""
    make: Callable[[np.random.Generator, float, float], Emission]
    """make(rng, duration_s, view_hz) -> Emission of at least `duration_s` seconds that is not silent.

    `view_hz` is the receiver's sample rate. Content outside it may be left out, and an emission wider than the view is
    made only as wide as it is observed. Emission.rate_hz is free, but the cost should stay near view_hz * duration_s.
    """
    shortest_s: float = 0.0
    """Shortest recording in seconds; less than a frame or syllable cannot be recognised."""

    def __post_init__(self) -> None:
        for view in self.views:
            if not 0 < view.low_hz <= view.high_hz:
                raise ValueError(f"{self.label}: views: found {view}, expected 0 < low_hz <= high_hz")

    def draw_rate(self, rng: np.random.Generator) -> float:
        """A receiver's sample rate in Hz, drawn from the views."""
        weights = np.array([view.weight for view in self.views])
        view = self.views[int(rng.choice(len(self.views), p=weights / weights.sum()))]
        return float(np.exp(rng.uniform(np.log(view.low_hz), np.log(view.high_hz))))


def unit_power(iq: NDArray[np.complexfloating]) -> IQ:
    """Scale to mean power 1 over the samples that are not zero.

    Raises
    ------
    SilentWindow : all samples are zero.
    """
    power = iq.real**2 + iq.imag**2
    active = np.count_nonzero(power)
    if not active:
        raise SilentWindow("unit_power: iq: found only zeros, expected a signal")
    return (iq * power.dtype.type(np.sqrt(active / power.sum(dtype=np.float64)))).astype(np.complex64, copy=False)
