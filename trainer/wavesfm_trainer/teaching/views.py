# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles of labelled boxes: as the search of the band will show them, and drawn ones around that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.band.looks import VIEW_STEPS
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.views import View, zoom
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.types import Samples

from .boxes import ASSUMED_RATE_HZ, Box

FACTORS = (1.4, 3.5)
"""Sample rates of drawn views in widths of the box."""
WIDE_FACTORS = (3.5, 12.0)
"""The same for WIDE_SHARE of them, which show more of the band."""
WIDE_SHARE, WHOLE_SHARE = 0.2, 0.15
"""Shares of the drawn views that show more of the band, and all of it."""
OFFSET = 0.15
"""Most that a drawn view is off the middle of its box, in widths of the box."""
NOISE_DB = (0.0, 9.0)
"""Noise that is added to half of the drawn views, in dB over the noise that is there."""
TOGETHER = 4
"""Drawn views that share a span of the recording, which is read once."""
MOST_SPAN = 1 << 23
"""Samples of the recording behind one view, at most."""
OPTIONS = BandOptions()


@dataclass(frozen=True)
class Views:
    """N tiles of boxes."""

    picture: NDArray[np.uint8]
    """[N, H, W]; 0 to 255 is the spec's range."""
    log10_rate: NDArray[np.float32]
    """[N], log10 of the sample rate in Hz; 0 unknown."""
    box: NDArray[np.int64]
    """[N], index of the box."""
    drawn: NDArray[np.bool_]
    """[N], True for views to learn from alone; the others are judged as well."""
    whole: NDArray[np.bool_]
    """[N], True for views of the whole band."""

    def __len__(self) -> int:
        return len(self.box)

    def rows(self, chosen: NDArray) -> Views:
        """Some of them."""
        return Views(*(values[chosen] for values in vars(self).values()))


def join_views(first: Views, second: Views) -> Views:
    """One after the other."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Views(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class _Wanted:
    """One view: rate and middle in Hz, where in the box it lies (0 to 1), and noise to add in dB (None: none)."""

    rate_hz: float
    centre_hz: float
    place: float
    noise_db: float | None = None
    drawn: bool = False


def make_views(
    boxes: Sequence[Box], spec: SpectrogramSpec, drawn: int, seed: int, advance: Callable[[], None]
) -> tuple[Views, list[str]]:
    """Tiles of every box.

    Plain views have the rates at which `wavesfm annotate --detect` looks at a signal, and the whole band where no
    other label is on the air. Drawn views vary width, middle, place in time and noise.

    Parameters
    ----------
    boxes : in any order.
    spec : of the tiles.
    drawn : drawn views of a box.
    seed : of the drawn ones.
    advance : called after each box.

    Returns
    -------
    The views, and sentences about boxes that gave none.
    """
    plain_spec = spec.unscaled()
    rows: list[tuple[NDArray[np.uint8], float, int, bool, bool]] = []
    silent = []
    for source, group in groupby(enumerate(boxes), lambda each: each[1].source):
        with source.open() as recording:
            for at, box in group:
                rng = np.random.default_rng([seed, at])
                made = list(_views_of(recording, box, plain_spec, drawn, _is_alone(box, boxes), rng))
                if all(wanted.drawn for wanted, _, _ in made):
                    silent.append(f"{box.source.name} {box.field}")
                    made = []
                for wanted, picture, rate_hz in made:
                    whole = wanted.rate_hz >= (recording.rate_hz or ASSUMED_RATE_HZ)
                    log10_rate = np.log10(rate_hz) if recording.rate_hz > 0 else 0.0
                    rows.append((picture, log10_rate, at, wanted.drawn, whole))
                advance()
    if not rows:
        raise InputError(boxes[0].source.path, "samples", "digital silence in every box", "signals")
    pictures, rates, at, is_drawn, is_whole = zip(*rows, strict=True)
    views = Views(np.stack(pictures), np.array(rates, np.float32), np.array(at), np.array(is_drawn), np.array(is_whole))
    notes = [f"Boxes of digital silence or too few samples for a tile, left out: {', '.join(silent)}."]
    return views, notes if silent else []


def _is_alone(box: Box, boxes: Sequence[Box]) -> bool:
    """Whether no box of another label is on the air in the recording at the time."""
    return not any(
        other.label != box.label
        and other.source.path == box.source.path
        and other.start < box.stop
        and box.start < other.stop
        for other in boxes
    )


def _views_of(recording: Recording, box: Box, spec: SpectrogramSpec, drawn: int, alone: bool, rng: np.random.Generator):
    """(what was wanted, picture, rate in Hz) of each view that has samples enough."""
    rate_hz = recording.rate_hz or ASSUMED_RATE_HZ
    low_hz, high_hz = _edges(box, rate_hz)
    plain = [_Wanted(rate, (low_hz + high_hz) / 2, 0.5) for rate in plain_rates(low_hz, high_hz, rate_hz)]
    if alone:
        plain = [*(each for each in plain if each.rate_hz < rate_hz), _Wanted(rate_hz, 0.0, 0.5)]
    batches = [plain]
    for first in range(0, drawn, TOGETHER):
        place = float(rng.random())
        count = min(TOGETHER, drawn - first)
        batches.append([_draw(rng, low_hz, high_hz, rate_hz, place, alone) for _ in range(count)])
    for wanted in batches:
        for one, samples, new_hz in _cut(recording, box, spec, wanted, rate_hz):
            if one.noise_db is not None:
                samples = _with_noise(samples, one.noise_db, rng)
            try:
                tile = prepare(samples[: spec.tile_samples], spec)[0]
            except InputError:  # too few samples outside digital silence
                continue
            yield one, np.rint(tile * 255).astype(np.uint8), new_hz


def _edges(box: Box, rate_hz: float) -> tuple[float, float]:
    if box.low_hz is None or box.high_hz is None:
        return -rate_hz / 2, rate_hz / 2
    return box.low_hz, box.high_hz


def plain_rates(low_hz: float, high_hz: float, rate_hz: float) -> list[float]:
    """Rates in Hz at which the search of the band looks at a signal, see core's `Looker.view_rate`."""
    width_hz = high_hz - low_hz
    if width_hz >= OPTIONS.whole_share * rate_hz:
        return [rate_hz]
    rates = (max(OPTIONS.view_width * step * width_hz, OPTIONS.least_rate_hz) for step in VIEW_STEPS)
    return list(dict.fromkeys(min(rate_hz, rate) for rate in rates))


def _draw(
    rng: np.random.Generator, low_hz: float, high_hz: float, rate_hz: float, place: float, alone: bool
) -> _Wanted:
    """A view around the box."""
    width_hz, kind = high_hz - low_hz, rng.random()
    noise_db = float(rng.uniform(*NOISE_DB)) if rng.random() < 0.5 else None
    if width_hz >= OPTIONS.whole_share * rate_hz or (alone and kind < WHOLE_SHARE):
        return _Wanted(rate_hz, 0.0, place, noise_db, True)
    factors = WIDE_FACTORS if alone and kind > 1 - WIDE_SHARE else FACTORS
    factor = float(np.exp(rng.uniform(*np.log(factors))))
    new_hz = min(rate_hz, max(factor * width_hz, OPTIONS.least_rate_hz))
    centre_hz = (low_hz + high_hz) / 2 + float(rng.uniform(-OFFSET, OFFSET)) * width_hz
    return _Wanted(new_hz, centre_hz, place, noise_db, True)


def _cut(recording: Recording, box: Box, spec: SpectrogramSpec, wanted: Sequence[_Wanted], rate_hz: float):
    """(what was wanted, samples, rate in Hz) of views that are read together."""
    views = [_view(recording, box, spec, one, rate_hz) for one in wanted]
    first, last = min(view.start for view in views), max(view.stop for view in views)
    parts = list(recording.blocks(start=first, stop=last))
    for one, made in zip(wanted, zoom(parts, first, rate_hz, views), strict=True):
        if made.samples.size >= spec.min_samples:
            yield replace(one, rate_hz=max(one.rate_hz, min(made.rate_hz, rate_hz))), made.samples, made.rate_hz


def _view(recording: Recording, box: Box, spec: SpectrogramSpec, wanted: _Wanted, rate_hz: float) -> View:
    """Span and rate of a view: within the box where that is long enough, otherwise with what is around it."""
    new_hz = wanted.rate_hz
    n_samples = recording.n_samples
    least = int(spec.min_samples * rate_hz / new_hz * 1.05) + 1
    if least > n_samples:  # a short recording: more of the band
        new_hz = min(rate_hz, new_hz * least / n_samples)
        least = min(n_samples, int(spec.min_samples * rate_hz / new_hz * 1.05) + 1)
    most = min(int(spec.tile_samples * rate_hz / new_hz), MOST_SPAN)
    length = max(least, min(most, box.stop - box.start))
    start = box.start + round((box.stop - box.start - length) * wanted.place)
    start = int(np.clip(start, 0, n_samples - length))
    return View(start, start + length, wanted.centre_hz, new_hz)


def _with_noise(samples: Samples, noise_db: float, rng: np.random.Generator) -> Samples:
    """Noise added to raise that of the samples by noise_db."""
    frames = samples[: len(samples) // 64 * 64].reshape(-1, 64)
    power = np.abs(np.fft.fft(frames[:: max(1, len(frames) // 400)], axis=1)) ** 2 / 64
    floor = float(np.quantile(power, 0.25)) / 0.288  # of an exponential distribution
    scale = np.sqrt(floor * (10 ** (noise_db / 10) - 1) / 2)
    noise = rng.standard_normal((len(samples), 2), np.float32) @ np.array([1, 1j], np.complex64)
    return np.ascontiguousarray(samples + np.float32(scale) * noise, np.complex64)
