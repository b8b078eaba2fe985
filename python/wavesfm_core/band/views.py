# SPDX-License-Identifier: GPL-3.0-or-later
"""Zoomed views: parts of the band, mixed down and decimated, several over one transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._kernels import Zoom
from ..types import Samples

TRANSFORMS = (4096, 1 << 20)
LEAST_BINS = 128  # of a view; a filter of fewer would be too blunt
CHUNK = 1 << 18


@dataclass(frozen=True)
class View:
    """A part of the band over a span of samples.

    Attributes
    ----------
    start, stop : int
        Samples of the stream.
    centre_hz : float
        From the middle of the band.
    rate_hz : float
        Least sample rate; the view's own is a little more.
    """

    start: int
    stop: int
    centre_hz: float
    rate_hz: float


@dataclass(frozen=True, eq=False)
class Zoomed:
    """The samples of a view.

    Attributes
    ----------
    samples : complex64 [n]
        At rate_hz, the middle of the view at 0 Hz; full scale as in the stream.
    start : int
        Sample of the stream that the first lies at (the next lie rate / rate_hz apart).
    centre_hz, rate_hz : float
        Exact ones.
    """

    samples: Samples
    start: int
    centre_hz: float
    rate_hz: float


def smooth_size(least: int) -> int:
    """The smallest multiple of 8 from `least` on that has no prime factor above 7."""
    size = -(-least // 8) * 8
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 8


def transform_size(rate_hz: float, view_hz: float) -> int:
    """Of the shared transform, so that a view of this rate has LEAST_BINS."""
    wanted = 1 << int(np.ceil(np.log2(LEAST_BINS * rate_hz / view_hz)))
    return min(max(wanted, TRANSFORMS[0]), TRANSFORMS[1])


def zoom(samples: Samples, start: int, rate_hz: float, views: Sequence[View]) -> list[Zoomed]:
    """Each view of samples [n], the first of which is the stream's sample `start`; one transform for all.

    A view that would reach beyond the band is moved inwards. Views whose rate is the band's or more are cut out as they
    are. Samples of a view's span that are not there are left out.
    """
    narrow = [view for view in views if view.rate_hz < rate_hz]
    if not narrow:
        return [_whole(samples, start, rate_hz, view) for view in views]
    size = transform_size(rate_hz, min(view.rate_hz for view in narrow))
    channels = [_channel(size, rate_hz, view) for view in narrow]
    made = iter(_run(samples, size, channels))
    zoomed: list[Zoomed] = []
    places = iter(channels)
    for view in views:
        if view.rate_hz >= rate_hz:
            zoomed.append(_whole(samples, start, rate_hz, view))
        else:
            zoomed.append(_part(next(made), start, rate_hz, size, next(places), view))
    return zoomed


def _channel(size: int, rate_hz: float, view: View) -> tuple[int, int]:
    bins = min(smooth_size(max(LEAST_BINS, int(np.ceil(size * view.rate_hz / rate_hz)))), size)
    limit = max(0, (size - bins) // 2)
    return int(np.clip(round(view.centre_hz / rate_hz * size), -limit, limit)), bins


def _run(samples: Samples, size: int, channels: list[tuple[int, int]]) -> list[Samples]:
    kernel = Zoom(size, channels)
    parts = [kernel.push(samples[at : at + CHUNK]) for at in range(0, samples.size, CHUNK)]
    parts.append(kernel.finish())
    return [np.concatenate([part[i] for part in parts]) for i in range(len(channels))]


def _part(made: Samples, start: int, rate_hz: float, size: int, channel: tuple[int, int], view: View) -> Zoomed:
    centre, bins = channel
    first = max(0, (view.start - start) * bins // size)
    last = max(first, -(-(view.stop - start) * bins // size))
    return Zoomed(made[first:last], start + first * size // bins, centre * rate_hz / size, bins * rate_hz / size)


def _whole(samples: Samples, start: int, rate_hz: float, view: View) -> Zoomed:
    first = max(view.start, start)
    return Zoomed(samples[first - start : max(0, view.stop - start)], first, 0.0, rate_hz)
