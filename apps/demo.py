#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the signals of an IQ recording in a flowgraph: of a generated scene, or of your recording.

    scripts/demo                                   a generated scene, judged by what was sent
    scripts/demo FILE [--rate HZ] [--format F]     as for `wavesfm classify`

The flowgraph is recording_source -> classifier -> prediction_sink. Into ./demo go NAME.predictions.jsonl (one line for
each tile), NAME.png (a labelled waterfall) and NAME.sigmf-meta (SigMF annotations), with a link to the samples. Nothing
is written beside FILE.

Exit status 0: every tile was classified. 1: the engine failed. 2: an error that the user can correct, in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sigmf
from gnuradio import gr, wavesfm
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from waterfall import draw
from wavesfm_core.analysis import Analysis, prediction_notes
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.cli.parsing import hertz
from wavesfm_core.cli.tables import show_analysis
from wavesfm_core.errors import ConfigurationError, InputError, WavesfmError
from wavesfm_core.recordings.findings import Finding, find_runs
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.sigmf_annotations import annotate
from wavesfm_core.recordings.sigmf_meta import META, validate_meta
from wavesfm_core.types import NOISE, UNKNOWN, Prediction, StreamTime
from wavesfm_trainer.signals.scene import Scene, Span, labels_at, make_scene

MODEL = Path(__file__).parents[1] / "models" / "rf20-nano"
SCENE_RATE_HZ = 2.048e6
# any seed will do
SCENE_SEED = 13
LEAST_TILE_SAMPLES = 65_536  # of the generated scene, for models with very short tiles


@dataclass(frozen=True)
class Played:
    """Results of one run of the flowgraph."""

    predictions: list[Prediction]
    status: dict[str, Any]
    bundle_id: str
    engine: str
    wall_s: float


def write_scene(directory: Path, scene: Scene, seed: int) -> Path:
    """Write the scene as SigMF cf32_le with one capture for each stop. Returns the path of the metadata."""
    stops = ", ".join(f"{span.centre_hz / 1e6:g} MHz {span.label}" for span in scene.spans)
    meta = {
        "global": {
            "core:datatype": "cf32_le",
            "core:version": sigmf.__specification__,
            "core:sample_rate": scene.rate_hz,
            "core:description": f"Made by gr-wavesfm, seed {seed}. In order: {stops}.",
        },
        "captures": [
            {"core:sample_start": span.start_sample, "core:frequency": span.centre_hz} for span in scene.spans
        ],
        "annotations": [],
    }
    path = directory / f"scene{META}"
    data = directory / "scene.sigmf-data"
    validate_meta(meta, path)
    try:
        for each in (data, path):
            each.unlink(missing_ok=True)  # it may be a link to a user's recording
        scene.iq.astype("<c8", copy=False).tofile(data)
        path.write_text(json.dumps(meta, indent=4) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(data, "file", error.strerror or error, "a place that can be written") from None
    return path


def play(source: Any, model: Path, device: str, path: Path, console: Console) -> Played:
    """Run the flowgraph to the source's end, with the predictions in the file `path`."""
    top = gr.top_block()
    classifier = wavesfm.classifier(str(model), device=device, sample_rate=source.rate_hz)
    sink = wavesfm.prediction_sink(str(path))
    top.connect(source, classifier)
    top.msg_connect((classifier, "predictions"), (sink, "predictions"))
    waiter = threading.Thread(target=top.wait, daemon=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("classifying", total=source.n_samples)
        began_s = time.monotonic()
        top.start()
        waiter.start()
        try:
            while waiter.is_alive():
                waiter.join(0.05)
                progress.update(task, completed=classifier.status()["samples_in"])
        except KeyboardInterrupt:
            top.stop()
            waiter.join()
            raise
        wall_s = time.monotonic() - began_s
    if sink.errors:
        raise ConfigurationError(path, "file", f"{sink.errors} lines that could not be written", "room for them")
    return Played(read_predictions(path), classifier.status(), classifier.bundle_id, classifier.engine, wall_s)


def read_predictions(path: Path) -> list[Prediction]:
    """Read the lines of the prediction sink."""
    predictions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        time, _, _ = (record.pop(key) for key in ("time", "run", "sequence"))
        known = None if time is None else StreamTime(time["full_s"], time["frac_s"])
        predictions.append(Prediction(**record, time=known))
    return predictions


@dataclass(frozen=True)
class Stop:
    """Result at one stop of a scene."""

    span: Span
    label: str
    """The label with the most tiles, noise only where nothing else was found; "unknown" without a tile."""
    confidence: float | None
    """Mean over the tiles of that label, None where the model was asked about none."""
    tiles: int

    @property
    def right(self) -> bool:
        """Whether the label is that of the scene."""
        return self.label == self.span.label


def at_stops(spans: Sequence[Span], findings: Sequence[Finding]) -> list[Stop]:
    """The findings summed up for each stop."""
    stops = []
    for span in spans:
        mine = [
            each for each in findings if span.start_sample <= each.start_sample < span.start_sample + span.n_samples
        ]
        tiles: Counter[str] = Counter()
        for each in mine:
            tiles[each.label] += each.tiles
        label = max(tiles, key=lambda name: (name != NOISE, tiles[name]), default=UNKNOWN)
        parts = [(each.confidence, each.tiles) for each in mine if each.label == label and each.confidence is not None]
        count = sum(weight for _, weight in parts)
        confidence = sum(value * weight for value, weight in parts) / count if count else None
        stops.append(Stop(span, label, confidence, sum(tiles.values())))
    return stops


def show_stops(console: Console, stops: Sequence[Stop], rate_hz: float, title: str) -> None:
    """A table of stops against the scene."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for heading in ("start s", "for s", "MHz", "sent", "found", "conf.", "tiles", ""):
        table.add_column(heading, justify="left" if heading in ("sent", "found") else "right", no_wrap=True)
    for stop in stops:
        span = stop.span
        seconds = [f"{samples / rate_hz:.3f}" for samples in (span.start_sample, span.n_samples)]
        confidence = "" if stop.confidence is None else f"{stop.confidence:.2f}"
        verdict = "[green]right[/]" if stop.right else "[bold red]wrong[/]"
        centre = f"{span.centre_hz / 1e6:.6g}"
        table.add_row(*seconds, centre, span.label, stop.label, confidence, str(stop.tiles), verdict)
    console.print(table)
    console.print(f"right: {sum(stop.right for stop in stops)} of {len(stops)} stops", highlight=False)


def truths_of(spans: Sequence[Span], findings: Sequence[Finding]) -> list[str]:
    """The sent label at the start of each finding."""
    return [
        next((span.label for span in reversed(spans) if span.start_sample <= each.start_sample), "")
        for each in findings
    ]


def show_accounts(console: Console, played: Played) -> None:
    """Print model, tiles by outcome, samples and speed."""
    status = played.status
    parts = ", ".join(f"{status[name]} {name}" for name in ("inferred", "gated", "dropped", "failed"))
    rate = status["samples_in"] / played.wall_s / 1e6
    console.print(f"model:   {played.bundle_id} on {played.engine}", highlight=False)
    console.print(f"tiles:   {status['tiles_in']} in: {parts}", highlight=False)
    console.print(
        f"samples: {status['samples_in']} in {played.wall_s:.2f} s, {rate:.1f} MS/s; "
        f"{status['samples_skipped']} too few for a tile, {status['nonfinite_samples']} NaN or infinite",
        highlight=False,
    )


def demonstrate(arguments: argparse.Namespace, console: Console) -> int:
    """Run the demo and return the exit status."""
    bundle = Bundle.open(arguments.model)
    spec = bundle.spec.preprocess
    rate_hz, centre_hz = hertz("--rate", arguments.rate), hertz("--centre", arguments.centre, allow_negative=True)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(arguments.output, "--output", error.strerror, "a directory to write to") from None
    spans: tuple[Span, ...] = ()
    file = arguments.file
    if file is None:
        labels = labels_at(SCENE_RATE_HZ)[: arguments.stops]
        scene = make_scene(arguments.seed, SCENE_RATE_HZ, max(spec.tile_samples, LEAST_TILE_SAMPLES), labels)
        file, spans = write_scene(arguments.output, scene, arguments.seed), scene.spans
        del scene
    with open_recording(file, rate_hz, arguments.format, centre_hz) as recording:
        source = wavesfm.recording_source(str(file), arguments.format or "", rate_hz or 0.0, centre_hz or 0.0)
        path = recording.meta_path or recording.path
        base = arguments.output / (path.name.removesuffix(META) if recording.meta_path else path.stem)
        lines = base.with_name(base.name + ".predictions.jsonl")
        played = play(source, arguments.model, arguments.device, lines, console)
        if not played.status["tiles_in"]:
            expected = f"at least {spec.min_samples}, this model's shortest tile"
            raise InputError(recording.path, "length", f"{recording.n_samples} samples", expected)
        findings = find_runs(played.predictions)
        analysis = Analysis(
            recording.path.name,
            recording.rate_hz,
            recording.centre_hz,
            played.bundle_id,
            played.engine,
            recording.n_samples,
            played.predictions,
            findings,
            [*recording.notes, *prediction_notes(played.predictions)],
        )
        if spans:
            show_stops(console, at_stops(spans, findings), recording.rate_hz, analysis.name)
        else:
            show_analysis(console, analysis)
        show_accounts(console, played)
        meta = annotate(recording, findings, base.with_name(base.name + META))
        picture = base.with_name(base.name + ".png")
        draw(picture, recording, spec, findings, f"{analysis.name}  by {played.bundle_id}", truths_of(spans, findings))
    console.print(f"written: {lines}, {meta}, {picture}", highlight=False, soft_wrap=True)
    if played.status["fault"] or played.status["failed"]:
        sys.stderr.write(f"demo: not all was classified: {played.status['fault'] or played.status['last_error']}\n")
        return 1
    return 0


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a recording; none: a generated scene")
    parser.add_argument("--rate", metavar="HZ", help="sample rate, such as 2.4M, where the file does not tell")
    parser.add_argument("--format", metavar="F", help="such as cu8, cs16 or cf32; goes before name and bytes")
    parser.add_argument("--centre", metavar="HZ", help="centre frequency, such as 433.92M")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="BUNDLE", help="directory of a model bundle")
    parser.add_argument("--device", default="auto", help="auto, cpu, onnxruntime or openvino")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where the files go")
    parser.add_argument("--seed", type=int, default=SCENE_SEED, help="of the generated scene")
    parser.add_argument("--stops", type=int, metavar="N", help="of the generated scene; default: all classes")
    arguments = parser.parse_args()
    if (arguments.stops is not None and arguments.stops < 1) or arguments.seed < 0:
        parser.error("--stops: expected 1 or more; --seed: 0 or more")
    try:
        return demonstrate(arguments, Console())
    except WavesfmError as error:
        sys.stderr.write("demo: " + " ".join(str(error).split()) + "\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
