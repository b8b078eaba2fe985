# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings cut out of the ring: a window of the stream, or the part of the band that an emitter takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..band.types import Emitter
from ..band.views import View, zoom
from ..errors import InputError
from ..recordings.sample_formats import FORMATS
from ..recordings.sigmf_writer import Capture, NewRecording
from .iq_ring import IQRing, PlacedBlock
from .outputs.annotations import annotation_of

MARGIN_S = 0.02  # on both sides of an emitter
WIDER = 1.6  # than the emitter, the band that is cut out


class Window(NamedTuple):
    """Samples that are there without a gap, at one tuning."""

    start: int
    """Number of the first sample in the stream."""
    stop: int
    blocks: Sequence[PlacedBlock]


def cut_window(ring: IQRing, start: int, stop: int, at: int) -> Window:
    """What the ring has of the samples `start` to before `stop`, around sample `at`, up to a gap or a retune.

    Raises InputError where there is nothing of it.
    """
    blocks = ring.between(start, stop)
    middle = next((i for i, placed in enumerate(blocks) if placed.stop > at), len(blocks) - 1)
    if middle < 0:
        raise InputError("ring", "samples", f"none of {start} to {stop}", "samples that are still kept")
    first, last = middle, middle
    while first > 0 and _continues(blocks[first - 1], blocks[first]):
        first -= 1
    while last + 1 < len(blocks) and _continues(blocks[last], blocks[last + 1]):
        last += 1
    chosen = blocks[first : last + 1]
    return Window(max(start, chosen[0].start), min(stop, chosen[-1].stop), chosen)


def window_recording(window: Window, boxes: Iterable[Mapping[str, Any]], description: str) -> NewRecording:
    """A recording of a window in the format in which its samples arrived, with the boxes that lie in it."""
    first = window.blocks[0]
    each = FORMATS[first.block.sample_format].sample_bytes
    raw = [
        placed.block.raw[max(0, window.start - placed.start) * each : (window.stop - placed.start) * each]
        for placed in window.blocks
    ]
    inside = [
        box for box in boxes if box["start_sample"] < window.stop and _end(box) > window.start and _is_same(box, first)
    ]
    annotations = []
    for box in inside:
        stop = min(_end(box), window.stop)
        annotations.append(annotation_of({**box, "n_samples": stop - box["start_sample"]}, window.start))
    block = first.block
    return NewRecording(
        raw, block.sample_format, block.rate_hz, [_capture(window, block.centre_hz)], annotations, description
    )


def emitter_recording(ring: IQRing, emitter: Emitter, most_samples: int) -> NewRecording:
    """The band of an emitter, decimated, as far as the ring still has it, and at most the last `most_samples` of it.

    Raises InputError where the ring has nothing of it any more.
    """
    margin = round(MARGIN_S * emitter.rate_hz)
    start, stop = emitter.start_sample - margin, emitter.start_sample + emitter.n_samples + margin
    kept = ring.span
    start, stop = max(start, kept[0], stop - most_samples), min(stop, kept[1])
    window = cut_window(ring, start, stop, stop - 1)
    block = window.blocks[0].block
    if block.rate_hz != emitter.rate_hz or block.centre_hz != emitter.centre_hz:
        raise InputError("ring", "samples", "samples of another tuning", "samples that are still kept")
    parts = [p.block.complex64(max(0, window.start - p.start), window.stop - p.start) for p in window.blocks]
    middle_hz = (emitter.low_hz + emitter.high_hz) / 2
    view = View(window.start, window.stop, middle_hz, WIDER * emitter.width_hz)
    (zoomed,) = zoom(parts, window.start, block.rate_hz, [view])
    centre_hz = None if block.centre_hz is None else block.centre_hz + zoomed.centre_hz
    box = {**emitter.as_dict(), "centre_hz": (block.centre_hz or 0.0)}
    scale = zoomed.rate_hz / block.rate_hz
    box["start_sample"] = max(0, round((emitter.start_sample - window.start) * scale))
    box["n_samples"] = max(1, min(round(emitter.n_samples * scale), len(zoomed.samples) - box["start_sample"]))
    samples = np.ascontiguousarray(zoomed.samples).view(np.uint8)
    captures = [_capture(window, centre_hz)]
    description = f"emitter {emitter.number}, cut out of a band of {block.rate_hz:g} samples/s"
    return NewRecording([samples], "cf32", zoomed.rate_hz, captures, [annotation_of(box)], description)


def _continues(one: PlacedBlock, other: PlacedBlock) -> bool:
    a, b = one.block, other.block
    tuning = (a.rate_hz, a.centre_hz, a.sample_format)
    return one.stop == other.start and tuning == (b.rate_hz, b.centre_hz, b.sample_format)


def _capture(window: Window, centre_hz: float | None) -> Capture:
    first = window.blocks[0]
    late_s = max(0, window.start - first.start) / first.block.rate_hz
    return Capture(0, centre_hz, None if first.time is None else first.time.advanced(late_s))


def _is_same(box: Mapping[str, Any], placed: PlacedBlock) -> bool:
    return bool(box["rate_hz"] == placed.block.rate_hz and box["centre_hz"] == placed.block.centre_hz)


def _end(box: Mapping[str, Any]) -> int:
    return int(box["start_sample"] + box["n_samples"])
