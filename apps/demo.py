#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find and name the signals of an IQ recording in a flowgraph: of a generated scene, or of your recording.

    scripts/demo                                   a generated scene of signals side by side, judged by what was sent
    scripts/demo FILE [--rate HZ] [--format F]     as for `wavesfm classify`

The flowgraph is recording_source -> classifier -> prediction_sink, with a second sink for the events. Into ./demo go
NAME.predictions.jsonl (one line for each tile of the whole band), NAME.events.jsonl (one line for each event),
NAME.png (the waterfall with boxes) and NAME.sigmf-meta (SigMF annotations), with a link to the samples. Nothing is
written beside FILE.

Exit status 0: every tile was classified. 1: the engine failed. 2: an error that the user can correct, in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnuradio import gr, wavesfm
from rich.console import Console
from rich.progress import Progress
from scene import show_truth, write_scene
from waterfall import draw
from wavesfm_core.analysis import DETECT, Analysis, beside, emitter_findings, prediction_notes
from wavesfm_core.band.types import Emitter
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.cli.parsing import hertz
from wavesfm_core.cli.tables import show_analysis
from wavesfm_core.errors import ConfigurationError, InputError, WavesfmError
from wavesfm_core.recordings.findings import Finding, find_runs
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.recordings.sigmf_annotations import annotate
from wavesfm_core.recordings.sigmf_meta import META
from wavesfm_core.types import NOISE, Prediction, StreamTime
from wavesfm_trainer.evaluation.band_scenes import Truth, make_band_scene

MODEL = Path(__file__).parents[1] / "models" / "rf20-nano"
SCENE_RATE_HZ = 8e6
SCENE_SNR_DB = (12.0, 30.0)
# any seed will do
SCENE_SEED = 13


@dataclass(frozen=True)
class Played:
    """Results of one run of the flowgraph."""

    predictions: list[Prediction]
    status: dict[str, Any]
    bundle_id: str
    engine: str
    wall_s: float
    emitters: list[Emitter] = field(default_factory=list)
    """Signals found in the band, each as it was at its end; empty where the band was not searched."""

    def findings(self) -> list[Finding]:
        """As `wavesfm classify` has them: the signals found, and labels of the whole band where there were none."""
        runs = find_runs(self.predictions)
        signals = [each for each in self.emitters if each.label != NOISE]
        if not signals:
            return runs
        found = emitter_findings(signals, self.predictions, self.bundle_id)
        return sorted(found + beside(runs, found), key=lambda each: each.start_sample)


def play(source: Any, model: Path, device: str, lines: Path, events: Path | None, console: Console) -> Played:
    """Run the flowgraph to the source's end, with the predictions and the events, if they are wanted, in files."""
    top = gr.top_block()
    detect = "off" if events is None else "on"
    classifier = wavesfm.classifier(str(model), device=device, sample_rate=source.rate_hz, detect=detect)
    sinks = {"predictions": wavesfm.prediction_sink(str(lines))}
    if events is not None:
        sinks["events"] = wavesfm.prediction_sink(str(events))
    top.connect(source, classifier)
    for port, sink in sinks.items():
        top.msg_connect((classifier, port), (sink, "predictions"))
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
    if errors := sum(sink.errors for sink in sinks.values()):
        raise ConfigurationError(lines, "file", f"{errors} lines that could not be written", "room for them")
    emitters = [] if events is None else read_emitters(events)
    predictions, about = read_predictions(lines), (classifier.bundle_id, classifier.engine)
    return Played(predictions, classifier.status(), *about, wall_s, emitters)


def read_predictions(path: Path) -> list[Prediction]:
    """Read the lines of the prediction sink."""
    predictions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        time, _, _ = (record.pop(key) for key in ("time", "run", "sequence"))
        known = None if time is None else StreamTime(time["full_s"], time["frac_s"])
        predictions.append(Prediction(**record, time=known))
    return predictions


def read_emitters(path: Path) -> list[Emitter]:
    """Signals whose end is among the lines of the sink of events, in the order of their starts."""
    emitters = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["event"] != "ended" or record["kind"] not in ("signal", "whole"):
            continue
        at, number = record["time"], record["emitter"]
        ended = None if at is None else StreamTime(at["full_s"], at["frac_s"])
        since_s = (record["start_sample"] - record["sample"]) / record["rate_hz"]
        for key in ("schema", "event", "sample", "changes", "run", "sequence", "emitter", "time"):
            del record[key]
        emitters.append(Emitter(number=number, time=ended and ended.advanced(since_s), **record))
    return sorted(emitters, key=lambda each: (each.start_sample, each.low_hz))


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
    if band := status.get("band"):
        names = ("samples_searched", "samples_missed", "looks_left")
        parts = ", ".join(f"{band[name]} {name}" for name in names if name in band)
        console.print(f"search:  {parts}", highlight=False)


def searched(recording: Recording, detect: str) -> bool:
    """Whether the band is searched: "auto" and "on" need a known sample rate, without which "on" is refused."""
    if detect == "on" and not recording.rate_hz:
        raise ConfigurationError(recording.path, "--detect", "an unknown sample rate", "a rate: --rate tells it")
    return detect != "off" and recording.rate_hz > 0


def show(
    console: Console, recording: Recording, played: Played, findings: list[Finding], truths: tuple[Truth, ...]
) -> None:
    """Print what was found, against what was sent where that is known, and the accounts."""
    if truths:
        show_truth(console, truths, findings, recording.path.name)
    else:
        about = (recording.path.name, recording.rate_hz, recording.centre_hz, played.bundle_id, played.engine)
        notes = [*recording.notes, *prediction_notes(played.predictions)]
        show_analysis(console, Analysis(*about, recording.n_samples, played.predictions, findings, notes=notes))
    show_accounts(console, played)


def demonstrate(arguments: argparse.Namespace, console: Console) -> int:
    """Run the demo and return the exit status."""
    bundle = Bundle.open(arguments.model)
    spec = bundle.spec.preprocess
    rate_hz, centre_hz = hertz("--rate", arguments.rate), hertz("--centre", arguments.centre, allow_negative=True)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(arguments.output, "--output", error.strerror, "a directory to write to") from None
    truths: tuple[Truth, ...] = ()
    file = arguments.file
    if file is None:
        console.print("generating the scene ...")
        scene = make_band_scene(arguments.seed, SCENE_RATE_HZ, arguments.seconds, arguments.signals, SCENE_SNR_DB)
        file, truths = write_scene(arguments.output, scene, arguments.seed), scene.truths
        del scene
    with open_recording(file, rate_hz, arguments.format, centre_hz) as recording:
        source = wavesfm.recording_source(str(file), arguments.format or "", rate_hz or 0.0, centre_hz or 0.0)
        path = recording.meta_path or recording.path
        base = arguments.output / (path.name.removesuffix(META) if recording.meta_path else path.stem)
        lines = base.with_name(base.name + ".predictions.jsonl")
        events = base.with_name(base.name + ".events.jsonl") if searched(recording, arguments.detect) else None
        played = play(source, arguments.model, arguments.device, lines, events, console)
        if not played.status["tiles_in"]:
            expected = f"at least {spec.min_samples}, this model's shortest tile"
            raise InputError(recording.path, "length", f"{recording.n_samples} samples", expected)
        findings = played.findings()
        show(console, recording, played, findings, truths)
        meta = annotate(recording, findings, base.with_name(base.name + META))
        picture = base.with_name(base.name + ".png")
        draw(picture, recording, findings, f"{recording.path.name}  by {played.bundle_id}", truths)
    written = ", ".join(str(each) for each in (lines, events, meta, picture) if each)
    console.print(f"written: {written}", highlight=False, soft_wrap=True)
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
    parser.add_argument("--signals", type=int, default=10, metavar="N", help="most signals of the generated scene")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of the generated scene")
    parser.add_argument("--detect", choices=DETECT, default="auto", help="search the band for signals, then name each")
    arguments = parser.parse_args()
    if arguments.signals < 1 or arguments.seed < 0 or not 0.05 <= arguments.seconds <= 10:
        parser.error("--signals: expected 1 or more; --seed: 0 or more; --seconds: 0.05 to 10")
    try:
        return demonstrate(arguments, Console())
    except WavesfmError as error:
        sys.stderr.write("demo: " + " ".join(str(error).split()) + "\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
