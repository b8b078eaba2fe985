# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found in a recording, when and where: runs of predictions of one label.

Table, picture and annotations all show these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ..types import Prediction, StreamTime


@dataclass(frozen=True)
class Finding:
    """One label over a stretch of samples at one rate and one centre frequency."""

    label: str
    """As predicted, "noise" and "unknown" among them."""
    confidence: float | None
    """Mean over the tiles that the model was asked about, None where it was asked about none."""
    start_sample: int
    """In the recording, from 0."""
    n_samples: int
    """Up to the next finding, where the tiles of both overlap."""
    rate_hz: float
    """0.0 when unknown."""
    centre_hz: float | None
    """Of the band that was looked at, None when unknown."""
    time: StreamTime | None
    """Of the first sample, None when unknown."""
    tiles: int
    """Predictions in the run."""
    held_back: int
    """Of these, the tiles that the power gate held back."""
    bundle_id: str
    """Of the model."""
    rate_note: str = ""
    """Why the sample rate makes the label doubtful, as in `Prediction`."""
    band_hz: tuple[float, float] | None = None
    """Lower and upper edge from the middle of the band in Hz, None where the whole band was named."""
    snr_db: float | None = None
    """Power over the noise between the edges in dB, None where the whole band was named."""
    n_bursts: int = 0
    """Times on the air; 0 where the whole band was named."""

    @property
    def end_sample(self) -> int:
        """The first sample after the run."""
        return self.start_sample + self.n_samples

    def edges_hz(self, share: float = 1.0) -> tuple[float, float] | None:
        """Lower and upper edge: as found, or of `share` of the band; None where rate or frequency is unknown.

        Edges that were found are relative to the middle of the band where its frequency is unknown.
        """
        if self.band_hz is not None:
            centre_hz = self.centre_hz or 0.0
            return centre_hz + self.band_hz[0], centre_hz + self.band_hz[1]
        if self.centre_hz is None or not self.rate_hz:
            return None
        half = share * self.rate_hz / 2
        return self.centre_hz - half, self.centre_hz + half


def find_runs(predictions: Iterable[Prediction]) -> list[Finding]:
    """Runs of predictions without a gap between them, of one label, rate, centre frequency and doubt, in order."""
    runs: list[list[Prediction]] = []
    for prediction in predictions:
        if runs and _continues(runs[-1][-1], prediction):
            runs[-1].append(prediction)
        else:
            runs.append([prediction])
    following = [run[0].start_sample for run in runs[1:]]
    return [_finding(run, following[i] if i < len(following) else None) for i, run in enumerate(runs)]


def _continues(last: Prediction, this: Prediction) -> bool:
    key = attrgetter("label", "rate_hz", "centre_hz", "rate_note")
    # overlapping frames make a tile a little longer than the way to the next
    return key(last) == key(this) and this.start_sample <= last.start_sample + last.n_samples


def _finding(run: Sequence[Prediction], next_start: int | None) -> Finding:
    first, last = run[0], run[-1]
    confidences = [each.confidence for each in run if each.confidence is not None]
    end = last.start_sample + last.n_samples
    if next_start is not None:
        end = min(end, max(next_start, first.start_sample + 1))
    return Finding(
        first.label,
        sum(confidences) / len(confidences) if confidences else None,
        first.start_sample,
        end - first.start_sample,
        first.rate_hz,
        first.centre_hz,
        first.time,
        len(run),
        sum(each.gated for each in run),
        first.bundle_id,
        first.rate_note,
    )
