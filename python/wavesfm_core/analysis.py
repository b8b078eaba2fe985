# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a model says about one recording, once: table, picture, JSON and annotations show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .band.types import Emitter, Event, boxes
from .band_stream import BandStream
from .errors import ConfigurationError
from .pipeline import Pipeline
from .preprocess.tile_stream import StreamAccounts
from .recordings.findings import Finding, find_runs
from .recordings.iqstream import IQStream
from .recordings.recording import Recording
from .recordings.sigmf_recording import check_hash
from .summary import Summary
from .types import NOISE, Prediction

UNNAMED = "unnamed"
"""Label of a signal that was found and not looked at."""
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
    """One for each tile of the whole band, in order."""
    findings: list[Finding] = field(default_factory=list)
    """Signals found in the band where `detected`, otherwise runs of predictions, in order."""
    detected: bool = False
    """Whether the findings have edges of their own in the band."""
    events: list[Event] = field(default_factory=list)
    """What happened to the emitters of the band; empty where it was not searched."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what was assumed, doubted or left out."""

    @property
    def duration_s(self) -> float | None:
        """None when the rate is unknown."""
        return self.n_samples / self.rate_hz if self.rate_hz else None

    @property
    def signals(self) -> list[Emitter]:
        """Emitters that are signals, as they were at their ends, in the order of their starts."""
        return boxes(self.events)

    @property
    def summary(self) -> Summary:
        """Counts and mean probabilities of the predictions."""
        return Summary().add(self.predictions)


DETECT = ("auto", "on", "off")
"""Search of the band for signals: where the recording allows it, always, never."""


def analyse(
    pipeline: Pipeline,
    recording: Recording | IQStream,
    on_prediction: Callable[[Prediction], object] | None = None,
    detect: str = "auto",
) -> Analysis:
    """Classify a recording.

    The band is searched for signals, each is zoomed in on and named, and the findings are these. Where nothing is
    found, the findings are the labels of the whole band. So they are at times at which no signal was found.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle for spectrograms.
    recording : Recording or IQStream
        An open one.
    on_prediction : callable, optional
        Called with each prediction as soon as it is made.
    detect : str
        One of DETECT. "auto" does without the search where the sample rate is unknown or the recording is a stream,
        which can be read only once; "on" refuses these.

    Raises
    ------
    InputError
        The recording is too short for even a partial tile, or cannot be read.
    EngineError
        The engine failed.
    ConfigurationError
        `detect` is "on" and the band cannot be searched.
    """
    search = _search(recording, detect)
    first = recording.segments[0]
    name, engine = recording.path.name, pipeline.engine.description
    analysis = Analysis(name, recording.rate_hz, first.centre_hz, pipeline.bundle.id, engine)
    whole = isinstance(recording, Recording) and recording.stop_sample - recording.start_sample == recording.n_samples
    wrong_hash = check_hash(recording) if isinstance(recording, Recording) and whole else None
    interrupted = False
    try:
        for prediction in pipeline.classify_recording(recording):
            analysis.predictions.append(prediction)
            if on_prediction is not None:
                on_prediction(prediction)
    except KeyboardInterrupt:
        if not isinstance(recording, IQStream) or not analysis.predictions:
            raise
        interrupted = True  # the way to end a stream that has no end
    analysis.findings = find_runs(analysis.predictions)
    if search is not None:
        analysis.events, waiting = search_band(pipeline, search)
        signals = [each for each in analysis.signals if each.label != NOISE]
        analysis.detected = bool(signals) or detect == "on"
        if analysis.detected:
            found = emitter_findings(signals, analysis.predictions, analysis.bundle_id)
            elsewhere = [] if detect == "on" else beside(analysis.findings, found)
            analysis.findings = sorted(found + elsewhere, key=lambda each: each.start_sample)
    accounts = pipeline.stream_accounts
    analysis.n_samples = accounts.samples_in
    hash_notes = [wrong_hash] if wrong_hash else []
    analysis.notes = [*recording.notes, *hash_notes, *prediction_notes(analysis.predictions)]
    analysis.notes += ["interrupted: later samples were not read"] if interrupted else []
    analysis.notes += _account_notes(accounts, pipeline.stream_spec.min_samples)
    if search is not None:
        analysis.notes += _detection_notes(analysis, waiting)
    return analysis


def search_band(pipeline: Pipeline, recording: Recording) -> tuple[list[Event], int]:
    """Search the band of a recording, and name what is found.

    Returns
    -------
    events : list of Event
        In the order in which they became known.
    waiting : int
        Looks that the budget left out.
    """
    first, *others = recording.segments
    stream = BandStream(pipeline, recording.rate_hz, first.centre_hz, first.time, first.start_sample)
    stops = [*(segment.start_sample for segment in others), recording.stop_sample]
    events: list[Event] = []
    for segment, stop in zip(recording.segments, stops, strict=True):
        if segment is not first:
            events += stream.retune(centre_hz=segment.centre_hz, time=segment.time)
        for block in recording.blocks(start=segment.start_sample, stop=stop):
            events += stream.push(block)
    events += stream.finish()
    return events, stream.looks_waiting


def _search(recording: Recording | IQStream, detect: str) -> Recording | None:
    """The recording if its band is to be searched."""
    if detect not in DETECT:
        raise ConfigurationError("analysis", "detect", repr(detect), f"one of {', '.join(DETECT)}")
    if detect == "off":
        return None
    if isinstance(recording, Recording) and recording.rate_hz > 0:
        return recording
    if detect == "on":
        found = "an unknown sample rate" if isinstance(recording, Recording) else "a stream, which is read once"
        raise ConfigurationError(recording.path, "detect", found, "a recording with a known sample rate")
    return None


def beside(runs: Sequence[Finding], found: Sequence[Finding]) -> list[Finding]:
    """Labels of the whole band, other than noise, at times at which no signal was found in it."""
    spans = [(each.start_sample, each.end_sample) for each in found]
    return [
        run
        for run in runs
        if run.label != NOISE and not any(a < run.end_sample and run.start_sample < b for a, b in spans)
    ]


def emitter_findings(emitters: Sequence[Emitter], predictions: Sequence[Prediction], bundle_id: str) -> list[Finding]:
    """A finding for each emitter, with the doubt about the sample rate that the predictions have."""
    note = predictions[0].rate_note if predictions else ""
    return [_emitter_finding(emitter, bundle_id, note) for emitter in emitters]


def _emitter_finding(emitter: Emitter, bundle_id: str, rate_note: str) -> Finding:
    return Finding(
        emitter.label or UNNAMED,
        emitter.confidence,
        emitter.start_sample,
        emitter.n_samples,
        emitter.rate_hz,
        emitter.centre_hz,
        emitter.time,
        emitter.n_looks,
        0,
        bundle_id,
        rate_note,
        (emitter.low_hz, emitter.high_hz),
        emitter.snr_db,
        emitter.n_bursts,
    )


def _detection_notes(analysis: Analysis, waiting: int) -> list[str]:
    ended = [event.emitter for event in analysis.events if event.happening == "ended"]
    lines = sum(each.kind == "line" for each in ended)
    notes = [f"constant carriers (spurs, DC) that were not named: {lines}"] if lines else []
    if waiting:
        notes.append(f"{waiting} looks at signals were left out, beyond the budget of tiles")
    return notes


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
