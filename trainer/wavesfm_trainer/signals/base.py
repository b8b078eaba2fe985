# SPDX-License-Identifier: GPL-3.0-or-later
"""What a signal class is: one module per class, each ending in a `SIGNAL = SignalClass(...)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IQ = NDArray[np.complex64]


class SilentWindow(ValueError):
    """A schedule of bursts left the window that was asked for without a signal; the caller draws again."""


@dataclass(frozen=True)
class View:
    """Sample rates at which receivers look at a class: log-uniform in [low_hz, high_hz], chosen with `weight`."""

    low_hz: float
    high_hz: float
    weight: float = 1.0


@dataclass(frozen=True)
class Emission:
    """What one transmitter (or one cell, one net) puts on the air, before any channel.

    iq: complex64 [n], mean power 1 over the samples that are on the air (zeros between bursts).
    rate_hz: the rate of `iq`; the channel resamples to the receiver's rate.
    occupied_hz: bandwidth in which the receiver's signal-to-noise ratio is counted.
    placed: True when the content already sits at its place in the receiver's band (hopping nets, whole bands), so that
        the channel adds only a small carrier offset; False when the channel may put it anywhere in the band.
    """

    iq: IQ
    rate_hz: float
    occupied_hz: float
    placed: bool = False


@dataclass(frozen=True)
class SignalClass:
    """A class of the generator: its label, the standard it follows, its views and how to make an emission.

    make(rng, duration_s, view_hz) returns an Emission of at least `duration_s` seconds with something on the air.
    `view_hz` is the receiver's sample rate: content outside it need not be made, and an emission wider than the view is
    made only as wide as it is seen (Emission.rate_hz may be anything, but cost should stay near view_hz * duration_s).
    shortest_s: recordings of this class are not shorter; what is shorter than its frame or syllable cannot be named.
    """

    label: str
    standard: str
    views: tuple[View, ...]
    make: Callable[[np.random.Generator, float, float], Emission]
    shortest_s: float = 0.0

    def __post_init__(self) -> None:
        for view in self.views:
            if not 0 < view.low_hz <= view.high_hz:
                raise ValueError(f"{self.label}: views: found {view}, expected 0 < low_hz <= high_hz")

    def draw_rate(self, rng: np.random.Generator) -> float:
        """A receiver sample rate in Hz, drawn from the views."""
        weights = np.array([view.weight for view in self.views])
        view = self.views[int(rng.choice(len(self.views), p=weights / weights.sum()))]
        return float(np.exp(rng.uniform(np.log(view.low_hz), np.log(view.high_hz))))


def unit_power(iq: NDArray[np.complexfloating]) -> IQ:
    """Scale to mean power 1 over the samples that are not zero; complex64."""
    power = iq.real**2 + iq.imag**2
    active = power > 0
    if not active.any():
        raise SilentWindow("unit_power: iq: found only zeros, expected a signal")
    return (iq / np.sqrt(power[active].mean())).astype(np.complex64)
