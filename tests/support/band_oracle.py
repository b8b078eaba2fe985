# SPDX-License-Identifier: GPL-3.0-or-later
"""The band detector in plain numpy: rows, floor, mask and pieces of one block, in float64 throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROWS_REL = 2e-5  # relative error of a row's power: float32 FFT against float64
FLOOR_REL = 1e-4  # of the floor: means of rows
MASK_SHARE = 1e-4  # cells that may differ: those whose statistic is within rounding of a threshold
GROUP = 8
LOWEST = 3
HANN = (1.0, 4.0 / 9.0, 1.0 / 36.0)  # power correlation of Hann bins 0, 1, 2 apart
OVERLAP = 1.0 / 36.0  # of frames half a frame apart


@dataclass(frozen=True)
class Settings:
    fft_size: int
    block_rows: int = 128
    false_rate: float = 1e-9
    grow_rate: float = 1e-3
    opening: float = 0.4
    floor_db: float = -160.0


@dataclass(frozen=True)
class Piece:
    row_first: int
    row_stop: int
    bin_low: int
    bin_stop: int
    n_cells: int
    rows: NDArray[np.bool_]  # [block rows]
    spectrum: Array
    row_low: NDArray[np.int64]  # [rows of the piece]
    row_stop_bin: NDArray[np.int64]


def rows_of(x: NDArray[np.complex64], n: int) -> Array:
    """[rows, n] mean power of the two half-overlapping Hann frames of each row, frequency rising."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    window /= np.sqrt(np.mean(window**2)) * n
    count = (len(x) - n) // (n // 2) + 1
    frames = np.lib.stride_tricks.sliding_window_view(x, n)[:: n // 2][:count]
    power = np.abs(np.fft.fftshift(np.fft.fft(frames * window, axis=1), axes=1)) ** 2
    return power[: count // 2 * 2].reshape(-1, 2, n).mean(1)


def degrees(rows: int, bins: int) -> float:
    """Chi-square degrees of freedom of a mean over rows x bins of noise."""
    frames = 2 * rows
    time = 1 + 2 * OVERLAP * (frames - 1) / frames
    across = sum((2 if d else 1) * HANN[d] * (1 - d / bins) for d in range(min(3, bins)))
    return 2 * frames * bins / (time * across)


def quantile(freedom: float, z: float) -> float:
    """Of chi-square over its mean (Wilson and Hilferty), z: of the standard normal."""
    return (1 - 2 / (9 * freedom) + z * np.sqrt(2 / (9 * freedom))) ** 3


def box(values: Array, width: int, axis: int = -1) -> Array:
    """Centred running mean; at the ends over what there is."""
    left, right = width // 2, width - width // 2
    v = np.moveaxis(values, axis, -1)
    total = np.concatenate([np.zeros((*v.shape[:-1], 1)), np.cumsum(v, -1)], -1)
    k = np.arange(v.shape[-1])
    low, high = np.maximum(k - left, 0), np.minimum(k + right, v.shape[-1])
    return np.moveaxis((total[..., high] - total[..., low]) / (high - low), -1, axis)


def box_of_ratio(values: Array, width: int) -> Array:
    """Running mean over `width` bins from -(width // 2) on; outside the band is noise, 1."""
    padded = np.pad(values, ((0, 0), (width // 2, width - 1 - width // 2)), constant_values=1.0)
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).mean(-1)


def order_bias(rank: int, count: int, freedom: float) -> float:
    """Expected value of the rank-th smallest (from 1) of count chi-square means (Blom's quantile)."""
    from statistics import NormalDist

    return quantile(freedom, NormalDist().inv_cdf((rank - 0.375) / (count + 0.25)))


def slide(values: Array, width: int, pick) -> Array:
    """Running minimum or maximum over a centred window of odd width, at the ends over what there is."""
    half = width // 2
    return np.array([pick(values[max(0, k - half) : k + half + 1]) for k in range(len(values))])


def groups_of(rows: Array) -> Array:
    """Means of GROUP rows; fewer rows than that are one group, a rest is left out."""
    count = max(1, len(rows) // GROUP)
    each = min(GROUP, len(rows))
    return rows[: count * each].reshape(count, each, -1).mean(1)


CONTRAST = 2.5


def beside_edge(x: Array, at: int, outwards: int) -> float:
    """Floor beside a signal that ends sharply at bin `at` (outwards -1: the floor is below it), or 0."""
    n = len(x)
    near, step = max(1, int(0.015 * n)), max(1, int(0.0125 * n))
    if min(at, n - at) < max(near + 2 * step, max(1, int(0.05 * n))):
        return 0.0
    ordered = x if outwards > 0 else x[::-1]
    at = at if outwards > 0 else n - at
    inner, outer = ordered[at + near :][:step].mean(), ordered[at + near + step :][:step].mean()
    first, second = ordered[at - near - step :][:step].mean(), ordered[at - near - 2 * step :][:step].mean()
    flat = max(outer, inner) < 1.4 * min(outer, inner) and max(first, second) < 1.6 * min(first, second)
    return (outer + inner) / 2 if flat and first > CONTRAST * inner else 0.0


def lowered_under_wide(smooth: Array, deep: Array, opened: Array, lowest: float) -> Array:
    """The opened floor, but for wide spans with sharp ends, under which it goes straight (in dB) from side to side."""
    n = len(smooth)
    lowered = opened.copy()
    turns = np.diff(np.pad(opened > CONTRAST * deep, 1).astype(np.int8))
    for low, stop in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)):
        left = 0.0 if low == 0 else beside_edge(smooth, low, -1)
        right = 0.0 if stop == n else beside_edge(smooth, stop, 1)
        if (low == 0 or left) and (stop == n or right) and (left or right):
            part = (np.arange(stop - low) + 0.5) / (stop - low)
            a, b = np.log(left or right), np.log(right or left)
            lowered[low:stop] = np.exp(a + (b - a) * part) * lowest
    return lowered


def floor_of(rows: Array, s: Settings) -> Array:
    """Noise per bin: low quantile over groups of rows, smoothed, opened over a wide window, averaged again."""
    n = s.fft_size
    groups = groups_of(rows)
    count, freedom = len(groups), degrees(min(GROUP, len(rows)), 1)
    rank = max(1, (3 * count + 8) // 16)
    low = np.sort(groups, axis=0)[rank - 1] / order_bias(rank, count, freedom)
    width = max(4, n // 256)
    freedom = degrees(min(GROUP, len(rows)), width)
    smooth = box(low, width)
    window = int(s.opening * n) | 1
    opened = slide(slide(smooth, window, np.min), window, np.max)
    most = 2 * (n * 17 // 40) + 1
    lowest = quantile(freedom, -2.5)
    opened = lowered_under_wide(smooth, slide(slide(smooth, most, np.min), most, np.max), opened, lowest)
    clip = (1 + 1.5 * np.sqrt(2 / freedom)) / lowest
    floor = box(np.where(smooth < clip * opened, smooth, opened / lowest), 4 * width)
    return np.maximum(floor, 10 ** (s.floor_db / 10))


SCALES = ((1, 5), (1, 32), (4, 3))  # rows x bins of the means


def hysteresis(values: Array, low: float, high: float) -> NDArray[np.bool_]:
    """Runs along frequency above low that reach high somewhere."""
    above = np.pad(values > low, ((0, 0), (1, 1)))
    turns = np.diff(above.astype(np.int8), axis=1)
    mask = np.zeros(values.shape, bool)
    for t in range(len(values)):
        for start, stop in zip(np.flatnonzero(turns[t] == 1), np.flatnonzero(turns[t] == -1)):
            mask[t, start:stop] = values[t, start:stop].max() > high
    return mask


def spread(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the cells within one row and two bins of it."""
    wide = mask.copy()
    for shift in (1, 2):
        wide[:, shift:] |= mask[:, :-shift]
        wide[:, :-shift] |= mask[:, shift:]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall


def mask_of(rows: Array, floor: Array, s: Settings) -> NDArray[np.bool_]:
    """Cells of signals, bool [rows, n]; what a finer scale has taken counts as noise at the coarser ones."""
    from statistics import NormalDist

    high, low = NormalDist().inv_cdf(1 - s.false_rate), NormalDist().inv_cdf(1 - s.grow_rate)
    ratio = rows / floor
    ratio[:, [0, 1, -2, -1]] = 1.0  # the other end of the band leaks in there
    mask = np.zeros(ratio.shape, bool)
    for height, width in SCALES:
        height = min(height, len(rows))
        count = max(1, len(rows) // height)
        rest = np.where(spread(mask), 1.0, ratio)
        mean = rest[: count * height].reshape(count, height, -1).mean(1)
        freedom = degrees(height, width)
        found = hysteresis(box_of_ratio(mean, width), quantile(freedom, low) * MARGIN, quantile(freedom, high) * MARGIN)
        mask[: count * height] |= np.repeat(found, height, axis=0)
    return mask | steady(np.where(spread(mask), 1.0, ratio), low, high)


def steady(rest: Array, low: float, high: float) -> NDArray[np.bool_]:
    """What stands out in half of the groups of rows: from the first group to the last in which most of it does."""
    means = box_of_ratio(groups_of(rest), 3)
    count, each = len(means), min(GROUP, len(rest))
    rank, one = (count + 1) // 2, degrees(each, 3)
    median = order_bias(rank, count, one)
    freedom = one * (2 * count / np.pi if count > 1 else 1)
    values = np.sort(means, axis=0)[rank - 1][None] / median
    found = hysteresis(values, quantile(freedom, low) * MARGIN, quantile(freedom, high) * MARGIN)[0]
    mask = np.zeros(rest.shape, bool)
    turns = np.diff(np.pad(found, 1).astype(np.int8))
    for start, stop in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)):
        over = means[:, start:stop] > median * (1 + np.sqrt(2 / one))
        present = np.flatnonzero(over.sum(1) * 2 > stop - start)
        if present.size:
            last = len(rest) if present[-1] + 1 == count else (present[-1] + 1) * each
            mask[present[0] * each : last, start:stop] = True
    return mask


MARGIN = 1.06  # 0.25 dB for the floor's own error


def valley_depth(rows: int) -> float:
    """How deep a valley in the median of so many rows must be: 13 dB, and what chance may do."""
    sigma = np.sqrt(np.pi / degrees(rows, 3))
    return 20 * (1 + 3 * sigma) / max(0.1, 1 - 3 * sigma)


def valleys(spectrum: Array, depth: float, low: int, stop: int) -> list[int]:
    """Bins of [low, stop) that lie 13 dB under the highest on one side and `depth` under that on the other."""
    found = []
    for i in range(low + 1, stop - 1):
        weak, strong = sorted((spectrum[low:i].max(), spectrum[i + 1 : stop].max()))
        if (
            spectrum[i] * 20 < strong
            and spectrum[i] * depth < weak
            and _is_wide(spectrum, weak / depth * 2, low, i, stop)
        ):
            found.append(i)
    if not found:
        return []
    deepest = min(found, key=lambda i: spectrum[i])
    return [deepest, *valleys(spectrum, depth, low, deepest), *valleys(spectrum, depth, deepest + 1, stop)]


def _is_wide(spectrum: Array, level: float, low: int, i: int, stop: int) -> bool:
    """Whether what is under the level around bin i is wider than a gap in a signal."""
    first = i - next((k for k, x in enumerate(spectrum[low:i][::-1]) if x >= level), i - low)
    last = i + 1 + next((k for k, x in enumerate(spectrum[i + 1 : stop]) if x >= level), stop - i - 1)
    return last - first >= max(2.0, 0.015 * min(i - low, stop - i))


def separated(rows: Array, floor: Array, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask, cut where the spectrum of what is steady has a valley between two signals."""
    groups = groups_of(np.maximum(rows - floor, 0) * mask)
    usual = np.sort(groups, axis=0)[(len(groups) + 1) // 2 - 1]
    smooth = np.convolve(usual, np.ones(3), "same")
    turns = np.diff(np.pad(usual > 0, 1).astype(np.int8))
    cut = mask.copy()
    for low, stop in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)):
        for i in valleys(smooth, valley_depth(len(rows)), low, stop):
            cut[:, i - 1 : i + 2] = False
    return cut


def pieces_of(rows: Array, mask: NDArray[np.bool_]) -> list[Piece]:
    """Regions of cells that are within 3 rows and 2 bins of another (in a row: with up to 2 bins between)."""
    from scipy import ndimage

    label, _ = _linked(mask)
    found = []
    for i, (t, f) in enumerate(ndimage.find_objects(label), 1):
        cells = label[t, f] == i
        on = np.zeros(len(rows), bool)
        on[t] = cells.any(1)
        any_cell, width = cells.any(1), cells.shape[1]
        low = np.where(any_cell, f.start + cells.argmax(1), 0)
        stop = np.where(any_cell, f.start + width - cells[:, ::-1].argmax(1), 0)
        found.append(Piece(t.start, t.stop, f.start, f.stop, int(cells.sum()), on, rows[t, f].mean(0), low, stop))
    return found


def follow_gain(rows: Array, floor: Array) -> Array:
    """Rows [rows, n] of a block, those of long runs in which the quietest bins are off the floor scaled to it."""
    n = rows.shape[1]
    ratio = rows / floor
    expected = quantile(degrees(1, 1), -1.6448536)
    level = np.sort(ratio[:, :: 16 if n >= 1024 else 1], axis=1)[:, int(0.05 * (n // (16 if n >= 1024 else 1)))]
    gain = np.where(np.abs(ratio.sum(1) / n - 1) < 0.5, 1.0, level / expected)
    changed = (gain > 1e-4) & ((gain > 1.7) | (gain < 1 / 1.7))
    turns = np.flatnonzero(np.diff(np.pad(changed, 1).astype(np.int8)))
    scaled = rows.copy()
    for first, stop in zip(turns[::2], turns[1::2]):
        if stop - first >= 16:
            scaled[first:stop] /= np.sort(gain[first:stop])[(stop - first) // 2]
    return scaled


def _linked(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Runs of cells joined in their row with up to 2 bins between; over up to 3 rows if not too unlike in width."""
    runs = []
    for t, row in enumerate(mask):
        turns = np.diff(np.pad(row, 1).astype(np.int8))
        runs += [(t, low, stop) for low, stop in zip(np.flatnonzero(turns == 1), np.flatnonzero(turns == -1))]
    parent = list(range(len(runs)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, (t, low, stop) in enumerate(runs):
        for j in range(i - 1, -1, -1):
            before, other_low, other_stop = runs[j]
            if t - before > 3:
                break
            near = other_low <= stop + 2 and low <= other_stop + 2
            narrow, wide = sorted((stop - low, other_stop - other_low))
            if near and (t == before or wide <= max(64, 8 * narrow)):
                a, b = sorted((root(i), root(j)))
                parent[b] = a
    label = np.zeros(mask.shape, np.int64)
    numbers: dict[int, int] = {}
    for i, (t, low, stop) in enumerate(runs):
        label[t, low:stop] = numbers.setdefault(root(i), len(numbers) + 1)
    return label, len(numbers)
