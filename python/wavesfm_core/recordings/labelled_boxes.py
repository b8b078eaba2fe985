# SPDX-License-Identifier: GPL-3.0-or-later
"""Boxes in time and frequency that carry a label, as SigMF annotations have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .recording import Recording

EDGE_SHARE = 0.01
"""Share of the band by which an edge may lie outside; such an edge is moved to the end of the band."""


@dataclass(frozen=True)
class LabelledBox:
    """A part of a recording."""

    label: str
    """Name of the signal in it."""
    start_sample: int
    """First complex sample, counted from the start of the recording."""
    stop_sample: int
    """The sample after the last."""
    low_hz: float | None
    """Lower edge in Hz from the middle of the band; None: the box has no edges, the whole band is meant."""
    high_hz: float | None
    """Upper edge in Hz from the middle of the band; None: as low_hz."""
    field: str
    """Place in the file, for messages, as annotations[3]."""
    generator: str = ""
    """core:generator of the annotation; "" for none."""


def annotated_boxes(recording: Recording) -> tuple[list[LabelledBox], int]:
    """Annotations of a SigMF recording that have a core:label.

    Parameters
    ----------
    recording : Recording
        An open one.

    Returns
    -------
    boxes : list of LabelledBox
        In the order of the file.
    n_unlabelled : int
        Annotations without a label.

    Raises
    ------
    InputError
        A box outside the samples or the band.
    """
    metadata = recording.metadata or {}
    offset = metadata.get("global", {}).get("core:offset", 0)
    found, n_unlabelled = [], 0
    for number, annotation in enumerate(metadata.get("annotations", [])):
        label = str(annotation.get("core:label", "")).strip()
        if not label:
            n_unlabelled += 1
            continue
        start = annotation["core:sample_start"] - offset
        count = annotation.get("core:sample_count")
        stored = recording.format.stored_per_sample
        stop = recording.n_samples if count is None else -(-(start + count) // stored)
        edges = _edges(annotation)
        field = f"annotations[{number}]"
        box = make_box(recording, label, start // stored, stop, *edges, field, annotation.get("core:generator", ""))
        found.append(box)
    return found, n_unlabelled


def make_box(
    recording: Recording,
    label: str,
    start: int,
    stop: int,
    low_hz: float | None,
    high_hz: float | None,
    field: str,
    generator: str = "",
) -> LabelledBox:
    """A box of a recording, checked.

    Parameters
    ----------
    recording : Recording
        That the box is of.
    label : str
        Name of the signal.
    start, stop : int
        Complex samples.
    low_hz, high_hz : float or None
        Edges in Hz: absolute where the recording has a centre frequency there, otherwise from the middle of the band.
    field, generator : str
        See `LabelledBox`.

    Raises
    ------
    InputError
        The box is empty, or lies outside the samples or the band.
    """
    if not 0 <= start < stop <= recording.n_samples:
        expected = f"one or more of the samples 0 to {recording.n_samples}"
        raise InputError(recording.path, f"{field} {label!r}", f"samples {start} to {stop}", expected)
    if low_hz is None or high_hz is None:
        return LabelledBox(label, start, stop, None, None, field, generator)
    if not low_hz < high_hz:
        raise InputError(
            recording.path, f"{field} {label!r}", f"{low_hz:g} to {high_hz:g} Hz", "a rising pair of edges"
        )
    centre_hz = _centre_at(recording, start)
    low_hz, high_hz = low_hz - (centre_hz or 0.0), high_hz - (centre_hz or 0.0)
    if recording.rate_hz > 0:
        half = recording.rate_hz / 2
        room = half * (1 + 2 * EDGE_SHARE)
        if low_hz < -room or high_hz > room:
            middle = centre_hz or 0.0
            found = f"{low_hz + middle:.10g} to {high_hz + middle:.10g} Hz"
            expected = f"edges within the band, {middle - half:.10g} to {middle + half:.10g} Hz"
            raise InputError(recording.path, f"{field} {label!r}", found, expected)
        low_hz, high_hz = max(low_hz, -half), min(high_hz, half)
    return LabelledBox(label, start, stop, low_hz, high_hz, field, generator)


def _edges(annotation: dict[str, Any]) -> tuple[float | None, float | None]:
    return annotation.get("core:freq_lower_edge"), annotation.get("core:freq_upper_edge")


def _centre_at(recording: Recording, sample: int) -> float | None:
    """Centre frequency at a sample."""
    segments = [segment for segment in recording.segments if segment.start_sample <= sample]
    return segments[-1].centre_hz if segments else recording.centre_hz
