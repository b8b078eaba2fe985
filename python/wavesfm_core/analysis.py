# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a model says about one recording, once: table, picture, JSON and annotations show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .pipeline import Pipeline
from .preprocess.tile_stream import StreamAccounts
from .recordings.findings import Finding, find_runs
from .recordings.iqstream import IQStream
from .recordings.recording import Recording
from .recordings.sigmf_recording import check_hash
from .summary import Summary
from .types import Prediction

SKIP_REASONS = {
    "skipped_retune": "before a change of frequency or rate",
    "skipped_gap": "before a jump in time",
    "skipped_silence": "before digital silence",
    "skipped_end": "at the end",
}


@dataclass
class Analysis:
    """What was found in a recording, and what was not looked at."""

    name: str
    """File name of the recording."""
    rate_hz: float
    """0.0 when unknown."""
    centre_hz: float | None
    """Of the first segment, None when unknown."""
    bundle_id: str
    """Of the model."""
    engine: str
    """Description of the engine."""
    n_samples: int = 0
    """Samples that were read."""
    predictions: list[Prediction] = field(default_factory=list)
    """One for each tile, in order."""
    findings: list[Finding] = field(default_factory=list)
    """Runs of predictions, in order."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed, doubted or left out."""

    @property
    def duration_s(self) -> float | None:
        """None when the rate is unknown."""
        return self.n_samples / self.rate_hz if self.rate_hz else None

    @property
    def summary(self) -> Summary:
        """Counts and mean probabilities of the predictions."""
        return Summary().add(self.predictions)


def analyse(
    pipeline: Pipeline, recording: Recording | IQStream, on_prediction: Callable[[Prediction], object] | None = None
) -> Analysis:
    """Classify a recording.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle for spectrograms.
    recording : Recording or IQStream
        An open one.
    on_prediction : callable, optional
        Called with each prediction as soon as it is made.

    Raises
    ------
    InputError
        The recording is too short for even a partial tile, or cannot be read.
    EngineError
        The engine failed.
    """
    first = recording.segments[0]
    name, engine = recording.path.name, pipeline.engine.description
    analysis = Analysis(name, recording.rate_hz, first.centre_hz, pipeline.bundle.id, engine)
    whole = isinstance(recording, Recording) and recording.stop_sample - recording.start_sample == recording.n_samples
    wrong_hash = check_hash(recording) if isinstance(recording, Recording) and whole else None
    for prediction in pipeline.classify_recording(recording):
        analysis.predictions.append(prediction)
        if on_prediction is not None:
            on_prediction(prediction)
    analysis.findings = find_runs(analysis.predictions)
    accounts = pipeline.stream_accounts
    analysis.n_samples = accounts.samples_in
    hash_notes = [wrong_hash] if wrong_hash else []
    analysis.notes = [*recording.notes, *hash_notes, *prediction_notes(analysis.predictions)]
    analysis.notes += _account_notes(accounts, pipeline.stream_spec.min_samples)
    return analysis


def prediction_notes(predictions: Sequence[Prediction]) -> list[str]:
    """Sentences about sample rates that make predictions guesses."""
    return [_rate_sentence(note) for note in dict.fromkeys(each.rate_note for each in predictions) if note]


def _account_notes(accounts: StreamAccounts, min_samples: int) -> list[str]:
    """Sentences about samples that were not looked at."""
    notes = []
    if accounts.samples_skipped:
        reasons = [f"{count} {text}" for name, text in SKIP_REASONS.items() if (count := getattr(accounts, name))]
        share = accounts.samples_skipped / accounts.samples_in
        least = f"too few for a tile, which takes {min_samples} or more"
        notes.append(
            f"{accounts.samples_skipped} of {accounts.samples_in} samples ({share:.1%}) were not looked at, {least}: "
            + ", ".join(reasons)
        )
    if accounts.gaps:
        notes.append(f"{accounts.gaps} jumps in time: {accounts.samples_lost} samples were never recorded")
    if accounts.samples_silent:
        share = accounts.samples_silent / accounts.samples_in
        notes.append(f"{accounts.samples_silent} samples ({share:.1%}) are digital silence: left out of the tiles")
    if accounts.samples_nonfinite:
        notes.append(f"samples that are NaN or infinite: {accounts.samples_nonfinite}")
    return notes


def _rate_sentence(note: str) -> str:
    if note == "unknown":
        return "the sample rate is unknown, so the labels are guesses: --rate tells it"
    return f"the sample rate is {note}, where the model was trained: the labels are guesses"
