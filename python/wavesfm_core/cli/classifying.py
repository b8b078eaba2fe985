# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm classify` and `wavesfm annotate`: one analysis of each recording feeds tables, JSON and annotations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..analysis import Analysis, analyse
from ..engines.shared import remote_accounts
from ..errors import ConfigurationError, InputError
from ..pipeline import Pipeline
from ..preprocess.power_gate import DEFAULT_GATE_DB
from ..recordings.folders import find_recordings
from ..recordings.iqfile import open_recording
from ..recordings.iqstream import IQStream, is_stream
from ..recordings.recording import LEAST_RATE_HZ, Recording
from ..recordings.sigmf_annotations import annotation_path
from ..recordings.sigmf_meta import META
from ..types import Prediction
from . import options as o
from .archives import ArchiveOptions, archive
from .json_output import json_lines, write_line
from .parsing import gate_db, hertz, samples
from .tables import show_analysis, show_many, show_notes

AnyRecording = Recording | IQStream


@dataclass(frozen=True)
class ReadOptions:
    """Options on how recordings are read, as text."""

    rate: str | None
    sample_format: str | None
    centre: str | None
    channel: int | None
    start: str | None
    length: str | None

    def open(self, path: str | Path) -> AnyRecording:
        """Open a recording or a stream; raises ConfigurationError or InputError."""
        rate_hz = hertz("--rate", self.rate)
        if rate_hz is not None and rate_hz < LEAST_RATE_HZ:
            expected = f"{LEAST_RATE_HZ:g} Hz or more, as in 2M or 250k"
            raise ConfigurationError("command line", "--rate", repr(self.rate), expected)
        centre_hz = hertz("--centre", self.centre, allow_negative=True)
        if is_stream(path):
            known_hz = rate_hz or 0.0
            start = samples("--start", self.start, known_hz) or 0
            length = samples("--length", self.length, known_hz)
            return IQStream(path, rate_hz, self.sample_format, centre_hz, start, length)
        recording = open_recording(path, rate_hz, self.sample_format, centre_hz, self.channel)
        if self.start is None and self.length is None:
            return recording
        start = samples("--start", self.start, recording.rate_hz) or 0
        return recording.part(start, samples("--length", self.length, recording.rate_hz))


def classify_command(
    recordings: o.Recordings,
    model: o.Model,
    rate: o.Rate = None,
    sample_format: o.Format = None,
    centre: o.Centre = None,
    channel: o.Channel = None,
    start: o.Start = None,
    length: o.Length = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    device_id: o.DeviceId = 0,
    threads: o.Threads = 0,
    gate: o.Gate = f"{DEFAULT_GATE_DB:g}",
    threshold: o.Threshold = None,
    detect: o.Detect = "auto",
    workers: o.Workers = None,
    ray: o.Ray = None,
    results: o.Results = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every finding, not the first 40 only.")] = False,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Also write one JSON line for each tile; - for stdout."),
    ] = None,
) -> None:
    """Name the signals in recordings, with time, frequency and confidence."""
    console = Console(stderr=json_path == "-")
    reading = ReadOptions(rate, sample_format, centre, channel, start, length)
    paths = find_recordings(recordings)
    many = ArchiveOptions(workers, ray, results)
    if many.wanted:
        options = _archive_options(device, precision, device_id, gate, threshold, detect)
        archive(many.job("classify", model, reading, threads, **options), many, paths, console, json_path)
        return
    first = reading.open(paths[0]) if len(paths) == 1 else None  # it is refused before a model is opened
    pipeline = _pipeline(model, device, gate, threshold, threads, precision, device_id)
    with contextlib.closing(pipeline), json_lines(json_path) as lines:

        def write(name: str, prediction: Prediction) -> None:
            if lines is not None:
                write_line(lines, {"recording": name, **prediction.as_dict()})

        done, refused = _analyse_all(pipeline, paths, reading, console, detect, write, first=first)
        console.print(f"{pipeline.bundle.id} on {pipeline.engine.description}", highlight=False)
        if remote := remote_accounts(pipeline.engine):
            counts = ", ".join(f"{name} {value:.4g}" for name, value in remote.items())
            console.print(f"server: {counts}", highlight=False)
    if len(paths) == 1:
        show_analysis(console, done[0], show_all)
    else:
        show_many(console, done)
    if refused:
        raise typer.Exit(2)


def annotate_command(
    recordings: o.Recordings,
    model: o.Model,
    rate: o.Rate = None,
    sample_format: o.Format = None,
    centre: o.Centre = None,
    channel: o.Channel = None,
    start: o.Start = None,
    length: o.Length = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    device_id: o.DeviceId = 0,
    threads: o.Threads = 0,
    gate: o.Gate = f"{DEFAULT_GATE_DB:g}",
    threshold: o.Threshold = None,
    detect: o.Detect = "auto",
    workers: o.Workers = None,
    ray: o.Ray = None,
    results: o.Results = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE|FOLDER", help="Where the metadata goes instead, with a link to samples."
        ),
    ] = None,
) -> None:
    """Write the findings as SigMF annotations beside each recording."""
    console = Console()
    reading = ReadOptions(rate, sample_format, centre, channel, start, length)
    paths = find_recordings(recordings)
    for path in paths:
        if is_stream(path):
            raise InputError(path, "recording", "a stream", "a file, beside which annotations can lie")
    targets = _targets(paths, output)
    many = ArchiveOptions(workers, ray, results)
    if many.wanted:
        options = _archive_options(device, precision, device_id, gate, threshold, detect)
        archive(many.job("annotate", model, reading, threads, output, **options), many, paths, console)
        return
    first = reading.open(paths[0]) if len(paths) == 1 else None
    pipeline = _pipeline(model, device, gate, threshold, threads, precision, device_id)
    written: list[Path] = []

    def write(recording: AnyRecording, analysis: Analysis) -> None:
        from ..recordings.sigmf_annotations import annotate

        assert isinstance(recording, Recording)
        written.append(annotate(recording, analysis.findings, targets(recording)))

    with contextlib.closing(pipeline):
        done, refused = _analyse_all(pipeline, paths, reading, console, detect, None, write, first)
    if len(paths) == 1:
        show_analysis(console, done[0])
    else:
        show_many(console, done)
    for path in written:
        console.print(f"annotations in {escape(str(path))}", highlight=False, soft_wrap=True)
    if refused:
        raise typer.Exit(2)


def _targets(paths: Sequence[str | Path], output: Path | None) -> Callable[[Recording], Path | None]:
    """A function that gives the path of a recording's metadata, None for the default.

    Raises ConfigurationError for one file and several recordings.
    """
    if output is None:
        return lambda recording: None
    is_folder = output.is_dir() or not output.name.endswith(META)
    if len(paths) > 1 and not is_folder:
        raise ConfigurationError("command line", "--output", str(output), "a folder, for several recordings")
    try:
        (output if is_folder else output.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(output, "--output", error.strerror, "a place that can be written") from None
    if not is_folder:
        return lambda recording: output
    return lambda recording: annotation_path(recording, output)


def _archive_options(
    device: str, precision: str, device_id: int, gate: str, threshold: float | None, detect: str
) -> dict[str, Any]:
    """Fields of an ArchiveJob."""
    options = {"device": device, "precision": precision, "device_id": device_id, "detect": detect}
    return {**options, "gate_db": gate_db(gate), "threshold": threshold}


def _pipeline(
    model: Path, device: str, gate: str, threshold: float | None, threads: int, precision: str, device_id: int
) -> Pipeline:
    pipeline = Pipeline.open(model, device, gate_db(gate), threshold, threads, precision=precision, device_id=device_id)
    _ = pipeline.stream_spec  # a bundle that takes no IQ is refused before a file is written over
    return pipeline


def _analyse_all(
    pipeline: Pipeline,
    paths: Sequence[str | Path],
    reading: ReadOptions,
    console: Console,
    detect: str,
    on_prediction: Callable[[str, Prediction], object] | None,
    on_analysis: Callable[[AnyRecording, Analysis], object] | None = None,
    first: AnyRecording | None = None,
) -> tuple[list[Analysis], int]:
    """Analyse all recordings. Returns the analyses and the number of recordings that could not be read.

    Of several recordings one that cannot be read is noted; a single one raises InputError. first: the first recording,
    where it is open already.
    """
    done: list[Analysis] = []
    refused = 0
    for path in paths:
        try:
            recording, first = first or reading.open(path), None
            with recording, _progress(recording, console) as advance:
                take = partial(_take, advance, on_prediction, recording.path.name)
                analysis = analyse(pipeline, recording, take, detect)
                if on_analysis is not None:
                    on_analysis(recording, analysis)
            done.append(analysis)
        except InputError as error:
            if len(paths) == 1:
                raise
            refused += 1
            show_notes(Console(stderr=True), [f"passed over: {' '.join(str(error).split())}"])
    return done, refused


def _take(
    advance: Callable[[Prediction], None],
    on_prediction: Callable[[str, Prediction], object] | None,
    name: str,
    prediction: Prediction,
) -> None:
    advance(prediction)
    if on_prediction is not None:
        on_prediction(name, prediction)


@contextlib.contextmanager
def _progress(recording: AnyRecording, console: Console) -> Iterator[Callable[[Prediction], None]]:
    """A progress bar, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    first, stop = recording.segments[0].start_sample, recording.stop_sample
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(recording.path.name), total=None if stop is None else stop - first)
        yield lambda made: bar.update(task, completed=made.start_sample + made.n_samples - first)
