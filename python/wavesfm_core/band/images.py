# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a receiver whose I and Q differ shows a strong signal once more, mirrored at the middle of the band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ring import SampleRing
from .track import Track
from .tracker import overlap
from .views import View, zoom

WEAKER = 0.03  # of the power of the strong one, at most: 15 dB
MIRRORED = 0.5  # of the spans' union, that they share
COHERENCE = 0.6  # from which on the one is made of the other
SAMPLES = 1 << 18  # of the stream, at most, that are compared
VIEW = 1.3  # of what is compared, in widths


def mirrored(track: Track, tracks: Sequence[Track], fft_size: int) -> Track | None:
    """A much stronger emitter of which this may be the image: at the mirrored place at the same time."""
    low, high = fft_size - track.high, fft_size - track.low
    for strong in tracks:
        if strong is track or track.power > WEAKER * strong.power:
            continue
        shared = overlap(low, high, strong.low, strong.high)
        if shared < MIRRORED * (track.width + strong.width - shared):
            continue
        if any(strong.active(start, stop, 1) for start, stop in track.bursts):
            return strong
    return None


def is_image(track: Track, ring: SampleRing, rate_hz: float, fft_size: int) -> bool:
    """Whether the samples at the mirrored place, conjugated, are those of this emitter but for a factor."""
    first, last = track.bursts[-1]
    stop = min(last * fft_size + fft_size // 2, ring.stop)
    start = max(first * fft_size, stop - SAMPLES, ring.start)
    centre_hz = ((track.low + track.high) / 2 / fft_size - 0.5) * rate_hz
    width_hz = VIEW * track.width * rate_hz / fft_size
    views = [View(start, stop, sign * centre_hz, width_hz) for sign in (1.0, -1.0)]
    one, other = (view.samples for view in zoom(ring.span(start, stop), start, rate_hz, views))
    product = float(np.linalg.norm(one) * np.linalg.norm(other))
    return one.size > 0 and product > 0 and abs(np.dot(one, other)) > COHERENCE * product
