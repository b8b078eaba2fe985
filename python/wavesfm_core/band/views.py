# SPDX-License-Identifier: GPL-3.0-or-later
"""Zoomed views: parts of the band, mixed down and decimated, several over one transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._kernels import Zoom
from ..types import Samples

TRANSFORMS = (4096, 1 << 14)  # a narrower view is cut out of a wider one: large transforms are slow
LEAST_BINS = 128  # of a view; a filter of fewer would be too blunt
CHUNK = 1 << 18
AGAIN = 1.6  # times its rate, from which on a view is cut once more


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
    """Of the shared transform, so that a view of this rate has LEAST_BINS, within TRANSFORMS."""
    wanted = 1 << int(np.ceil(np.log2(LEAST_BINS * rate_hz / view_hz)))
    return min(max(wanted, TRANSFORMS[0]), TRANSFORMS[1])


def zoom(parts: Sequence[Samples], start: int, rate_hz: float, views: Sequence[View]) -> list[Zoomed]:
    """Cut views out of a stretch of samples, all over one transform.

    Parameters
    ----------
    parts : sequence of complex64 [n]
        The samples, in order.
    start : int
        Sample of the stream that the first is.
    rate_hz : float
        Of the samples.
    views : sequence of View
        A view that would reach beyond the band is moved inwards. One whose rate is the band's or more is cut out as
        it is. Samples of its span that are not there are left out.
    """
    narrow = [view for view in views if view.rate_hz < rate_hz]
    zoomed: list[Zoomed] = []
    if narrow:
        size = transform_size(rate_hz, min(view.rate_hz for view in narrow))
        channels = [_channel(size, rate_hz, view) for view in narrow]
        made = iter(zip(_run(parts, size, channels), channels, strict=True))
    for view in views:
        if view.rate_hz >= rate_hz:
            zoomed.append(_whole(parts, start, rate_hz, view))
        else:
            samples, channel = next(made)
            zoomed.append(_closer(_part(samples, start, rate_hz, size, channel, view), rate_hz, view))
    return zoomed


def closer(view: Zoomed, stream_rate_hz: float, centre_hz: float, rate_hz: float) -> Zoomed:
    """A part of a view, as a view of the stream: centre_hz from the middle of the band, at rate_hz or a little more."""
    inner = View(0, view.samples.size, centre_hz - view.centre_hz, rate_hz)
    (part,) = zoom([view.samples], 0, view.rate_hz, [inner])
    start = view.start + round(part.start * stream_rate_hz / view.rate_hz)
    return Zoomed(part.samples, start, view.centre_hz + part.centre_hz, part.rate_hz)


def _closer(made: Zoomed, rate_hz: float, view: View) -> Zoomed:
    return closer(made, rate_hz, view.centre_hz, view.rate_hz) if made.rate_hz > AGAIN * view.rate_hz else made


def _channel(size: int, rate_hz: float, view: View) -> tuple[int, int]:
    bins = min(smooth_size(max(LEAST_BINS, int(np.ceil(size * view.rate_hz / rate_hz)))), size)
    limit = max(0, (size - bins) // 2)
    return int(np.clip(round(view.centre_hz / rate_hz * size), -limit, limit)), bins


def _run(parts: Sequence[Samples], size: int, channels: list[tuple[int, int]]) -> list[Samples]:
    kernel = Zoom(size, channels)
    made = [kernel.push(part[at : at + CHUNK]) for part in parts for at in range(0, part.size, CHUNK)]
    made.append(kernel.finish())
    return [np.concatenate([part[i] for part in made]) for i in range(len(channels))]


def _part(made: Samples, start: int, rate_hz: float, size: int, channel: tuple[int, int], view: View) -> Zoomed:
    centre, bins = channel
    first = max(0, (view.start - start) * bins // size)
    last = max(first, -(-(view.stop - start) * bins // size))
    return Zoomed(made[first:last], start + first * size // bins, centre * rate_hz / size, bins * rate_hz / size)


def _whole(parts: Sequence[Samples], start: int, rate_hz: float, view: View) -> Zoomed:
    first = max(view.start, start)
    samples = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.complex64), *parts])
    return Zoomed(samples[first - start : max(0, view.stop - start)], first, 0.0, rate_hz)
