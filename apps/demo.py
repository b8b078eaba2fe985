#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the signals of an IQ recording in a real flowgraph: of a scene that it makes itself, or of yours.

    scripts/demo                                   a made scene, against what is in it
    scripts/demo FILE [--rate HZ] [--format F]     SigMF, .cu8, .cs8, .cs16 or .cf32

The flowgraph is recording_source -> classifier -> prediction_sink. Into ./demo go NAME.predictions.jsonl (one line for
each tile), NAME.png (a labelled waterfall) and NAME.sigmf-meta (SigMF annotations). Beside a FILE of yours nothing is
written: its metadata in ./demo is a copy with the annotations added, and since SigMF wants samples and metadata in one
directory, a link to the samples lies beside it.

Exit code 0 when every tile was classified, 1 when the engine failed, 2 for what can be mended, said in one sentence.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import threading
import time
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
from waterfall import Found, draw
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.cli.parsing import hertz
from wavesfm_core.cli.summary import Summary
from wavesfm_core.errors import ConfigurationError, InputError, WavesfmError
from wavesfm_core.recordings.iqfile import Recording, open_recording
from wavesfm_core.recordings.sigmf_annotations import annotate
from wavesfm_core.recordings.sigmf_meta import META, validate_meta
from wavesfm_core.types import UNKNOWN, Prediction, StreamTime
from wavesfm_trainer.signals.scene import Scene, Span, labels_at, make_scene

MODEL = Path(__file__).parents[1] / "models" / "rf20-nano"
SCENE_RATE_HZ = 2.048e6
# Any seed will do; with some, a fully loaded cell fills the whole view and is as flat as noise to the power gate.
SCENE_SEED = 13
LEAST_TILE_SAMPLES = 65_536  # of the made scene, for models with very short tiles
ROWS_SHOWN = 40


@dataclass(frozen=True)
class Played:
    """One run of the flowgraph: the classifier's final accounts, which engine it had, how long it took."""

    predictions: list[Prediction]
    status: dict[str, Any]
    bundle_id: str
    engine: str
    wall_s: float


def write_scene(directory: Path, scene: Scene, seed: int) -> Path:
    """The scene as SigMF cf32_le with one capture for each stop; returns the path of the metadata."""
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
            each.unlink(missing_ok=True)  # it may be a link to a recording of the user's
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
    """What the prediction sink wrote."""
    predictions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        time = record.pop("time")
        known = None if time is None else StreamTime(time["full_s"], time["frac_s"])
        predictions.append(Prediction(**record, time=known))
    return predictions


def at_stops(spans: Sequence[Span], predictions: Sequence[Prediction]) -> list[Found]:
    """What was found at each stop: the label of `Summary`."""
    found = []
    for span in spans:
        stop = span.start_sample + span.n_samples
        mine = [p for p in predictions if span.start_sample <= p.start_sample < stop]
        summary = Summary().add(mine)
        confidence = summary.probabilities.get(summary.label)  # None when all were gated
        gated = summary.tiles - summary.inferred
        label = summary.label if mine else UNKNOWN  # not one of its tiles was classified
        place = (span.start_sample, span.n_samples, span.centre_hz)
        found.append(Found(label, confidence, *place, len(mine), gated, span.label))
    return found


def in_runs(predictions: Sequence[Prediction]) -> list[Found]:
    """Tiles of one label and one centre frequency that follow each other, with their mean confidence."""
    found = []
    for (label, centre_hz), group in itertools.groupby(predictions, lambda p: (p.label, p.centre_hz)):
        run = list(group)
        known = [p.confidence for p in run if p.confidence is not None]
        confidence = sum(known) / len(known) if known else None
        start, end = run[0].start_sample, run[-1].start_sample + run[-1].n_samples
        found.append(Found(label, confidence, start, end - start, centre_hz, len(run), sum(p.gated for p in run)))
    return found


def show_found(console: Console, found: Sequence[Found], rate_hz: float, title: str) -> None:
    """A table of stops, with truth, or of runs."""
    judged = any(each.truth for each in found)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    numbers = ("start s", "for s") if rate_hz else ("start", "samples")
    for heading in (*numbers, "MHz", *(["there is"] if judged else []), "found", "conf.", "tiles", "gated"):
        table.add_column(heading, justify="left" if heading in ("there is", "found") else "right", no_wrap=True)
    if judged:
        table.add_column("", no_wrap=True)
    for each in found[:ROWS_SHOWN]:
        place = (each.start_sample, each.n_samples)
        row = [f"{samples / rate_hz:.3f}" if rate_hz else str(samples) for samples in place]
        row.append("" if each.centre_hz is None else f"{each.centre_hz / 1e6:.6g}")
        row += ([each.truth] if judged else []) + [each.label]
        row.append("" if each.confidence is None else f"{each.confidence:.2f}")
        row += [str(each.tiles), str(each.gated or "")]
        if judged:
            row.append("[bold red]wrong[/]" if each.wrong else "[green]right[/]")
        table.add_row(*row)
    console.print(table)
    if len(found) > ROWS_SHOWN:
        console.print(f"these are the first {ROWS_SHOWN} of {len(found)} runs", highlight=False)
    if judged:
        console.print(f"right: {sum(not each.wrong for each in found)} of {len(found)} stops", highlight=False)


def show_accounts(console: Console, played: Played) -> None:
    """Where every tile went, how fast, and by what."""
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


def link_samples(recording: Recording, directory: Path) -> None:
    """A link to the samples in `directory`, where the metadata goes, unless they lie there."""
    link = directory / recording.path.name
    if link.exists() and not link.is_symlink():
        if link.samefile(recording.path):
            return
        raise ConfigurationError(link, "file", "another recording", "another --output, or that one moved away")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(recording.path.resolve(), directory.resolve()))
    except OSError as error:
        expected = "an --output in which links can be made"
        raise ConfigurationError(link, "link", error.strerror or error, expected) from None


def demonstrate(arguments: argparse.Namespace, console: Console) -> int:
    """Everything; returns the exit code."""
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
        link_samples(recording, arguments.output)
        lines = base.with_name(base.name + ".predictions.jsonl")
        played = play(source, arguments.model, arguments.device, lines, console)
        if not played.status["tiles_in"]:
            expected = f"at least {spec.min_samples}, this model's shortest tile"
            raise InputError(recording.path, "length", f"{recording.n_samples} samples", expected)
        found = at_stops(spans, played.predictions) if spans else in_runs(played.predictions)
        show_found(console, found, recording.rate_hz, recording.path.name)
        if not spans and played.predictions:
            Summary().add(played.predictions).show(console, "all tiles")
        show_accounts(console, played)
        meta = annotate(recording, played.predictions, base.with_name(base.name + META))
        picture = base.with_name(base.name + ".png")
        draw(picture, recording, spec, found, f"{recording.path.name}  by {played.bundle_id}")
    console.print(f"written: {lines}, {meta}, {picture}", highlight=False, soft_wrap=True)
    if played.status["fault"] or played.status["failed"]:
        sys.stderr.write(f"demo: not all was classified: {played.status['fault'] or played.status['last_error']}\n")
        return 1
    return 0


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a recording; none: a made scene")
    parser.add_argument("--rate", metavar="HZ", help="sample rate, such as 2.4M, where the file does not tell")
    parser.add_argument("--format", metavar="F", help="cu8, cs8, cs16 or cf32, where the name does not tell")
    parser.add_argument("--centre", metavar="HZ", help="centre frequency, such as 433.92M")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="BUNDLE", help="directory of a model bundle")
    parser.add_argument("--device", default="auto", help="auto, cpu, onnxruntime or openvino")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where the files go")
    parser.add_argument("--seed", type=int, default=SCENE_SEED, help="of the made scene")
    parser.add_argument("--stops", type=int, metavar="N", help="of the made scene; all classes when not given")
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
