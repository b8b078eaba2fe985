# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not an emitter of its own: side lobes and skirts of a stronger one, clicks, and what is too weak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .track import Track

FAINT = 0.005, 0.01  # of a stronger neighbour's energy and density: its skirts, whenever they show
BESIDE = 0.05, 0.1  # and its side lobes, which come and go with it
WIDER = 1.5  # than its emitter's a side lobe is not
REACH = 3.0  # of side lobes, in widths of their emitter
SHARED = 0.8  # of the rows on which a side lobe is seen with its emitter
LEAST_CELLS = 8
LEAST_SNR = 10**0.3  # 3 dB within the edges
MANY_CELLS = 400  # of which less is asked: wide short bursts fill a part of a row
MANY_SNR = 1.0
FEW_CELLS = 40  # of which more is asked
FEW_SNR = 10**0.6
KEYED_ROWS = 2  # of a splash at the start or the end of a burst of a stronger one, and within which it lies
KEYED_DEPTH = 0.003  # of the stronger one's density, at most
CLICK_ROWS = 2, 16  # on the air once and for no longer, over so much of the band: a step of the receiver's gain
CLICK_SHARE = 0.5, 0.9


def is_faint(track: Track) -> bool:
    """Whether it is too small or too weak to be told of."""
    snr = track.levels()[0]
    if track.cells >= MANY_CELLS and track.n_bursts > 2:
        return snr < MANY_SNR
    return track.cells < LEAST_CELLS or snr < LEAST_SNR or (track.cells < FEW_CELLS and snr < FEW_SNR)


def is_click(track: Track, fft_size: int) -> bool:
    """Whether it is one short splash over the band."""
    share = track.width / fft_size
    short = any(share >= wide and track.rows_on <= rows for rows, wide in zip(CLICK_ROWS, CLICK_SHARE, strict=True))
    return short and track.n_bursts == 1


def is_shadow(track: Track, tracks: Sequence[Track]) -> bool:
    """Whether a stronger one beside it accounts for it."""
    energy, density = track.energy, track.density
    return any(other is not track and _shades(other, track, energy, density) for other in tracks)


def _is_key_click(strong: Track, weak: Track, density: float) -> bool:
    """Whether all that was seen of the weak one are splashes where bursts of the strong one begin or end."""
    if density > KEYED_DEPTH * strong.density or weak.rows_on > KEYED_ROWS * weak.n_bursts:
        return False
    edges = np.array([edge for burst in strong.bursts for edge in burst])
    return all(
        bool(np.any((edges >= start - KEYED_ROWS) & (edges <= stop + KEYED_ROWS))) for start, stop in weak.bursts
    )


def _shades(strong: Track, weak: Track, energy: float, density: float) -> bool:
    if _is_key_click(strong, weak, density):
        return True
    if weak.width > WIDER * (strong.reach_high - strong.reach_low):
        return False
    share, depth = energy / strong.energy, density / strong.density
    if share >= BESIDE[0] or depth >= BESIDE[1]:
        return False
    width = strong.reach_high - strong.reach_low
    away = max(weak.low - strong.reach_high, strong.reach_low - weak.high)
    together = strong.first_row <= weak.last_row and weak.first_row <= strong.last_row
    if share < FAINT[0] and depth < FAINT[1] and away < width and together:
        return True
    lobe = strong.n_bursts > 1 and away < REACH * width and weak.width < WIDER * strong.width
    return lobe and _shared(weak, strong) >= SHARED


def _shared(weak: Track, strong: Track) -> float:
    """Share of the weak one's bursts during which the strong one is on the air."""
    starts = np.array([burst[0] for burst in strong.bursts]) - 1
    stops = np.array([burst[1] for burst in strong.bursts]) + 1
    on = sum(stop - start for start, stop in weak.bursts)
    shared = sum(int(np.maximum(np.minimum(stops, b) - np.maximum(starts, a), 0).sum()) for a, b in weak.bursts)
    return shared / max(on, 1)
